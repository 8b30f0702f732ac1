"""From a rollout to new weights, in one compiled program."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad import estimators, gradients, random
from rlgrad.agent import Agent
from rlgrad.core.nested import map_leaves
from rlgrad.core.tensorflow_internals import flat_call, trace
from rlgrad.data import Batch, Metrics, ReplayBatch, Rollout
from rlgrad.diagnostics.diagnosis import Diagnosis
from rlgrad.environments.goals import GoalRewards
from rlgrad.learning.acting import acting_policy, require_explorable
from rlgrad.learning.contract import (
    DryRun,
    batch_signature,
    check_credit,
    check_metrics,
    dry_run,
    require_free_names,
)
from rlgrad.learning.hindsight import check_paid
from rlgrad.learning.microscope import Microscope
from rlgrad.learning.nonfinite import NonFiniteError, explain
from rlgrad.learning.objective import PolicyObjective
from rlgrad.learning.packing import WordPacking
from rlgrad.learning.rehearsal import Rehearsal
from rlgrad.learning.reward_scale import RewardScale, StreamRewardScale
from rlgrad.learning.rollout_rows import RolloutRows
from rlgrad.learning.sketch import ON_DEMAND
from rlgrad.learning.spreading import Ranks, Spread
from rlgrad.learning.stream_memory import StreamMemory
from rlgrad.learning.target_weights import TargetWeights
from rlgrad.learning.trained_variables import (
    connected,
    kind_of_actions,
    layers_of,
    require_same_kind,
    variables_behind,
)
from rlgrad.learning.xla import update_gains_from_xla, with_fallback
from rlgrad.policies.policy import Policy
from rlgrad.streams import StreamAgent
from rlgrad.updates import State, assign_if

_log = logging.getLogger("rlgrad")


class Learner:
    """Fill in values, estimate, credit, differentiate, move: one `tf.function`, traced once and compiled once.

    Args:
        agent: says how much each gradient counts.
        policy: learns; its weights are moved in place.
        num_envs: slots that a rollout is played in.
        xla: compile with XLA; if it cannot compile the model, the program becomes a plain graph, and says so. `None`: if the
            update gains from it; see `update_gains_from_xla`.
        traced: a dry run of the agent on this policy's outputs, if the caller has one. `None`: the learner makes it.
        goals: of the environment, which a replay with hindsight asks, in Python: then nothing is compiled with XLA.
        ranks: other learners, which share the rows of each step with this one; then likewise.

    Attributes:
        credited: names of the outputs that the agent trains.
        variables: the weights that these outputs depend on. Only they move.
        layers: for each of these outputs, the names of the layers of its weights.
        metrics: names of what `learn` returns, in order.
        state: of the update.
        reward_scale: of the rewards, if the agent asks for one.
        rehearsal: draws batches from what was played earlier, if the agent has a replay.
        target: the target weights, if the agent asks them.
        stream: what a `StreamAgent` keeps from step to step.
        microscope: measures the gradients of single steps.
        ranks: the other learners, if there are any.
        traces: how often the program was traced.
    """

    def __init__(
        self,
        agent: Agent,
        policy: Policy,
        *,
        num_envs: int,
        xla: bool | None = None,
        traced: DryRun | None = None,
        goals: GoalRewards | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.agent, self.policy, self._num_envs = agent, policy, num_envs
        if traced is None:
            has_replay = agent.replay is not None
            signature = batch_signature(policy.observation_spec, policy.action_spec, replay=has_replay)
            traced = dry_run(agent, signature, value=policy.has_value, **kind_of_actions(policy))
        require_same_kind(agent, policy, traced)
        self.outputs, self.credited, self._measured, asked_of_target, *_ = traced
        self.variables, self._by_output = connected(agent, policy, self.credited)
        self.layers = {name: layers_of(policy, variables) for name, variables in self._by_output.items()}
        self.state: State = agent.update.build(self.variables, num_envs, self._by_output)
        self.whole_episodes = agent.num_steps is None
        require_explorable(agent, policy)
        self.rehearsal = None if agent.replay is None else Rehearsal(agent, policy, num_envs, goals)
        self.target = None
        if asked_of_target and agent.target is not None:
            self.target = TargetWeights(agent.target, variables_behind(agent, policy, asked_of_target))
        trains_value = "value" in self.credited or traced.action_values  # critics of actions say no value of a state
        self.uses_value = policy.has_value and trains_value and self.rehearsal is None
        self.stream = StreamMemory(agent, policy, num_envs) if isinstance(agent, StreamAgent) else None
        # The returns of a single step do not vary.
        self._explains = self.uses_value and self.stream is None
        of_value = ("explained_variance",) if self._explains else ()
        own: tuple[str, ...] = ("gradient_steps",) if self.rehearsal is not None else ()
        if agent.replay is not None and agent.replay.prioritized:
            own = ("effective_sample_size", *own)
        self.metrics = (*self.objective(None).metric_names, *of_value, *agent.update.metrics, *own)
        require_free_names(agent, self._measured, (*of_value, *own, "q_mean"))
        if not self.uses_value and not self.whole_episodes and self.rehearsal is None:
            raise ValueError(
                f"{type(agent).__name__} trains no value output, so nothing estimates the rewards after the end of a rollout: "
                "collect whole episodes, with num_steps set to None."
            )
        if not self.uses_value and self.rehearsal is None:
            _log.info("No value output: a time limit counts as the end of the task, with no reward after it.")
        if agent.scale_rewards and self.rehearsal is not None and self.rehearsal.from_data:
            raise ValueError(
                "scale_rewards follows the rewards of rollouts, and a run that learns from data plays none: leave it out."
            )
        self.reward_scale = _reward_scale(agent, num_envs) if agent.scale_rewards else None
        self.ranks, self._spread = ranks, None if ranks is None else Spread(agent, policy, ranks)
        self._rows = RolloutRows(agent, policy, self.uses_value, self.reward_scale, self.target, self._spread)
        scale = [] if self.reward_scale is None else self.reward_scale.variables
        self._statistics = [
            *policy.preparation.variables,
            *scale,
            *([] if self.stream is None else self.stream.variables),
        ]
        self.traces = 0
        self.xla = update_gains_from_xla(policy, agent.update, self.variables) if xla is None else xla
        if self._spread is not None or (self.rehearsal is not None and self.rehearsal.goals is not None):
            self.xla = False
        self._mirror = policy.mirror  # made before anything is traced
        # Programs, and how their arguments are packed, by the rows of a rollout; 0 for all rollouts by steps.
        self._programs: dict[int, tuple[WordPacking, Any]] = {}
        self.microscope = Microscope(agent, policy, self.credited, self.rehearsal)
        self._said: np.ndarray | None = None  # of the observations to act on next
        self._packed: np.ndarray | None = None  # the new weights, for an actor that computes in NumPy

    def learn(self, rollout: Rollout, progress: float, seed: np.ndarray, following: Any = None) -> dict[str, float]:
        """Move the policy's weights by one rollout.

        Args:
            rollout: of the policy at its current weights; the same shapes each time. Whole episodes may have other
                numbers of rows, for each of which there is a program.
            progress: share of the run already done, 0 … 1.
            seed: int32 (2,), for shuffles.
            following: the observations (N, …) to act on next, if the agent learns from each step as it comes: what is said of
                them is then computed along. `None`: it is not.

        Returns:
            By name, the numbers that `metrics` names.

        Raises:
            NonFiniteError: a gradient was not finite; names output, variable and step.
        """
        if self.rehearsal is not None and self.rehearsal.goals is not None and not self.rehearsal.from_data:
            check_paid(self.rehearsal.goals, rollout)
        arguments: tuple[Any, ...] = _unfilled(rollout), np.float32(progress), np.asarray(seed, np.int32)
        says = following is not None and self.stream is not None
        if says:
            arguments = *arguments, following
        key = -1 if says else self._key(rollout)
        if key in self._programs:
            packing, program = self._programs[key]
            with self._faults():
                results = program(packing.pack(arguments))
        else:
            _log.info("Compiling the update …")
            with self._faults():
                results = with_fallback(lambda xla: self._first(key, arguments, xla), self.xla, self.give_up_xla)
        numbers, count = results[0].numpy(), len(self.metrics)
        if self.rehearsal is not None:
            self.rehearsal.check()
        rest = numbers[count + 1 :] if len(numbers) > count + 1 else None
        self._packed, self._said = (None, rest) if says else (rest, None)
        step = int(numbers[count])
        if step >= 0:
            raise self.failure(rollout, progress, step, seed)
        return dict(zip(self.metrics, numbers[:count].tolist(), strict=True))

    def failure(self, rollout: Rollout, progress: float, step: int, seed: Any) -> NonFiniteError:
        """Return the error for a step that was not finite. To say where, compute the gradient again, without compilation."""
        now, seed = tf.constant(progress, tf.float32), tf.constant(seed)
        if self.rehearsal is not None:  # it still holds what it held, and draws the same rows
            batch, _ = self.rehearsal.draw(random.fold_in(seed, step), now)
            return NonFiniteError(
                explain(self.objective(self.scaled(batch)), self._by_output, None, self._num_envs, step)
            )
        tensors: Rollout = map_leaves(tf.constant, rollout)
        objective = self.objective(self.batch_of(tensors, now, seed))
        return NonFiniteError(explain(objective, self._by_output, rollout, self._num_envs, step))

    @property
    def memories(self) -> dict[str, list[Any]]:
        """Return what a checkpoint keeps besides the policy and the update's slots: variables by group, in order."""
        parts = {
            "reward_scale": self.reward_scale,
            "target": self.target,
            "replay": self.rehearsal,
            "stream": self.stream,
        }
        return {name: list(part.variables) for name, part in parts.items() if part is not None}

    def close(self) -> None:
        """End the other learners, if there are any."""
        if self.ranks is not None:
            self.ranks.close()

    def give_up_xla(self) -> None:
        """Compile no program of this learner with XLA from now on."""
        self.xla = False

    def acting(self, progress: Any, timesteps: Any) -> Any:
        """Return what acts for training: the policy, or where the agent explores, the policy with random actions.

        Args:
            progress: share of the run already done, 0 … 1; a tensor in programs.
            timesteps: environment steps taken so far, likewise.
        """
        decided = None if self.stream is None else self.stream.decided
        return acting_policy(self.agent, self.policy, progress, timesteps, decided)

    def actor(self) -> Any:
        """Return the policy's actor at the weights that the last `learn` left. They must not have changed since."""
        if self._said is not None and self.stream is not None:
            said = self.stream.heard(self._said)
            return lambda _: said
        return self.policy.actor(self._packed)

    def first_actor(self) -> Any:
        """Return an actor for weights that may have changed since the last `learn`; see `StreamMemory.actor`.

        `None`: the agent does not learn from each step as it comes, and the policy's own actor is such a one.
        """
        return None if self.stream is None else self.stream.actor()

    def diagnose(self, rollout: Rollout | None, progress: float, timesteps: int = 0) -> Diagnosis:
        """Measure the per-sample gradients of a rollout, or of a batch of the replay. No weight moves.

        Args:
            rollout: of the policy at its current weights, with shapes as for `learn`; `None` if there is a replay.
            progress: share of the run already done, 0 … 1.
            timesteps: environment steps trained so far, stored with the result.
        """
        self.microscope.require_gradients_of_steps(stream=self.stream is not None)
        if self.rehearsal is not None:
            return self.microscope.of_replay(progress, timesteps, lambda batch: self.objective(self.scaled(batch)))
        assert rollout is not None
        return self.microscope.of_rollout(_unfilled(rollout), progress, timesteps, self.batch_of, self.objective)

    def _key(self, rollout: Rollout) -> int:
        return len(rollout.mask) if self.whole_episodes else 0

    def _first(self, key: int, arguments: Any, xla: bool) -> list[tf.Tensor]:
        """Make a program and run it. A concrete function skips the search for one that fits the arguments."""
        self.prepare()
        packing = WordPacking(arguments)

        def learn_packed(packed: list[tf.Tensor]) -> list[tf.Tensor]:
            rollout, progress, seed, *following = packing.unpack(*packed)
            numbers = self.move(rollout, progress, seed)
            if following and self.stream is not None:
                return [tf.concat([numbers, self.stream.say(following[0])], axis=0)]
            return [numbers if self._mirror is None else tf.concat([numbers, self._mirror.packed()], axis=0)]

        packed = packing.pack(arguments)
        program = flat_call(trace(learn_packed, packed, jit_compile=xla or None))
        results: list[tf.Tensor] = program(packed)
        self._programs[key] = packing, program
        return results

    def _faults(self) -> AbstractContextManager[None]:
        return nullcontext() if self._spread is None else self._spread.faults()

    def prepare(self) -> None:
        """Make what must be there before a program is traced."""
        if self.rehearsal is not None:
            self.rehearsal.prepare()

    def move(self, rollout: Rollout, progress: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Learn as part of a compiled program.

        Returns:
            Float32: the numbers that `metrics` names, in order; then the number of the first step that was not finite, −1 if
            there was none.
        """
        self.traces += 1
        if self.stream is not None:
            self.stream.require_single_steps(rollout)
        before = [tf.identity(variable.value) for variable in self._statistics]
        if self.reward_scale is not None:
            self.reward_scale.update(rollout.rewards, rollout.terminations | rollout.truncations, rollout.mask)
        if self.stream is not None:
            rollout = self.stream.standardized(rollout)
            with self.policy.preparation.given_standardized():
                metrics = self._learn(rollout, progress, seed)
        else:
            rehearsal = self.rehearsal
            if rehearsal is not None:
                metrics = self._rehearse(rehearsal, rollout, progress, seed)
            else:
                metrics = self._learn(rollout, progress, seed)
            self.policy.normalize(self.policy.inputs(rollout), self.policy.rows(rollout.mask))
        if before:  # numbers that stopped the update must not stay in the statistics
            assign_if(metrics["nonfinite_step"] >= 0, self._statistics, before)
        return tf.stack([tf.cast(metrics[name], tf.float32) for name in (*self.metrics, "nonfinite_step")])

    def _learn(self, rollout: Rollout, progress: tf.Tensor, seed: tf.Tensor) -> Metrics:
        """Move the weights by the rollout alone."""
        update = self.agent.update
        shares = self.uses_value and update.is_one_step and not callable(self.agent.outputs)
        shares = shares and not {*ON_DEMAND} & {*self.outputs} - {"q"}
        first = self._rows.linearization(rollout, self.outputs, self.variables) if shares else None
        batch = self.batch_of(rollout, progress, seed, None if first is None else first.outputs["value"])
        objective = replace(self.objective(batch, first), spread=self._spread)
        metrics = check_metrics(update, update.apply(objective, self.state, seed), objective.metric_names)
        if self._explains:
            metrics["explained_variance"] = estimators.explained_variance(batch.values, batch.returns, batch.weights)
        return metrics

    def _rehearse(self, rehearsal: Rehearsal, rollout: Rollout, progress: tf.Tensor, seed: tf.Tensor) -> Metrics:
        """Remember the rollout, and make the updates that are due from all that is remembered."""
        rehearsal.remember(rollout)
        names = [name for name in self.metrics if name != "gradient_steps"]
        metrics, bad = rehearsal.updates(self._update_once, names, progress, seed)
        return metrics | {"nonfinite_step": bad}

    def _update_once(self, batch: ReplayBatch, seed: tf.Tensor) -> tuple[Metrics, Any]:
        """Make one update from a batch of the replay. Return its metrics, and the rows' new priorities if they have any."""
        update, batch, priorities = self.agent.update, self.scaled(batch), None
        objective = self.objective(batch)
        if self.agent.replay is not None and self.agent.replay.prioritized:
            objective = self.objective(batch, objective.linearize())  # one forward pass for both
            priorities = self._priorities(objective)
        statistics = objective.statistics()
        metrics = check_metrics(update, update.apply(objective, self.state, seed), objective.metric_names)
        if priorities is not None:
            metrics["effective_sample_size"] = estimators.effective_sample_size(batch.weights)
        if statistics:
            assign_if(metrics["nonfinite_step"] < 0, *map(list, zip(*statistics, strict=True)))
        if self.target is not None:
            self.target.follow(metrics["nonfinite_step"] < 0)
        return metrics, priorities

    def _priorities(self, objective: PolicyObjective) -> tf.Tensor:
        at_theta, batch = objective.linearize().outputs, objective.batch
        now = objective.now(at_theta)
        credit = check_credit(self.agent, self.agent.credit(batch, now), at_theta)
        priorities: tf.Tensor = self.agent.priority(batch, now, credit)
        return priorities

    def scaled(self, batch: ReplayBatch) -> ReplayBatch:
        """Return a batch of a replay with the rewards that the agent learns from."""
        return batch if self.reward_scale is None else batch._replace(rewards=self.reward_scale.scale(batch.rewards))

    def objective(self, batch: Any, first: gradients.Linearization | None = None) -> PolicyObjective:
        """Return what an update on a batch climbs. See `PolicyObjective`."""
        return PolicyObjective(
            self.agent,
            self.policy,
            batch,
            self.outputs,
            self.credited,
            self.variables,
            self._measured,
            None if self.target is None else self.target.placed,
            first,
        )

    def batch_of(self, rollout: Rollout, progress: tf.Tensor, seed: Any = (0, 0), value: Any = None) -> Batch:
        """Return the rollout in rows, with the actions that a stream decides ahead. See `RolloutRows.of`."""
        batch = self.rows_of(rollout, progress, seed, value)
        return batch if self.stream is None else self.stream.decide(batch)

    def rows_of(self, rollout: Rollout, progress: tf.Tensor, seed: Any = (0, 0), value: Any = None) -> Batch:
        """Return the rollout in rows. See `RolloutRows.of`."""
        return self._rows.of(rollout, progress, seed, value)


def _reward_scale(agent: Agent, num_envs: int) -> RewardScale:
    if isinstance(agent, StreamAgent):
        return StreamRewardScale(num_envs, agent.gamma)
    return RewardScale(num_envs, agent.gamma, agent.num_steps is None)


def _unfilled(rollout: Rollout) -> Rollout:
    # The learner fills these in; numbers given by a caller would cost a copy into the program.
    if rollout.values is None and rollout.next_values is None:
        return rollout
    return rollout._replace(values=None, next_values=None)
