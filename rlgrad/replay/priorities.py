"""Drawing numbered rows in proportion to their priorities, by sums of blocks that are kept.

Level 0 holds a weight for each row, and level l + 1 the sums of blocks of 16 of level l, up to a single block. A draw goes down
from there, and at each level takes one of a block's 16 in proportion to it, by a random number of its own. The shares multiply
to weight / total, and 24 bits are enough for any number of rows. When a weight changes, its blocks are added up anew, so
rounding does not build up.
"""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from rlgrad import random

_WIDTH = 16


class Priorities:
    """A weight ≥ 0 for each row, all 0 at first, in variables that compiled programs change.

    Args:
        rows: how many. Weights of rows beyond them are kept, and never drawn.

    Attributes:
        levels: the variables, the rows' own weights first.
    """

    def __init__(self, rows: int) -> None:
        self.levels = [tf.Variable(tf.zeros((size,)), trainable=False) for size in sizes(rows)]

    @property
    def total(self) -> Any:
        """The sum of all weights, float32 ()."""
        return tf.reduce_sum(self.levels[-1])

    def set(self, rows: Any, weights: Any) -> None:
        """Give rows, int32 (M,), other weights, float32 (M,). A row that comes twice takes the greatest of its weights."""
        self.levels[0].scatter_update(tf.IndexedSlices(tf.zeros_like(weights), rows))
        self.levels[0].scatter_max(tf.IndexedSlices(weights, rows))
        for below, above in zip(self.levels, self.levels[1:], strict=False):
            rows = rows // _WIDTH
            above.scatter_update(tf.IndexedSlices(tf.reduce_sum(_block(below, rows), axis=-1), rows))

    def draw(self, seed: Any, count: int) -> Any:
        """Return rows, int32 (count,), each drawn in proportion to its weight; row 0 if all weights are 0.

        Args:
            seed: int32 (2,).
            count: how many.
        """
        numbers = random.uniform(random.split(seed, len(self.levels)), (count,))
        at = tf.zeros((count,), tf.int32)
        for number, level in zip(tf.unstack(numbers), reversed(self.levels), strict=True):
            weights = _block(level, at)
            sums = tf.cumsum(weights, axis=-1)
            # Sums may be rounded so that they do not rise: rows of weight 0 are left out one by one.
            beyond = (sums > number[:, None] * tf.reduce_max(sums, axis=-1, keepdims=True)) & (weights > 0.0)
            first = tf.argmax(beyond, axis=-1, output_type=tf.int32)
            last = tf.reduce_max(tf.where(weights > 0.0, tf.range(_WIDTH), 0), axis=-1)
            at = _WIDTH * at + tf.where(tf.reduce_any(beyond, axis=-1), first, last)
        return at

    def weights(self, rows: Any) -> Any:
        """Return the weights of rows, float32 (M,)."""
        return tf.gather(self.levels[0], rows)


def sizes(rows: int) -> list[int]:
    """Return the numbers of weights of the levels of so many rows, each a multiple of a block."""
    return list(_sizes(rows))


def _sizes(count: int) -> Iterator[int]:
    while True:
        blocks = -(-count // _WIDTH)
        yield blocks * _WIDTH
        if blocks == 1:
            return
        count = blocks


def _block(level: tf.Variable, blocks: Any) -> Any:
    """Return blocks of a level by their numbers, (M,): float32 (M, 16)."""
    return tf.gather(level, _WIDTH * blocks[:, None] + tf.range(_WIDTH))
