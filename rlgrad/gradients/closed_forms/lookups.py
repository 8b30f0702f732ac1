"""Gradients of a table of which each sample looks up some rows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.gradients.closed_forms import factors
from rlgrad.gradients.closed_forms.factors import Factor, MadeOfTensors, matrix


@dataclass(frozen=True)
class Lookup(MadeOfTensors):
    """g has b_t added to row id_t of a table, for each of T positions. Seldom written out: most of it is zeros.

    Args:
        ids: int (N, T), in 0 … rows − 1.
        right: b, float (N, T, D).
        rows: number of rows of the table.
    """

    _TENSORS = ("ids", "right")
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

    def per_sample(self) -> Any:
        """(N, rows, D), mostly zeros."""
        count = tf.shape(self.ids)[0]
        number = self.ids + self.rows * tf.range(count, dtype=self.ids.dtype)[:, None]
        flat = tf.math.unsorted_segment_sum(_flat(self.right), tf.reshape(number, [-1]), count * self.rows)
        return tf.reshape(flat, [-1, *self.shape])

    def squared_norm(self) -> Any:
        """Σ_ts [id_t = id_s] b_t · b_s."""
        return tf.reduce_sum(self.right * self._sums_over_same_id(), axis=[1, 2])

    def gram(self, other: Any) -> Any:
        """Σ_ts [id_t = id′_s] b_t · b′_s over pairs of positions; or written out in blocks, whichever is cheaper."""
        if self.positions is None or other.positions is None:
            return self._one_position_after_the_other(other)
        if self.positions * other.positions <= self.rows:
            step = factors.block(self.ids.shape[0], other.ids.shape[0], other.positions)
            return sum(part._pairs(other) for part in self._positions(step))
        step = min(factors.block(each.ids.shape[0], self.rows) for each in (self, other))
        return sum(
            tf.matmul(matrix(mine.per_sample()), matrix(others.per_sample()), transpose_b=True)
            for mine, others in zip(self._columns(step), other._columns(step), strict=True)
        )

    def jvp(self, tangent: Any) -> Any:
        """Σ_t v[id_t] · b_t."""
        return tf.reduce_sum(tf.gather(tangent, self.ids) * self.right, axis=[1, 2])

    def vjp(self, weights: Any) -> Any:
        """One segment sum."""
        weighted = self.right * weights[:, None, None]
        return tf.math.unsorted_segment_sum(_flat(weighted), tf.reshape(self.ids, [-1]), self.rows)

    def sum_of_squares(self, weights: Any) -> Any:
        """Σ_n c_n Σ_ts [id_t = id_s] b_t ∘ b_s, each term in row id_t."""
        return replace(self, right=self.right * self._sums_over_same_id()).vjp(weights)

    def joined(self, other: Any) -> "Factor | None":
        """More positions."""
        if not isinstance(other, Lookup):
            return None
        ids = tf.concat([self.ids, tf.cast(other.ids, self.ids.dtype)], axis=1)
        return replace(self, ids=ids, right=tf.concat([self.right, other.right], axis=1))

    def _pairs(self, other: "Lookup") -> Any:
        same = tf.reshape(self.ids, [-1, 1]) == tf.reshape(other.ids, [1, -1])
        products = tf.matmul(_flat(self.right), _flat(other.right), transpose_b=True)
        pairs = tf.where(same, products, tf.zeros_like(products))
        shape = [tf.shape(self.ids)[0], tf.shape(self.ids)[1], tf.shape(other.ids)[0], tf.shape(other.ids)[1]]
        return tf.reduce_sum(tf.reshape(pairs, shape), axis=[1, 3])

    def _one_position_after_the_other(self, other: "Lookup") -> Any:
        def add(t: Any, pairs: Any) -> Any:
            one = replace(self, ids=tf.gather(self.ids, [t], axis=1), right=tf.gather(self.right, [t], axis=1))
            return t + 1, pairs + one._pairs(other)

        none = tf.zeros([tf.shape(self.ids)[0], tf.shape(other.ids)[0]], self.right.dtype)
        return tf.while_loop(lambda t, _: t < tf.shape(self.ids)[1], add, (0, none))[1]

    def _sums_over_same_id(self) -> Any:
        """For each position the sum of b over all positions of that sample with the same id, (N, T, D)."""
        parts = []
        for part in self._positions(factors.block(self.ids.shape[0], self.positions or 1)):
            same = part.ids[:, :, None] == self.ids[:, None, :]
            parts.append(tf.matmul(tf.cast(same, self.right.dtype), self.right))
        return tf.concat(parts, axis=1)

    def _positions(self, step: int) -> Iterator["Lookup"]:
        """At most `step` positions at a time; all where their number is not known when tracing."""
        count = self.positions
        if count is None or count <= step:
            yield self
            return
        for start in range(0, count, step):
            yield replace(self, ids=self.ids[:, start : start + step], right=self.right[:, start : start + step])

    def _columns(self, step: int) -> Iterator["Lookup"]:
        """At most `step` columns of b at a time."""
        for start in range(0, self.right.shape[-1], step):
            yield replace(self, right=self.right[..., start : start + step])


def _flat(x: Any) -> Any:
    """(N, T, D) to (N·T, D)."""
    return tf.reshape(x, [-1, x.shape[-1]])
