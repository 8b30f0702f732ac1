"""Small variables side by side in one vector, for optimizers that treat every number by itself.

The weights come out as if the optimizer moved each variable. See `rlgrad.updates.weight_blocks`.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad.updates.weight_blocks import Blocks

# Their step for a number depends on that number's own history alone. Others look at a variable as a whole.
_ELEMENTWISE = tuple(
    getattr(keras.optimizers, name)
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lion")
)


class Flat:
    """What an optimizer moves in place of variables: a vector of the small ones, and the large ones themselves.

    Args:
        variables: float32, in order.
        blocks: the partition. At least one variable is small.

    Attributes:
        blocks: the partition.
        moved: the vector, and the large variables.
    """

    def __init__(self, variables: Sequence[keras.Variable], blocks: Blocks) -> None:
        self._variables, self.blocks = list(variables), blocks
        self._vector = keras.Variable(tf.zeros(blocks.shapes[0]), name="side_by_side")
        self.moved = [self._vector, *(variables[i] for i in blocks.alone)]

    def read(self) -> None:
        """Copy the small variables into the vector: they may have been changed elsewhere."""
        self._vector.assign(self.blocks.join([v.value for v in self._variables])[0])

    def write(self) -> None:
        """Copy the vector into the small variables."""
        values = self.blocks.split([v.value for v in self.moved])
        for i in self.blocks.side_by_side:
            self._variables[i].assign(values[i])


def is_elementwise(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> bool:
    """Return True if a step looks at no variable as a whole."""
    whole = optimizer.clipnorm is not None or any(getattr(v, "constraint", None) is not None for v in variables)
    return type(optimizer) in _ELEMENTWISE and not whole


def flat_or_none(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> Flat | None:
    """Return what to move in place of the variables, if the optimizer cannot tell the difference; else `None`.

    Args:
        optimizer: moves them.
        variables: in order.
    """
    same = is_elementwise(optimizer, variables) and all(v.dtype == "float32" for v in variables)
    blocks = Blocks(variables)
    return Flat(variables, blocks) if same and blocks.side_by_side else None


def slots_from(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable], now: Blocks, arrays: Sequence[Any]
) -> list[Any] | None:
    """Return the slots of a checkpoint of an earlier version, which had its variables in another partition.

    Args:
        optimizer: whose slots they are.
        variables: what it moves, in order.
        now: the partition that its slots have.
        arrays: of the checkpoint.

    Returns:
        The arrays in the order of `optimizer.variables`; `None` if they are of no such optimizer.
    """
    for before in (Blocks(variables, math.inf), Blocks(variables, -1)):  # one vector, each by itself
        theirs = _slots(optimizer, before)
        if [np.shape(array) for array in arrays] == [shape for _, shape in theirs]:
            kept = defaultdict(list)
            for (name, _), array in zip(theirs, arrays, strict=True):
                kept[name].append(array)
            here = {name: iter(now.join(before.split(x)) if name else x) for name, x in kept.items()}
            return [np.asarray(next(here[name])) for name, _ in _slots(optimizer, now)]
    return None


def _slots(optimizer: keras.optimizers.Optimizer, blocks: Blocks) -> list[tuple[str, tuple[int, ...]]]:
    """Return the slots that an optimizer of the same settings has for a partition: of each its name and its shape.

    Each block has one of each name. The name is empty for what the optimizer has once, such as its learning rate.
    """
    other = type(optimizer).from_config(optimizer.get_config())
    moved = {f"block{i}": keras.Variable(tf.zeros(shape), name=f"block{i}") for i, shape in enumerate(blocks.shapes)}
    other.build([*moved.values()])
    named = ((*v.name.partition("_"), tuple(v.shape)) for v in other.variables)
    return [(slot if block in moved else "", shape) for block, _, slot, shape in named]
