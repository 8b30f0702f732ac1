"""Variables side by side in one vector, for optimizers that treat every number by itself.

A compiled step has some fixed cost for each variable (its moments, its norm, whether it is finite), which for small networks is
more than what their arithmetic costs. Over one vector there is one of each, and the weights come out the same. For large
networks it is the other way round: copying the weights into a vector and back costs more than it saves.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

# Their step for a number depends on that number's own history alone. Others look at a variable as a whole.
_NUMBER_BY_NUMBER = tuple(
    getattr(keras.optimizers, name)
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lion")
)
_MOST_NUMBERS = 100_000  # of a vector that is worth its copies


class Flat:
    """A vector that an optimizer moves in place of the variables that it is made of.

    Args:
        variables: float32, in order.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        self._variables = list(variables)
        self._sizes = [v.value.shape.num_elements() for v in variables]
        self.vector = keras.Variable(tf.zeros([sum(self._sizes)]), name="side_by_side")

    def read(self) -> None:
        """Take over the variables' values, which may have been changed elsewhere."""
        self.vector.assign(self.joined([v.value for v in self._variables]))

    def joined(self, tensors: Sequence[Any]) -> tf.Tensor:
        """Tensors of the variables' shapes as one, (P,)."""
        return tf.concat([tf.reshape(x, [-1]) for x in tensors], axis=0)

    def write(self) -> None:
        """Give the variables their parts of the vector."""
        for variable, part in zip(self._variables, tf.split(self.vector.value, self._sizes), strict=True):
            variable.assign(tf.reshape(part, variable.shape))


def number_by_number(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> bool:
    """Whether a step looks at no variable as a whole."""
    whole = optimizer.clipnorm is not None or any(getattr(v, "constraint", None) is not None for v in variables)
    return type(optimizer) in _NUMBER_BY_NUMBER and not whole


def flat_or_none(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> Flat | None:
    """The variables as one vector, where an optimizer cannot tell the difference and it is faster; else none."""
    same = (
        number_by_number(optimizer, variables)
        and sum(v.value.shape.num_elements() for v in variables) <= _MOST_NUMBERS
        and all(v.dtype == "float32" for v in variables)
    )
    return Flat(variables) if same and variables else None
