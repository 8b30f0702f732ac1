"""Target weights: copies of variables that follow them slowly."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from rlgrad.learning.asking import Placed
from rlgrad.replay.records import Target


class TargetWeights:
    """Copies of some variables, beside a policy that has them; `placed` puts them in their place.

    Args:
        settings: how fast they follow.
        followed: the variables, by their keys in the policy's gradients.

    Attributes:
        variables: for checkpoints.
    """

    def __init__(self, settings: Target, followed: Mapping[str, keras.Variable]) -> None:
        self._settings, self._keys, self._followed = settings, list(followed), list(followed.values())
        self._copies = [
            keras.Variable(v.numpy(), dtype=v.dtype, trainable=False, name=f"target_{i}")  # of v itself, it would be v
            for i, v in enumerate(self._followed)
        ]
        self._steps = keras.Variable(0, dtype="int32", trainable=False, name="target_steps")
        self.variables = [*self._copies, self._steps]

    @property
    def placed(self) -> Placed:
        """Return the copies' values."""
        return {key: copy.value for key, copy in zip(self._keys, self._copies, strict=True)}

    def follow(self, taken: tf.Tensor) -> None:
        """Count a gradient step if it was taken, and move the copies if it is their turn. Part of a compiled program."""
        self._steps.assign(self._steps.value + tf.cast(taken, tf.int32))
        due = taken & (tf.math.floormod(self._steps.value, self._settings.every) == 0)

        def take() -> tf.Tensor:
            self._move()
            return tf.constant(True)

        tf.cond(due, take, lambda: tf.constant(False))

    def _move(self) -> None:
        rate = self._settings.rate
        for variable, copy in zip(self._followed, self._copies, strict=True):
            copy.assign(variable.value if rate == 1.0 else copy.value + rate * (variable.value - copy.value))
