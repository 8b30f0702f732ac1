"""Variables in blocks: all small ones side by side in one vector, and each large one by itself.

A compiled step has a fixed cost per tensor, which for a small variable exceeds that of the arithmetic: one vector pays it once.
To copy a large variable into the vector and back would cost more than that saves.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

LARGEST = 8192  # benchmarks/results/sizes.md
"""Numbers of the largest variable that is worth its copies."""


class Blocks:
    """A partition of variables.

    Args:
        variables: in order.
        largest: numbers of the largest variable that stands in the vector. `None`: `LARGEST`.

    Attributes:
        side_by_side: which variables stand in the vector, in order.
        alone: which are blocks of their own, in order.
        shapes: of the blocks; the vector is the first, if there is one.
    """

    def __init__(self, variables: Sequence[keras.Variable], largest: float | None = None) -> None:
        largest = LARGEST if largest is None else largest
        sizes = [v.value.shape.num_elements() for v in variables]
        self.side_by_side = [i for i, size in enumerate(sizes) if size <= largest]
        self.alone = [i for i, size in enumerate(sizes) if size > largest]
        self._all_shapes = [tuple(v.shape) for v in variables]
        self._sizes = [sizes[i] for i in self.side_by_side]
        vector = [(sum(self._sizes),)] if self.side_by_side else []
        self.shapes = [*vector, *(self._all_shapes[i] for i in self.alone)]

    def join(self, tensors: Sequence[tf.Tensor], lead: tuple[int, ...] = ()) -> list[tf.Tensor]:
        """Return tensors of the variables' shapes as blocks.

        Args:
            tensors: one for each variable.
            lead: axes before those of the variables; a tensor may lack those of size 1.
        """
        parts = [tf.reshape(tensors[i], (*lead, -1)) for i in self.side_by_side]
        alone = [tf.reshape(tensors[i], (*lead, *self._all_shapes[i])) for i in self.alone]
        return [*([tf.concat(parts, axis=-1)] if parts else []), *alone]

    def split(self, blocks: Sequence[tf.Tensor], lead: tuple[int, ...] = ()) -> list[tf.Tensor]:
        """Return blocks as tensors of the variables' shapes, in their order: the inverse of `join`."""
        found = dict(zip(self.alone, blocks[1:] if self.side_by_side else blocks, strict=True))
        if self.side_by_side:
            parts = tf.split(blocks[0], self._sizes, axis=-1)
            shapes = ((*lead, *self._all_shapes[i]) for i in self.side_by_side)
            found |= zip(self.side_by_side, map(tf.reshape, parts, shapes), strict=True)
        return [found[i] for i in range(len(found))]
