"""Gradients of a table of which each sample looks up some rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.gradients.factors import Factor


@dataclass(frozen=True)
class Lookup:
    """g has b_t added to row id_t of a table, for each of T positions. Never written out, except where that is asked.

    Args:
        ids: int (N, T).
        right: b, float (N, T, D).
        rows: number of rows of the table.
    """

    ids: Any
    right: Any
    rows: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The table's shape."""
        return (self.rows, self.right.shape[-1])

    @property
    def positions(self) -> int | None:
        """T."""
        found: int | None = self.ids.shape[1]
        return found

    @property
    def tensors(self) -> tuple[Any, ...]:
        """Ids and b."""
        return (self.ids, self.right)

    def with_tensors(self, tensors: Sequence[Any]) -> "Lookup":
        """The same table with other ids and b."""
        return replace(self, ids=tensors[0], right=tensors[1])

    def per_sample(self) -> Any:
        """(N, rows, D), mostly zeros."""
        count = tf.shape(self.ids)[0]
        number = self.ids + self.rows * tf.range(count, dtype=self.ids.dtype)[:, None]
        flat = tf.math.unsorted_segment_sum(_rows(self.right), tf.reshape(number, [-1]), count * self.rows)
        return tf.reshape(flat, [-1, *self.shape])

    def squared_norm(self) -> Any:
        """Σ_ts [id_t = id_s] b_t · b_s."""
        return tf.reduce_sum(self.right * self._sums_over_same_id(), axis=[1, 2])

    def gram(self, other: Any) -> Any:
        """Σ_ts [id_t = id′_s] b_t · b′_s, one position of this factor after the other."""
        same = tf.reshape(self.ids, [-1, 1]) == tf.reshape(other.ids, [1, -1])
        products = tf.matmul(_rows(self.right), _rows(other.right), transpose_b=True)
        pairs = tf.where(same, products, tf.zeros_like(products))
        shape = [tf.shape(self.ids)[0], tf.shape(self.ids)[1], tf.shape(other.ids)[0], tf.shape(other.ids)[1]]
        return tf.reduce_sum(tf.reshape(pairs, shape), axis=[1, 3])

    def jvp(self, tangent: Any) -> Any:
        """Σ_t v[id_t] · b_t."""
        return tf.reduce_sum(tf.gather(tangent, self.ids) * self.right, axis=[1, 2])

    def vjp(self, weights: Any) -> Any:
        """One segment sum."""
        weighted = self.right * weights[:, None, None]
        return tf.math.unsorted_segment_sum(_rows(weighted), tf.reshape(self.ids, [-1]), self.rows)

    def sum_of_squares(self, weights: Any) -> Any:
        """Σ_n c_n Σ_ts [id_t = id_s] b_t ∘ b_s, each term in row id_t."""
        return replace(self, right=self.right * self._sums_over_same_id()).vjp(weights)

    def joined(self, other: Any) -> "Factor | None":
        """More positions."""
        if not isinstance(other, Lookup):
            return None
        ids = tf.concat([self.ids, tf.cast(other.ids, self.ids.dtype)], axis=1)
        return replace(self, ids=ids, right=tf.concat([self.right, other.right], axis=1))

    def _sums_over_same_id(self) -> Any:
        """For each position the sum of b over all positions of that sample with the same id, (N, T, D)."""
        same = self.ids[:, :, None] == self.ids[:, None, :]
        return tf.matmul(tf.cast(same, self.right.dtype), self.right)


def _rows(x: Any) -> Any:
    """(N, T, D) to (N·T, D)."""
    return tf.reshape(x, [-1, x.shape[-1]])
