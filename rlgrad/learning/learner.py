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
from rlgrad.core.tensorflow_internals import flat_call, trace
from rlgrad.data import Batch, Outputs, Rollout
from rlgrad.diagnostics import measuring
from rlgrad.diagnostics.diagnosis import Diagnosis
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.contract import DryRun, batch_signature, checked_estimates, dry_run
from rlgrad.learning.objective import Objective, linearized, output_specs
from rlgrad.learning.packing import Packing
from rlgrad.learning.reward_scale import RewardScale
from rlgrad.metrics import METRICS
from rlgrad.policies import actors
from rlgrad.policies.policy import Policy
from rlgrad.policies.recurrent import RecurrentPolicy
from rlgrad.updates import Ascent, PerHead
from rlgrad.updates.moves import assign_if

_log = logging.getLogger("rlgrad")


class NonFiniteError(FloatingPointError):
    """A gradient was not a finite number. The step was not taken: the weights are the last good ones."""


class Learner:
    """Fill in values, estimate, credit, differentiate, move: one `tf.function`, traced once and compiled once.

    Args:
        agent: says how much each gradient counts.
        policy: what is to learn; its weights are moved in place.
        num_envs: columns that a rollout has.
        xla: compile with XLA; the program falls back to a plain graph, and says so, if the model cannot be compiled. None: if
            the model gains from it, so not for convolutions on a CPU.
        traced: a dry run of the agent on this policy's outputs, if the caller has one. `None`: the learner makes it.

    Attributes:
        credited: names of the outputs that the agent trains.
        variables: the weights connected to them, which are the ones that move.
        layers: for each of them the names of the layers that these weights belong to.
        metrics: names of what `learn` returns.
        state: the update's slots.
        reward_scale: of the rewards, where the agent asks for one.
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
        self.state: Any = agent.update.build(self.variables, num_envs, self._by_output)
        self.whole_episodes = agent.num_steps is None
        self.uses_value = policy.has_value and "value" in self.credited
        of_value = ("explained_variance",) if self.uses_value else ()
        self.metrics = (*self._objective(None).metric_names, *of_value, *agent.update.metrics)
        _require_free_names(type(agent).__name__, self._measured, (*of_value, *agent.update.metrics))
        if not self.uses_value and not self.whole_episodes:
            raise ValueError(
                f"{type(agent).__name__} trains no value output, so nothing can stand for the rewards after the end of a "
                "rollout: collect whole episodes, with num_steps set to none."
            )
        if not self.uses_value:
            _log.info("No value output: a time limit counts as the end of the task, and nothing follows it.")
        self.reward_scale = RewardScale(num_envs, agent.gamma, self.whole_episodes) if agent.scale_rewards else None
        scale = [] if self.reward_scale is None else self.reward_scale.variables
        self._statistics = [*policy.preparation.variables, *scale]
        self.traces = 0
        self.xla = actors.gains_from_xla(policy) if xla is None else xla
        self._mirror = policy.mirror  # made before anything is traced
        self._packing: Any = None
        self._names: list[str] = []
        self._packed: np.ndarray | None = None
        self._program: Any = None
        self._measuring: Any = None

    def learn(self, rollout: Rollout, progress: float, seed: np.ndarray) -> dict[str, float]:
        """Move the policy's weights by one rollout.

        Args:
            rollout: of the policy at its present weights; the same shapes each time.
            progress: share of the run already done, 0 … 1.
            seed: int32 (2,), for shuffles.

        Returns:
            The numbers that `metrics` names.

        Raises:
            NonFiniteError: a gradient was not finite; names output, variable and step.
        """
        arguments = _unfilled(rollout), np.float32(progress), np.asarray(seed, np.int32)
        try:
            results = self._run(*arguments)
        except (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError) as error:
            if not self.xla:
                raise
            _log.warning(
                "XLA cannot compile this model; training runs as a plain graph. (%s)", str(error).splitlines()[0]
            )
            self.xla, self._program = False, None
            results = self._run(*arguments)
        numbers, count = results.numpy(), len(self._names)
        metrics = dict(zip(self._names, numbers[:count].tolist(), strict=True))
        self._packed = numbers[count:] if len(numbers) > count else None
        step = int(metrics.pop("nonfinite_step"))
        if step >= 0:
            raise self.failure(rollout, progress, step)
        return metrics

    def failure(self, rollout: Rollout, progress: float, step: int) -> NonFiniteError:
        """What to raise after a step that was not finite: which output and which variables, found again without compilation."""
        return NonFiniteError(self._diagnosis(rollout, progress, step))

    def actor(self) -> Any:
        """The policy's actor at the weights that the last `learn` left, without reading them: nobody may have changed them."""
        return self.policy.actor(self._packed)

    def diagnose(self, rollout: Rollout, progress: float, timesteps: int = 0) -> Diagnosis:
        """What the per-sample gradients of a rollout tell; nothing is moved.

        Args:
            rollout: of the policy at its present weights; the same shapes each time.
            progress: share of the run already done, 0 … 1.
            timesteps: environment steps trained so far, to be kept with it.
        """
        if isinstance(self.policy, RecurrentPolicy):
            raise NotImplementedError(
                "What one step's gradient tells cannot be measured for a policy with memory, which has gradients of sequences."
            )
        arguments = _tensors(_unfilled(rollout)), tf.constant(progress, tf.float32)
        if self._measuring is None:
            self._measuring = trace(self._measure, *arguments)
        return measuring.diagnosis_of(self._measuring(*arguments), rollout, self.whole_episodes, timesteps)

    def _measure(self, rollout: Rollout, progress: tf.Tensor) -> dict[str, Any]:
        batch = self._batch(rollout, progress)
        now = self._objective(batch).linearize().outputs
        credit = self.agent.credit(batch, Outputs(**now))
        columns = rollout.mask.shape[1] if self.whole_episodes else None
        return measuring.measure(self.policy, batch, credit, columns)

    def _run(self, *arguments: Any) -> Any:
        """One call of the compiled program. A concrete function skips the search for one that fits the arguments."""
        if self._program is None:
            _log.info("Compiling the update …")
            self._packing = Packing(arguments)
            program = trace(self._learn_packed, self._packing.pack(arguments), jit_compile=self.xla or None)
            self._program = flat_call(program)
        (results,) = self._program(self._packing.pack(arguments))
        return results

    def _learn_packed(self, packed: list[tf.Tensor]) -> list[tf.Tensor]:
        metrics = self.move(*self._packing.unpack(*packed))
        self._names = list(metrics)
        numbers = tf.stack([tf.cast(value, tf.float32) for value in metrics.values()])
        return [numbers if self._mirror is None else tf.concat([numbers, self._mirror.packed()], axis=0)]

    def move(self, rollout: Rollout, progress: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """`learn` as part of a compiled program: float32 (), by name, and `nonfinite_step`, −1 where every step was taken."""
        self.traces += 1
        before = [tf.identity(variable.value) for variable in self._statistics]
        if self.reward_scale is not None:
            self.reward_scale.update(rollout.rewards, rollout.terminations | rollout.truncations, rollout.mask)
        update = self.agent.update
        one_step = isinstance(update, Ascent) and update.is_one_step
        first = self._linearized(rollout) if self.uses_value and one_step else None
        batch = self._batch(rollout, progress, None if first is None else first.outputs["value"])
        metrics = update.apply(self._objective(batch, first), self.state, seed)
        if self.uses_value:
            metrics["explained_variance"] = estimators.explained_variance(batch.values, batch.returns, batch.weights)
        self.policy.normalize(batch.observations, self.policy.rows(rollout.mask))
        if before:  # numbers that stopped the update must not stay in what is remembered of them
            assign_if(metrics["nonfinite_step"] >= 0, self._statistics, before)
        return metrics

    def _objective(self, batch: Any, first: gradients.Linearization | None = None) -> Objective:
        return Objective(
            self.agent, self.policy, batch, self.outputs, self.credited, self.variables, self._measured, first
        )

    def _linearized(self, rollout: Rollout) -> gradients.Linearization:
        """What an update of one step begins with, which tells the values of the rollout's states too."""
        actions = tf.nest.map_structure(self.policy.rows, rollout.actions)
        return linearized(self.agent, self.policy, self.policy.inputs(rollout), actions, self.outputs, self.variables)

    def _batch(self, rollout: Rollout, progress: tf.Tensor, value: tf.Tensor | None = None) -> Batch:
        """Values at the current weights, estimates, and all of it in rows. The value of the rollout's states may be known."""
        if self.uses_value:
            values, next_values = self.policy.values(rollout, value)
        else:
            values = next_values = None
        rollout = rollout._replace(values=values, next_values=next_values)
        if self.reward_scale is not None:
            rollout = rollout._replace(rewards=self.reward_scale.scaled(rollout.rewards))
        mask = tf.convert_to_tensor(rollout.mask)
        estimates = checked_estimates(self.agent, self.agent.estimate(rollout), mask)
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

    def _diagnosis(self, rollout: Rollout, progress: float, step: int) -> str:
        batch = self._batch(_tensors(rollout), tf.constant(progress, tf.float32))
        objective = self._objective(batch)
        _, now, credits = objective.credited_outputs()
        found = {}
        for name, c in credits.items():
            mine = self._by_output[name]
            gradient = objective.of((name,), mine).linearize().gradient({name: c}) if mine else {}
            bad = [path for path, g in gradient.items() if not _finite(g)]
            output = tf.where(batch.weights > 0.0, getattr(now, name), 0.0)
            named = {"the output itself": output, "its credit": c}
            places = [f"{what}, {self._place(x, batch, rollout)}" for what, x in named.items() if not _finite(x)]
            culprit = places[0] if places else ""
            if bad or culprit:
                found[name] = f"{name} ({'; '.join(filter(None, [culprit, ', '.join(bad)]))})"
        where = "; ".join(found.values()) or "no single output on the whole rollout: the step itself overflows"
        when = f"step {step} of this update{self._pass(step, list(found), batch)}"
        return (
            f"The gradient is not finite at {when}, through: {where}. The step was not taken; the weights are the last good "
            "ones. Look at the rewards' size, lower the learning rate, or set max_grad_norm."
        )

    def _place(self, x: tf.Tensor, batch: Batch, rollout: Rollout) -> str:
        """Where the first number is that is not finite, of one for each row, and what of the batch is not finite there."""
        steps, columns = rollout.mask.shape
        rows = self.policy.rows(tf.reshape(tf.range(steps * columns), (steps, columns)))  # rows may be in another order
        at = tuple(tf.where(~tf.math.is_finite(x))[0].numpy())
        step, column = divmod(int(rows[at]), columns)
        estimates = ("returns", "advantages", "td_errors", "values", "log_probs")
        too = [name for name in estimates if not _finite(getattr(batch, name)[at])]
        because = f", where {', '.join(too)} of the batch {'are' if too[1:] else 'is'} not finite" if too else ""
        return f"{float(x[at])} in slot {column // (columns // self._num_envs)} at step {step}{because}"

    def _pass(self, step: int, outputs: list[str], batch: Batch) -> str:
        """Which epoch and minibatch a step was, where there are several."""
        update: Any = self.agent.update
        if isinstance(update, PerHead):
            update = update.value if outputs == ["value"] else update.policy
        if not isinstance(update, Ascent) or update.is_one_step:
            return ""
        epoch, minibatch = divmod(step, min(update.num_minibatches, batch.weights.shape[0]))
        return f" (epoch {epoch}, minibatch {minibatch})"


def _connected(
    agent: Agent, policy: Policy, credited: Sequence[str]
) -> tuple[list[keras.Variable], dict[str, list[keras.Variable]]]:
    """The variables that at least one output depends on, and those of each output."""
    by_key: dict[str, keras.Variable] = {}
    by_output: dict[str, list[keras.Variable]] = {name: [] for name in credited}

    def look() -> None:
        output = output_specs(agent, policy.zero_actions(1), credited)
        at_theta = gradients.linearize(policy, policy.zeros(1), output=output)
        by_key.update(zip(at_theta.gradient(), at_theta.variables, strict=True))
        for name in credited:
            with contextlib.suppress(gradients.DisconnectedGradientError):  # all its weights are frozen
                by_output[name] = [by_key[key] for key in at_theta.gradient({name: 1.0})]

    trace(look)  # and never run: it needs no numbers
    return list(by_key.values()), by_output


def _require_free_names(agent: str, measured: Sequence[str], others: Sequence[str]) -> None:
    taken = {"entropy", "approx_kl", "nonfinite_step", *others, *(name.removeprefix("train/") for name in METRICS)}
    clash = next((name for name in measured if name in taken), None)
    if clash is not None:
        raise ValueError(f"{agent}.measure gives {clash!r}, which is logged already: choose another name.")


def _layers(policy: Policy, variables: Sequence[keras.Variable]) -> list[str]:
    """The layers of some of a policy's variables, as `gradients.by_layer` names them."""
    mine = {id(variable) for variable in variables}
    return list(gradients.by_layer({key: v for v, key in keys_of(policy) if id(v) in mine}))


def _unfilled(rollout: Rollout) -> Rollout:
    # The learner fills these in; handing zeros over would cost as much as handing numbers over.
    return rollout._replace(values=(), next_values=())


def _tensors(rollout: Rollout) -> Rollout:
    tensors: Rollout = tf.nest.map_structure(lambda x: None if x is None else tf.constant(x), rollout)
    return tensors


def _finite(x: tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(x)))
