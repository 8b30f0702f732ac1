"""Gradient ascent with any Keras optimizer.

    g     = Σ_k Σ_t  w_t c_k,t ∇f_k(s_t, a_t)
    g     ← g · min(1, max_grad_norm / ‖g‖)        if max_grad_norm is set
    θ     ← optimizer(θ, −g)                       Keras optimizers minimise

A step whose gradient is not finite is left out, and so is every later step of the same call: the weights stay the last good
ones, and the metrics name the step. (`tf.debugging.check_numerics` does nothing under XLA.)

With `target_kl` the steps on a rollout end before the first minibatch on which the policy is already further than 1.5 ·
target_kl from the one that collected it, by the estimate `approx_kl`; 1.5 is the factor of Stable-Baselines3 and Spinning Up.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import keras
import tensorflow as tf

from rlgrad import random
from rlgrad.core.checks import require, require_at_most
from rlgrad.data import Metrics
from rlgrad.hyperparameters import Schedule, anneal
from rlgrad.search import Range, Space
from rlgrad.updates import optimizers
from rlgrad.updates.base import Objective, Update
from rlgrad.updates.flat import flat_or_none
from rlgrad.updates.steps import AscentState, ascend

_log = logging.getLogger("rlgrad")

_KL_SLACK = 1.5


class Ascent(Update):
    """Gradient ascent: every step moves the weights along the credited gradient.

    Example:
        >>> ascent = Ascent(learning_rate=0.01).build(policy.trainable_variables)
        >>> ascent.apply_gradient(gradients.gradient(policy, observations, output=LogProb(actions)))
    """

    optimizer: Any = "adam"
    """A Keras optimizer, or the name of one."""
    optimizer_options: Mapping[str, Any] | None = None
    """Arguments of the optimizer that is named, besides its learning rate: `{rho: 0.99}`. `None`: Keras's defaults."""
    learning_rate: float | None = None
    """Step size; in Python also a schedule of Keras. `None`: the optimizer's own."""
    learning_rate_schedule: Schedule = "constant"
    """`linear` lowers the learning rate to 0 at the end of training."""
    max_grad_norm: float | None = None
    """Scale longer gradients to this Euclidean norm, over all weights together. `None`: never."""
    num_epochs: int = 1
    """Passes over each rollout."""
    num_minibatches: int = 1
    """Equal parts that each pass is shuffled into, with one step each. A policy with memory has at most one per environment."""
    target_kl: float | None = None
    """Stop the steps on a rollout once the policy has moved 1.5 times this far, in nats. `None`: take all steps."""

    @classmethod
    def as_given(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take a schedule of Keras as the learning rate, too: the optimizer that is named then holds it.

        Raises:
            ValueError: the rate is a function, which no config.yaml holds, or the optimizer has a rate already.
        """
        base = {name: cls.__dataclass_fields__[name].default for name in ("optimizer", "optimizer_options")}
        return super().as_given(
            optimizers.with_schedule(base | dict(given)) if callable(given.get("learning_rate")) else given
        )

    def __post_init__(self) -> None:
        """Check the fields, and those that contradict a given optimizer."""
        require(self.num_epochs >= 1, "num_epochs", "at least 1", self.num_epochs)
        require(self.num_minibatches >= 1, "num_minibatches", "at least 1", self.num_minibatches)
        require_at_most(self, num_epochs=2**20, num_minibatches=2**24)
        require(self.max_grad_norm is None or self.max_grad_norm > 0, "max_grad_norm", "above 0", self.max_grad_norm)
        require(self.learning_rate is None or self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        require(self.target_kl is None or self.target_kl > 0, "target_kl", "above 0", self.target_kl)
        if self.target_kl is not None and self.steps_per_rollout == 1:
            raise ValueError(
                "target_kl stops the later steps on a rollout, and num_epochs=1 with num_minibatches=1 takes only one: "
                "leave it out, or take more steps."
            )
        if isinstance(self.optimizer, str):
            optimizers.require_known(self.optimizer)
        elif isinstance(self.optimizer, Mapping):
            object.__setattr__(self, "optimizer", optimizers.deserialized(self.optimizer))
        elif not isinstance(self.optimizer, keras.optimizers.Optimizer):
            raise ValueError(f"optimizer is a Keras optimizer or the name of one, got {self.optimizer!r}.")
        if isinstance(self.optimizer, keras.optimizers.Optimizer):
            self._check_instance(self.optimizer)
        elif self.optimizer_options is not None:
            optimizers.named(self.optimizer, self.optimizer_options)

    @property
    def steps_per_rollout(self) -> int:
        """Return `num_epochs` · `num_minibatches`."""
        return self.num_epochs * self.num_minibatches

    @property
    def needs_only_gradients(self) -> bool:
        """Return True."""
        return True

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of what `apply` reports besides the objective's own metrics."""
        return ("gradient_norm", "learning_rate", *(("gradient_steps",) if self.target_kl else ()))

    def build(
        self,
        variables: Sequence[keras.Variable],
        num_envs: int = 1,
        by_output: Mapping[str, Sequence[keras.Variable]] | None = None,
    ) -> AscentState:
        """Return an optimizer of this state's own, with slots for these variables.

        Args:
            variables: what is to move.
            num_envs: not used.
            by_output: for each credited output, the variables that it depends on. `None`: in loops written by hand.

        Raises:
            ValueError: `target_kl` is set, and no policy is among what moves.
        """
        del num_envs
        if self.target_kl is not None and by_output is not None and "log_prob" not in by_output:
            raise ValueError(
                "target_kl bounds how far a policy moves, and this ascent moves a value alone: leave it out."
            )
        if isinstance(self.optimizer, str):
            optimizer = optimizers.named(self.optimizer, self.optimizer_options or {})
        else:
            optimizer = type(self.optimizer).from_config(self.optimizer.get_config())
        if self.learning_rate is not None:
            optimizer.learning_rate = self.learning_rate
        flat = flat_or_none(optimizer, variables)
        optimizer.build(list(variables) if flat is None else flat.moved)
        rate = float(optimizer.learning_rate.numpy())
        own = optimizer.get_config()["learning_rate"]
        schedule = keras.optimizers.schedules.deserialize(own) if isinstance(own, Mapping) else None
        anneals = self.learning_rate_schedule != "constant"
        return AscentState(optimizer, list(variables), rate, anneals, self.max_grad_norm, flat, schedule)

    def apply(self, objective: Objective, state: AscentState, seed: Any) -> Metrics:
        """Move the weights: `num_epochs` passes of `num_minibatches` steps.

        Args:
            objective: what is climbed; `num_minibatches` divides the M rows of its batch. If the rows are whole sequences and
                fewer than that, each is a minibatch.
            state: from `build`.
            seed: int32 (2,), for the shuffles.

        Returns:
            Means over the steps (`gradient_norm`, `entropy`, …), the learning rate, and `nonfinite_step`: the number of the
            first step that was left out because it was not finite, −1 if there was none.
        """
        if self.learning_rate_schedule != "constant":
            rate = anneal(state.initial_rate, self.learning_rate_schedule, objective.batch.progress)
            state.optimizer.learning_rate.assign(rate)
        if state.flat is not None:
            state.flat.read()
        minibatches = self._minibatches(objective.batch.weights.shape)
        steps = self.num_epochs * minibatches
        if steps == 1:
            gradient, metrics = objective.gradient()
            metrics["gradient_norm"], finite = ascend(state, list(gradient.values()))
            nonfinite_step = tf.where(finite, -1, 0)
        else:
            metrics, nonfinite_step = self._loop(objective, state, seed, minibatches)
        return metrics | {"learning_rate": state.last_rate, "nonfinite_step": nonfinite_step}

    def search_space(self) -> Space:
        """Return a range for the learning rate, unless the optimizer is an object, which has its own."""
        return {"learning_rate": Range(1e-5, 1e-1, log=True)} if isinstance(self.optimizer, str) else {}

    @property
    def kind(self) -> str:
        """Return the name of the class, and of the optimizer's."""
        optimizer = optimizers.class_of(self.optimizer)
        return f"{type(self).__name__} with {optimizer.__name__}"

    def locate(self, step: int, rows: int) -> str:
        """Return the epoch and the minibatch of a step, if there are several."""
        if self.steps_per_rollout == 1:
            return ""
        epoch, minibatch = divmod(step, min(self.num_minibatches, rows))
        return f"epoch {epoch}, minibatch {minibatch}"

    def with_optimizer(self, optimizer: str | keras.optimizers.Optimizer) -> Self:
        """Return the update with another optimizer, and at the old learning rate if the optimizer is a name."""
        rate = self.learning_rate if isinstance(optimizer, str) else None
        return replace(self, optimizer=optimizer, optimizer_options=None, learning_rate=rate)

    def _minibatches(self, shape: tf.TensorShape) -> int:
        """Return the number of parts that a batch of this shape is shuffled into."""
        if self.num_minibatches == 1:
            return 1
        rows, whole_sequences = shape[0], shape.rank > 1
        if whole_sequences and rows is not None and rows < self.num_minibatches:
            _log.info("A policy with memory learns from whole sequences: %d minibatches, one sequence each.", rows)
            return int(rows)
        if rows is None or rows % self.num_minibatches:
            noun = "sequences" if whole_sequences else "steps"
            raise ValueError(
                f"num_minibatches={self.num_minibatches} does not divide the {rows} {noun} of a rollout: choose a divisor."
            )
        return self.num_minibatches

    def _loop(self, objective: Objective, state: AscentState, seed: Any, minibatches: int) -> tuple[Metrics, tf.Tensor]:
        """Take the steps in one graph loop: unrolled in Python it would compile for minutes."""
        rows = objective.batch.weights.shape[0]
        steps, size = self.num_epochs * minibatches, rows // minibatches
        order = None  # a minibatch that is the whole batch needs none
        if minibatches > 1:
            order = tf.reshape(random.permutations(seed, self.num_epochs, rows), (steps, size))

        def body(
            i: tf.Tensor, good: tf.Tensor, bad: tf.Tensor, sums: Metrics
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Metrics]:
            part = objective.moved() if order is None else objective.on(order[i], share=float(minibatches))
            gradient, metrics = part.gradient()
            near = True if self.target_kl is None else metrics["approx_kl"] <= _KL_SLACK * self.target_kl
            length, finite = ascend(state, list(gradient.values()), near)
            metrics["gradient_norm"] = length
            return i + 1, finite & near, tf.where(finite, bad, i), {n: sums[n] + value for n, value in metrics.items()}

        names = (*objective.metric_names, "gradient_norm")
        start = (tf.constant(0), tf.constant(True), tf.constant(-1), {name: tf.constant(0.0) for name in names})
        count, good, bad, sums = tf.while_loop(
            lambda i, good, *_: (i < steps) & good, body, start, maximum_iterations=steps
        )
        means = {name: total / tf.cast(count, tf.float32) for name, total in sums.items()}
        if self.target_kl is not None:
            means["gradient_steps"] = tf.cast(tf.where(good, count, count - 1), tf.float32)
        return means, bad

    def _check_instance(self, optimizer: keras.optimizers.Optimizer) -> None:
        optimizers.require_unscaled(optimizer)
        clips = [n for n in ("clipnorm", "global_clipnorm", "clipvalue") if getattr(optimizer, n, None) is not None]
        if clips and self.max_grad_norm is not None:
            raise ValueError(
                f"The optimizer clips by {clips[0]} and the update by max_grad_norm={self.max_grad_norm}: a gradient clipped "
                "twice is neither. Leave out one of them."
            )
        if self.optimizer_options is not None:
            raise ValueError("optimizer_options are arguments of an optimizer that is named; this one is made already.")
        if self.learning_rate is not None:
            raise ValueError("learning_rate belongs to the optimizer object: set it there, and here to None.")
        own = optimizer.get_config()["learning_rate"]
        if isinstance(own, Mapping) and self.learning_rate_schedule != "constant":
            raise ValueError("The optimizer has a learning-rate schedule of its own: leave learning_rate_schedule out.")
