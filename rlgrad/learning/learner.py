"""From a rollout to new weights, in one compiled program."""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad import estimators, gradients
from rlgrad.agent import Agent
from rlgrad.core.nested import map_leaves
from rlgrad.core.tensorflow_internals import flat_call, trace
from rlgrad.data import Batch, Outputs, Rollout
from rlgrad.diagnostics import measuring
from rlgrad.diagnostics.diagnosis import Diagnosis
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.contract import (
    DryRun,
    batch_signature,
    check_estimates,
    check_metrics,
    dry_run,
    require_free_names,
)
from rlgrad.learning.nonfinite import NonFiniteError, explain
from rlgrad.learning.objective import PolicyObjective, linearize_outputs, output_specs
from rlgrad.learning.packing import WordPacking
from rlgrad.learning.reward_scale import RewardScale
from rlgrad.learning.xla import with_fallback
from rlgrad.policies import actors
from rlgrad.policies.policy import Policy
from rlgrad.policies.recurrent import RecurrentPolicy
from rlgrad.updates import State, assign_if

_log = logging.getLogger("rlgrad")


class Learner:
    """Fill in values, estimate, credit, differentiate, move: one `tf.function`, traced once and compiled once.

    Args:
        agent: says how much each gradient counts.
        policy: learns; its weights are moved in place.
        num_envs: slots that a rollout is played in.
        xla: compile with XLA; if it cannot compile the model, the program becomes a plain graph, and says so. `None`: if the
            model gains from it, so not for convolutions on a CPU.
        traced: a dry run of the agent on this policy's outputs, if the caller has one. `None`: the learner makes it.

    Attributes:
        credited: names of the outputs that the agent trains.
        variables: the weights that these outputs depend on. Only they move.
        layers: for each of these outputs, the names of the layers of its weights.
        metrics: names of what `learn` returns, in order.
        state: of the update.
        reward_scale: of the rewards, if the agent asks for one.
        traces: how often the program was traced.
    """

    def __init__(
        self, agent: Agent, policy: Policy, *, num_envs: int, xla: bool | None = None, traced: DryRun | None = None
    ) -> None:
        self.agent, self.policy, self._num_envs = agent, policy, num_envs
        signature = batch_signature(policy.observation_spec, policy.action_spec)
        traced = dry_run(agent, signature, value=policy.has_value) if traced is None else traced
        self.outputs, self.credited, self._measured = traced
        self.variables, self._by_output = _connected(agent, policy, self.credited)
        self.layers = {name: _layers(policy, variables) for name, variables in self._by_output.items()}
        self.state: State = agent.update.build(self.variables, num_envs, self._by_output)
        self.whole_episodes = agent.num_steps is None
        self.uses_value = policy.has_value and "value" in self.credited
        of_value = ("explained_variance",) if self.uses_value else ()
        self.metrics = (*self._objective(None).metric_names, *of_value, *agent.update.metrics)
        require_free_names(agent, self._measured, of_value)
        if not self.uses_value and not self.whole_episodes:
            raise ValueError(
                f"{type(agent).__name__} trains no value output, so nothing estimates the rewards after the end of a rollout: "
                "collect whole episodes, with num_steps set to None."
            )
        if not self.uses_value:
            _log.info("No value output: a time limit counts as the end of the task, with no reward after it.")
        self.reward_scale = RewardScale(num_envs, agent.gamma, self.whole_episodes) if agent.scale_rewards else None
        scale = [] if self.reward_scale is None else self.reward_scale.variables
        self._statistics = [*policy.preparation.variables, *scale]
        self.traces = 0
        self.xla = actors.gains_from_xla(policy) if xla is None else xla
        self._mirror = policy.mirror  # made before anything is traced
        # Programs, and how their arguments are packed, by the rows of a rollout; 0 for all rollouts by steps.
        self._programs: dict[int, tuple[WordPacking, Any]] = {}
        self._measuring: dict[int, Any] = {}  # the programs of `diagnose`, likewise
        self._packed: np.ndarray | None = None  # the new weights, for an actor that computes in NumPy

    def learn(self, rollout: Rollout, progress: float, seed: np.ndarray) -> dict[str, float]:
        """Move the policy's weights by one rollout.

        Args:
            rollout: of the policy at its current weights; the same shapes each time. Whole episodes may have other
                numbers of rows, for each of which there is a program.
            progress: share of the run already done, 0 … 1.
            seed: int32 (2,), for shuffles.

        Returns:
            By name, the numbers that `metrics` names.

        Raises:
            NonFiniteError: a gradient was not finite; names output, variable and step.
        """
        arguments = _unfilled(rollout), np.float32(progress), np.asarray(seed, np.int32)
        key = self._key(rollout)
        if key in self._programs:
            packing, program = self._programs[key]
            results = program(packing.pack(arguments))
        else:
            _log.info("Compiling the update …")
            results = with_fallback(lambda xla: self._first(key, arguments, xla), self.xla, self.give_up_xla)
        numbers, count = results[0].numpy(), len(self.metrics)
        self._packed = numbers[count + 1 :] if len(numbers) > count + 1 else None
        step = int(numbers[count])
        if step >= 0:
            raise self.failure(rollout, progress, step)
        return dict(zip(self.metrics, numbers[:count].tolist(), strict=True))

    def failure(self, rollout: Rollout, progress: float, step: int) -> NonFiniteError:
        """Return the error for a step that was not finite. To say where, compute the gradient again, without compilation."""
        tensors: Rollout = map_leaves(tf.constant, rollout)
        objective = self._objective(self._batch(tensors, tf.constant(progress, tf.float32)))
        return NonFiniteError(explain(objective, self._by_output, rollout, self._num_envs, step))

    def give_up_xla(self) -> None:
        """Compile no program of this learner with XLA from now on."""
        self.xla = False

    def actor(self) -> Any:
        """Return the policy's actor at the weights that the last `learn` left. They must not have changed since."""
        return self.policy.actor(self._packed)

    def diagnose(self, rollout: Rollout, progress: float, timesteps: int = 0) -> Diagnosis:
        """Measure the per-sample gradients of a rollout. No weight moves.

        Args:
            rollout: of the policy at its current weights, with shapes as for `learn`.
            progress: share of the run already done, 0 … 1.
            timesteps: environment steps trained so far, stored with the result.
        """
        if isinstance(self.policy, RecurrentPolicy):
            raise NotImplementedError(
                "A policy with memory has gradients of sequences, not of steps, so they cannot be measured step by step."
            )
        arguments = map_leaves(tf.constant, _unfilled(rollout)), tf.constant(progress, tf.float32)
        key = self._key(rollout)
        if key not in self._measuring:
            self._measuring[key] = trace(self._measure, *arguments)
        return measuring.diagnosis_of(self._measuring[key](*arguments), rollout, self.whole_episodes, timesteps)

    def _key(self, rollout: Rollout) -> int:
        return len(rollout.mask) if self.whole_episodes else 0

    def _measure(self, rollout: Rollout, progress: tf.Tensor) -> dict[str, Any]:
        batch = self._batch(rollout, progress)
        now = self._objective(batch).linearize().outputs
        credit = self.agent.credit(batch, Outputs(**now))
        columns = rollout.mask.shape[1] if self.whole_episodes else None
        return measuring.measure(self.policy, batch, credit, columns)

    def _first(self, key: int, arguments: Any, xla: bool) -> list[tf.Tensor]:
        """Make a program and run it. A concrete function skips the search for one that fits the arguments."""
        packing = WordPacking(arguments)

        def learn_packed(packed: list[tf.Tensor]) -> list[tf.Tensor]:
            numbers = self.move(*packing.unpack(*packed))
            return [numbers if self._mirror is None else tf.concat([numbers, self._mirror.packed()], axis=0)]

        packed = packing.pack(arguments)
        program = flat_call(trace(learn_packed, packed, jit_compile=xla or None))
        results: list[tf.Tensor] = program(packed)
        self._programs[key] = packing, program
        return results

    def move(self, rollout: Rollout, progress: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Learn as part of a compiled program.

        Returns:
            Float32: the numbers that `metrics` names, in order; then the number of the first step that was not finite, −1 if
            there was none.
        """
        self.traces += 1
        before = [tf.identity(variable.value) for variable in self._statistics]
        if self.reward_scale is not None:
            self.reward_scale.update(rollout.rewards, rollout.terminations | rollout.truncations, rollout.mask)
        update = self.agent.update
        first = self._linearization(rollout) if self.uses_value and update.is_one_step else None
        batch = self._batch(rollout, progress, None if first is None else first.outputs["value"])
        objective = self._objective(batch, first)
        metrics = check_metrics(update, update.apply(objective, self.state, seed), objective.metric_names)
        if self.uses_value:
            metrics["explained_variance"] = estimators.explained_variance(batch.values, batch.returns, batch.weights)
        self.policy.normalize(batch.observations, self.policy.rows(rollout.mask))
        if before:  # numbers that stopped the update must not stay in the statistics
            assign_if(metrics["nonfinite_step"] >= 0, self._statistics, before)
        return tf.stack([tf.cast(metrics[name], tf.float32) for name in (*self.metrics, "nonfinite_step")])

    def _objective(self, batch: Any, first: gradients.Linearization | None = None) -> PolicyObjective:
        return PolicyObjective(
            self.agent, self.policy, batch, self.outputs, self.credited, self.variables, self._measured, first
        )

    def _linearization(self, rollout: Rollout) -> gradients.Linearization:
        """Return the forward pass that an update of one step begins with. Its value output is v of the rollout's states."""
        policy = self.policy
        actions = tf.nest.map_structure(policy.rows, rollout.actions)
        return linearize_outputs(self.agent, policy, policy.inputs(rollout), actions, self.outputs, self.variables)

    def _batch(self, rollout: Rollout, progress: tf.Tensor, value: tf.Tensor | None = None) -> Batch:
        """Return the rollout in rows, with its estimates. `value`: that of its states, if it is known already."""
        if self.uses_value:
            values, next_values = self.policy.values(rollout, value)
        else:
            values = next_values = None
        rollout = rollout._replace(values=values, next_values=next_values)
        if self.reward_scale is not None:
            rollout = rollout._replace(rewards=self.reward_scale.scale(rollout.rewards))
        mask = tf.convert_to_tensor(rollout.mask)
        estimates = check_estimates(self.agent, self.agent.estimate(rollout), mask)
        whole = tf.cast(tf.shape(mask)[1], mask.dtype)
        by_step = Batch(
            observations=(),
            actions=rollout.actions,
            log_probs=rollout.log_probs,
            values=tf.zeros_like(mask) if values is None else values,
            weights=mask / (whole if self.whole_episodes else tf.maximum(tf.reduce_sum(mask), 1.0)),
            progress=mask,
            **estimates._asdict(),
        )
        batch: Batch = tf.nest.map_structure(self.policy.rows, by_step)
        return batch._replace(observations=self.policy.inputs(rollout), progress=progress)


def _connected(
    agent: Agent, policy: Policy, credited: Sequence[str]
) -> tuple[list[keras.Variable], dict[str, list[keras.Variable]]]:
    """Return the variables that at least one credited output depends on, and those of each output."""

    def gradient_of_each() -> tuple[dict[str, Any], dict[str, Any]]:
        output = output_specs(agent, policy.zero_actions(1), credited)
        at_theta = gradients.linearize(policy, policy.zeros(1), output=output)
        by_output: dict[str, Any] = {name: {} for name in credited}
        for name in credited:
            with contextlib.suppress(gradients.DisconnectedGradientError):  # all its weights are frozen
                by_output[name] = at_theta.gradient({name: 1.0})
        return at_theta.gradient(), by_output

    by_any, by_output = trace(gradient_of_each).structured_outputs  # traced and never run: it needs no numbers
    keyed = keys_of(policy)
    return (
        [variable for variable, key in keyed if key in by_any],
        {name: [variable for variable, key in keyed if key in by_output[name]] for name in credited},
    )


def _layers(policy: Policy, variables: Sequence[keras.Variable]) -> list[str]:
    """Return the layers of some of a policy's variables, named as `gradients.by_layer` names them."""
    mine = {id(variable) for variable in variables}
    return list(gradients.by_layer({key: v for v, key in keys_of(policy) if id(v) in mine}))


def _unfilled(rollout: Rollout) -> Rollout:
    # The learner fills these in; numbers given by a caller would cost a copy into the program.
    return rollout._replace(values=None, next_values=None)
