"""Gradient ascent with any Keras optimizer.

    g     = Σ_k Σ_t  w_t c_k,t ∇f_k(s_t, a_t)
    g     ← g · min(1, max_grad_norm / ‖g‖)        if max_grad_norm is set
    θ     ← optimizer(θ, −g)                       Keras optimizers minimise

A step whose gradient is not finite is not taken, and neither is any after it in the same call: the weights stay the last
good ones, and the metrics say which step it was. (`tf.debugging.check_numerics` does nothing under XLA.)

With `target_kl` the steps on a rollout end before the first minibatch on which the policy has already moved further than 1.5 ·
target_kl from the one that collected it, by the estimate `approx_kl`; 1.5 is what Stable-Baselines3 and Spinning Up allow.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from rlgrad import random
from rlgrad.core.checks import close_names, require
from rlgrad.data import Metrics
from rlgrad.hyperparameters import Record, Schedule, scheduled
from rlgrad.updates.flat import Flat, flat_or_none, number_by_number

if TYPE_CHECKING:
    from rlgrad.learning.objective import Objective

_log = logging.getLogger("rlgrad")

_KL_SLACK = 1.5


class Ascent(Record):
    """Gradient ascent: every step moves the weights along the credited gradient.

    Example:
        >>> ascent = Ascent(learning_rate=0.01).build(policy.trainable_variables)
        >>> ascent.apply_gradient(gradients.gradient(policy, observations, output=LogProb(actions)))
    """

    optimizer: Any = "adam"
    """A Keras optimizer, or the name of one."""
    learning_rate: float | None = None
    """Step size; none: the optimizer's own."""
    learning_rate_schedule: Schedule = "constant"
    """Linear falls to 0 at the end of training."""
    max_grad_norm: float | None = None
    """Longer gradients are scaled to this Euclidean norm, over all weights together; none: never."""
    num_epochs: int = 1
    """Passes over each rollout."""
    num_minibatches: int = 1
    """Equal parts that each pass is shuffled into, one step for each; with memory at most one for each environment."""
    target_kl: float | None = None
    """Stop a rollout's steps once the policy has moved 1.5 times as far, in nats; none: take all of them."""

    def __post_init__(self) -> None:
        """Check the fields, and those that contradict a given optimizer."""
        require(self.num_epochs >= 1, "num_epochs", "at least 1", self.num_epochs)
        require(self.num_minibatches >= 1, "num_minibatches", "at least 1", self.num_minibatches)
        require(self.max_grad_norm is None or self.max_grad_norm > 0, "max_grad_norm", "above 0", self.max_grad_norm)
        require(self.learning_rate is None or self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        require(self.target_kl is None or self.target_kl > 0, "target_kl", "above 0", self.target_kl)
        if self.target_kl is not None and self.is_one_step:
            raise ValueError(
                "target_kl stops the later steps on a rollout, and with num_epochs=1 and num_minibatches=1 there are none: "
                "leave it out, or take more steps."
            )
        if isinstance(self.optimizer, str):
            names = [n.lower() for n in dir(keras.optimizers) if _is_optimizer_class(getattr(keras.optimizers, n))]
            if self.optimizer.lower() not in names:
                raise ValueError(
                    f"Keras has no optimizer {self.optimizer!r}. {close_names(self.optimizer.lower(), names)}"
                )
        elif isinstance(self.optimizer, Mapping):
            object.__setattr__(self, "optimizer", _deserialized(self.optimizer))
        elif not isinstance(self.optimizer, keras.optimizers.Optimizer):
            raise ValueError(f"optimizer is a Keras optimizer or the name of one, got {self.optimizer!r}.")
        if isinstance(self.optimizer, keras.optimizers.Optimizer):
            self._check_instance(self.optimizer)

    @property
    def is_one_step(self) -> bool:
        """Whether the whole rollout is looked at once."""
        return self.num_epochs * self.num_minibatches == 1

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what `apply` reports besides the objective's own."""
        return ("gradient_norm", "learning_rate", *(("gradient_steps",) if self.target_kl else ()))

    def build(
        self,
        variables: Sequence[keras.Variable],
        num_envs: int = 1,
        by_output: Mapping[str, Sequence[keras.Variable]] | None = None,
    ) -> "AscentState":
        """The optimizer with its slots, for these variables.

        Args:
            variables: what is to move.
            num_envs: not used by ascent; part of the signature that all updates share.
            by_output: for each credited output, the variables that it depends on; none: in loops written by hand.

        Returns:
            The state that `apply` takes. Each build has an optimizer of its own.

        Raises:
            ValueError: `target_kl` where no policy moves.
        """
        del num_envs
        if self.target_kl is not None and by_output is not None and "log_prob" not in by_output:
            raise ValueError(
                "target_kl bounds how far a policy moves, and this ascent moves a value alone: leave it out."
            )
        optimizer = keras.optimizers.get(self.optimizer)
        if optimizer is self.optimizer:
            optimizer = type(optimizer).from_config(optimizer.get_config())
        if self.learning_rate is not None:
            optimizer.learning_rate = self.learning_rate
        flat = flat_or_none(optimizer, variables)
        optimizer.build(list(variables) if flat is None else [flat.vector])
        rate = float(optimizer.learning_rate.numpy())
        return AscentState(self, optimizer, list(variables), rate, flat)

    def apply(self, objective: "Objective", state: "AscentState", seed: Any) -> Metrics:
        """Move the weights: `num_epochs` passes of `num_minibatches` steps.

        Args:
            objective: what is climbed; its batch has M rows, and `num_minibatches` divides M. Of whole sequences there may
                be fewer: then each is a minibatch.
            state: from `build`.
            seed: int32 (2,), for the shuffles.

        Returns:
            Means over the steps (`gradient_norm`, `entropy`, …), the learning rate, and `nonfinite_step`: the number of the
            first step that was not taken because it was not finite, −1 if there was none.
        """
        if self.learning_rate_schedule != "constant":
            rate = scheduled(state.initial_rate, self.learning_rate_schedule, objective.batch.progress)
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
        rate = tf.cast(state.optimizer.learning_rate, tf.float32)
        return metrics | {"learning_rate": rate, "nonfinite_step": nonfinite_step}

    def _minibatches(self, shape: tf.TensorShape) -> int:
        """How many parts a batch of this shape is shuffled into."""
        if self.num_minibatches == 1:
            return 1
        rows, whole_sequences = shape[0], shape.rank > 1
        if whole_sequences and rows is not None and rows < self.num_minibatches:
            _log.info("A policy with memory learns from whole sequences: %d minibatches, one for each.", rows)
            return int(rows)
        if rows is None or rows % self.num_minibatches:
            what = "sequences" if whole_sequences else "steps"
            raise ValueError(
                f"num_minibatches={self.num_minibatches} does not divide the {rows} {what} of a rollout: choose a divisor."
            )
        return self.num_minibatches

    def _loop(
        self, objective: "Objective", state: "AscentState", seed: Any, minibatches: int
    ) -> tuple[Metrics, tf.Tensor]:
        """The steps as one graph loop: unrolled in Python it would compile for minutes."""
        rows = objective.batch.weights.shape[0]
        steps, size = self.num_epochs * minibatches, rows // minibatches
        order = None  # a minibatch that is the whole batch needs none
        if minibatches > 1:
            order = tf.reshape(random.permutations(seed, self.num_epochs, rows), (steps, size))

        def body(
            i: tf.Tensor, go: tf.Tensor, bad: tf.Tensor, sums: Metrics
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Metrics]:
            part = objective.moved() if order is None else objective.on(order[i], share=float(minibatches))
            gradient, metrics = part.gradient()
            near = True if self.target_kl is None else metrics["approx_kl"] <= _KL_SLACK * self.target_kl
            length, finite = ascend(state, list(gradient.values()), near)
            metrics["gradient_norm"] = length
            return i + 1, finite & near, tf.where(finite, bad, i), {n: sums[n] + value for n, value in metrics.items()}

        names = (*objective.metric_names, "gradient_norm")
        start = (tf.constant(0), tf.constant(True), tf.constant(-1), {name: tf.constant(0.0) for name in names})
        met, go, bad, sums = tf.while_loop(lambda i, go, *_: (i < steps) & go, body, start, maximum_iterations=steps)
        means = {name: total / tf.cast(met, tf.float32) for name, total in sums.items()}
        if self.target_kl is not None:
            means["gradient_steps"] = tf.cast(tf.where(go, met, met - 1), tf.float32)
        return means, bad

    def _check_instance(self, optimizer: keras.optimizers.Optimizer) -> None:
        clips = [n for n in ("clipnorm", "global_clipnorm", "clipvalue") if getattr(optimizer, n, None) is not None]
        if clips and self.max_grad_norm is not None:
            raise ValueError(
                f"The optimizer clips by {clips[0]} and the update by max_grad_norm={self.max_grad_norm}: a gradient clipped "
                "twice is neither. Leave out one of them."
            )
        if self.learning_rate is not None:
            raise ValueError("learning_rate is part of the optimizer that was given: set it there, and here to none.")
        own = optimizer.get_config()["learning_rate"]
        if isinstance(own, Mapping) and self.learning_rate_schedule != "constant":
            raise ValueError(
                "The optimizer brings a learning-rate schedule of its own: leave learning_rate_schedule out."
            )


@dataclass(frozen=True)
class AscentState:
    """A Keras optimizer bound to the variables it moves, or to the vector of them. Its `slots` are what a checkpoint keeps."""

    update: Ascent
    optimizer: keras.optimizers.Optimizer
    variables: list[keras.Variable]
    initial_rate: float
    flat: Flat | None = None

    @property
    def slots(self) -> list[keras.Variable]:
        """What a checkpoint keeps: step counter, learning rate, moments."""
        return list(self.optimizer.variables)

    def apply_gradient(self, gradient: Mapping[str, tf.Tensor]) -> Metrics:
        """One step along a gradient, for loops written by hand.

        Args:
            gradient: as `rlgrad.gradients` returns it, by variable path, in the order of the variables of `build`.

        Returns:
            `gradient_norm`, before clipping.

        Raises:
            ValueError: the gradient is of other variables.
            FloatingPointError: it is not finite; the weights have not moved.
        """
        expected = [tuple(v.shape) for v in self.variables]
        given = [tuple(g.shape) for g in gradient.values()]
        if given != expected:
            raise ValueError(
                f"Expected a gradient for the {len(expected)} variables given to build, of shapes {expected}; got {given}. "
                "Pass the same variables to both: `weights=` of rlgrad.gradients.gradient selects them."
            )
        if self.flat is not None:
            self.flat.read()
        length, finite = ascend(self, list(gradient.values()))
        if not tf.executing_eagerly() or bool(finite):
            return {"gradient_norm": length}
        bad = [path for path, g in gradient.items() if not bool(tf.reduce_all(tf.math.is_finite(g)))]
        which = ", ".join(bad) or "all variables together, as long as it is,"
        raise FloatingPointError(f"The gradient of {which} is not finite. No weight has moved.")


def ascend(state: AscentState, gradient: list[tf.Tensor], allowed: Any = True) -> tuple[tf.Tensor, tf.Tensor]:
    """One guarded step of the optimizer: the gradient's norm, and whether it was finite."""
    flat, moved = state.flat, state.variables
    if flat is not None:
        gradient, moved = [flat.joined(gradient)], [flat.vector]
    length = tf.sqrt(tf.add_n([_square(g) for g in gradient]))
    finite = tf.math.is_finite(length)  # one that is too long to be measured cannot be clipped either
    limit = state.update.max_grad_norm
    scale = 1.0 if limit is None else tf.minimum(1.0, limit / tf.maximum(length, 1e-12))

    def move() -> None:
        state.optimizer.apply([-g if limit is None else -g * tf.cast(scale, g.dtype) for g in gradient], moved)

    if flat is None and number_by_number(state.optimizer, moved) and not tf.executing_eagerly():
        # In a program that XLA does not compile, every operation of the optimizer would read and write all weights.
        move = tf.function(move, jit_compile=True, autograph=False)

    def take() -> tf.Tensor:
        move()
        return tf.constant(True)

    tf.cond(finite & allowed, take, lambda: tf.constant(False))
    if flat is not None:
        flat.write()
    return length, finite


def _square(gradient: tf.Tensor) -> tf.Tensor:
    """Its sum of squares: for a vector as a product, which XLA makes one kernel of; for more, TensorFlow's kernel is faster."""
    numbers = tf.cast(gradient, tf.float32)
    return tf.tensordot(numbers, numbers, 1) if numbers.shape.rank == 1 else 2.0 * tf.nn.l2_loss(numbers)


def _deserialized(config: Mapping[str, Any]) -> Any:
    """The optimizer that Keras has serialized, as a run's config.yaml keeps it."""
    message = f"optimizer is no optimizer that Keras can make, got {dict(config)!r}."
    try:
        found = keras.optimizers.deserialize(dict(config))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(message) from error
    if not isinstance(found, keras.optimizers.Optimizer):
        raise ValueError(message)
    return found


def _is_optimizer_class(thing: Any) -> bool:
    base = keras.optimizers.Optimizer
    return isinstance(thing, type) and issubclass(thing, base) and thing is not base
