"""Steps of a Keras optimizer along gradients: guarded, clipped, with small variables in one vector where that is the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from rlgrad.data import Metrics
from rlgrad.updates.flat import Flat, is_elementwise, slots_from
from rlgrad.updates.weight_blocks import Blocks


@dataclass(frozen=True)
class AscentState:
    """A Keras optimizer and the variables that it moves.

    Attributes:
        optimizer: with slots for the variables.
        variables: what it moves.
        initial_rate: its learning rate before the first step.
        anneals: the learning rate is lowered from there, step by step.
        max_grad_norm: length that longer gradients are scaled to; `None`: never.
        flat: small variables side by side in one vector; `None`: the optimizer moves each by itself.
        schedule: of the learning rate, if the optimizer has one of its own.
    """

    optimizer: keras.optimizers.Optimizer
    variables: list[keras.Variable]
    initial_rate: float
    anneals: bool
    max_grad_norm: float | None
    flat: Flat | None
    schedule: keras.optimizers.schedules.LearningRateSchedule | None

    @property
    def last_rate(self) -> tf.Tensor:
        """The learning rate of the last step. The optimizer's own is that of its next one."""
        if self.schedule is None:
            return tf.cast(self.optimizer.learning_rate, tf.float32)
        return tf.cast(self.schedule(tf.maximum(tf.convert_to_tensor(self.optimizer.iterations) - 1, 0)), tf.float32)

    @property
    def slots(self) -> list[keras.Variable]:
        """Return what a checkpoint keeps: step counter, learning rate, moments."""
        return list(self.optimizer.variables)

    def slots_from(self, arrays: Sequence[Any]) -> list[Any] | None:
        """Return the slots in a checkpoint of an earlier version, in the order of `slots`; `None` if it has others."""
        if not is_elementwise(self.optimizer, self.variables):
            return None
        now = Blocks(self.variables, -1) if self.flat is None else self.flat.blocks
        return slots_from(self.optimizer, self.variables, now, arrays)

    def renew(self) -> None:
        """Take the learning rate of the settings, in place of one that a checkpoint kept."""
        if not self.anneals and isinstance(self.optimizer.learning_rate, keras.Variable):
            self.optimizer.learning_rate = self.initial_rate

    def apply_gradient(self, gradient: Mapping[str, tf.Tensor]) -> Metrics:
        """Take one step along a gradient, in loops written by hand.

        Args:
            gradient: as `rlgrad.gradients` returns it, by variable path, in the order of the variables of `build`.

        Returns:
            `gradient_norm`, before clipping.

        Raises:
            ValueError: the gradient is not of the variables given to `build`.
            FloatingPointError: the gradient is not finite; the weights have not moved.
        """
        expected = [tuple(v.shape) for v in self.variables]
        shapes = [tuple(g.shape) for g in gradient.values()]
        if shapes != expected:
            raise ValueError(
                f"Expected a gradient for the {len(expected)} variables given to build, of shapes {expected}; got {shapes}. "
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
    """Take one guarded step of the optimizer; return the gradient's norm, and whether it was finite."""
    flat, moved = state.flat, state.variables
    if flat is not None:
        gradient, moved = flat.blocks.join(gradient), flat.moved
    length = tf.sqrt(tf.add_n([_square(g) for g in gradient]))
    finite = tf.math.is_finite(length)  # one that is too long to be measured cannot be clipped either
    limit = state.max_grad_norm
    scale = 1.0 if limit is None else tf.minimum(1.0, limit / tf.maximum(length, 1e-12))

    def move() -> None:
        state.optimizer.apply([-g if limit is None else -g * tf.cast(scale, g.dtype) for g in gradient], moved)

    has_large = flat is None or bool(flat.blocks.alone)
    if has_large and is_elementwise(state.optimizer, moved) and not tf.executing_eagerly():
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
    """Return the sum of squares. Of a vector it is a product, which XLA makes one kernel of; else TensorFlow's op is faster."""
    numbers = tf.cast(gradient, tf.float32)
    return tf.tensordot(numbers, numbers, 1) if numbers.shape.rank == 1 else 2.0 * tf.nn.l2_loss(numbers)
