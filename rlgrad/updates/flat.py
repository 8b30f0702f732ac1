"""Variables side by side in one vector, for optimizers that treat every number by itself.

A compiled step has a fixed cost per variable (its moments, its norm, the check that it is finite), which in a small network
exceeds that of the arithmetic. One vector pays it once, and the weights come out the same. In a large network, copying the
weights into a vector and back costs more than it saves.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

# Their step for a number depends on that number's own history alone. Others look at a variable as a whole.
_ELEMENTWISE = tuple(
    getattr(keras.optimizers, name)
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lion")
)
MOST_NUMBERS = 100_000  # both limits: benchmarks/results/sizes.md
"""The longest vector that is worth its copies."""
MOST_IN_SINGLE_STEPS = 30_000
"""The same where each step copies the weights into the vector anew: updates from a replay."""


class Flat:
    """A vector that an optimizer moves in place of the variables side by side in it.

    Args:
        variables: float32, in order.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        self._variables = list(variables)
        self._sizes = [v.value.shape.num_elements() for v in variables]
        self.vector = keras.Variable(tf.zeros([sum(self._sizes)]), name="side_by_side")

    def read(self) -> None:
        """Copy the variables into the vector: they may have been changed elsewhere."""
        self.vector.assign(self.join([v.value for v in self._variables]))

    def join(self, tensors: Sequence[Any]) -> tf.Tensor:
        """Return tensors of the variables' shapes as one, (P,)."""
        return tf.concat([tf.reshape(x, [-1]) for x in tensors], axis=0)

    def write(self) -> None:
        """Copy the vector into the variables."""
        for variable, part in zip(self._variables, tf.split(self.vector.value, self._sizes), strict=True):
            variable.assign(tf.reshape(part, variable.shape))


def is_elementwise(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> bool:
    """Return True if a step looks at no variable as a whole."""
    whole = optimizer.clipnorm is not None or any(getattr(v, "constraint", None) is not None for v in variables)
    return type(optimizer) in _ELEMENTWISE and not whole


def flat_or_none(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable], most: int = MOST_NUMBERS
) -> Flat | None:
    """Return the variables as one vector if the optimizer cannot tell the difference and it is faster, else `None`.

    Args:
        optimizer: moves them.
        variables: in order.
        most: numbers of a vector that is faster.
    """
    same = (
        is_elementwise(optimizer, variables)
        and sum(v.value.shape.num_elements() for v in variables) <= most
        and all(v.dtype == "float32" for v in variables)
    )
    return Flat(variables) if same and variables else None
