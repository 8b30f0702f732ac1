"""Gradients that are sums of outer products: what a layer was given times what f feels at what came out.

A dense layer's gradient for one sample is the outer product a bᵀ. Its norm is ‖a‖ ‖b‖, its inner product with another
sample's (a·a′)(b·b′). With T positions that share the weights (time steps, pixels, repeated calls) it is Σ_t a_t b_tᵀ, and
each quantity has two routes: over pairs of positions, or by writing the gradient out. The cheaper one is chosen by shapes
alone, never by timing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.gradients.closed_forms import factors
from rlgrad.gradients.closed_forms.factors import Factor, MadeOfTensors, matrix, sum_after

# From so many positions on, to compute bᵀ a and transpose it may be faster than to compute aᵀ b.
_MANY_POSITIONS = 64


@dataclass(frozen=True)
class OuterProduct(MadeOfTensors):
    """g = Σ_t a_t b_tᵀ, for each of G groups of channels by itself.

    Args:
        left: a, float (N, T, G, I).
        right: b, float (N, T, G, O).
        axes: sizes into which the axes (I, G, O) of g are split, in that order: their product is I · G · O.
        permutation: which of `axes` each axis of the variable is; default: as they stand.
    """

    _TENSORS = ("left", "right")
    left: Any
    right: Any
    axes: tuple[int, ...]
    permutation: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return self.axes if self.permutation is None else tuple(self.axes[k] for k in self.permutation)

    @property
    def positions(self) -> int | None:
        """T."""
        found: int | None = self.left.shape[1]
        return found

    def per_sample(self) -> Any:
        """One batched product."""
        if not self._cheaper_turned or (self.positions or 0) < _MANY_POSITIONS or self.axes[-1] != self.right.shape[-1]:
            return self._to_variable(self._written_out())
        # (N, O, I) to (N, O, *axes of I) to the variable's axes. With a reshape after the transposition, or I as one
        # axis, XLA would make the slow product of it again.
        g = tf.reshape(self._turned(), [-1, self.axes[-1], *self.axes[:-1]])
        last = len(self.axes) - 1
        order = range(len(self.axes)) if self.permutation is None else self.permutation
        return tf.transpose(g, [0, *(1 if axis == last else 2 + axis for axis in order)])

    def squared_norm(self) -> Any:
        """‖a‖² ‖b‖² for one position; else over pairs of positions or written out, whichever is cheaper."""
        if self.positions == 1:
            return tf.reduce_sum(_squares(self.left[:, 0]) * _squares(self.right[:, 0]), axis=-1)
        if self.cheaper_in_pairs(1):
            a, b = _groups_first(self.left), _groups_first(self.right)  # (N, G, T, ·)
            pairs = tf.matmul(a, a, transpose_b=True) * tf.matmul(b, b, transpose_b=True)
            return tf.reduce_sum(pairs, axis=[1, 2, 3])
        turned = self._cheaper_turned
        return sum(sum_after(tf.square(block._in_order(turned)), 1) for block in self._blocks(self._step))

    def gram(self, other: Any) -> Any:
        """(a·a′)(b·b′), summed over pairs of positions; or written out block by block."""
        if (self.positions == 1 and other.positions == 1) or self.cheaper_in_pairs(self.positions):
            a, a2 = _rows_of_groups(self.left), _rows_of_groups(other.left)  # (G, N·T, I)
            b, b2 = _rows_of_groups(self.right), _rows_of_groups(other.right)
            pairs = tf.matmul(a, a2, transpose_b=True) * tf.matmul(b, b2, transpose_b=True)
            pairs = pairs[0] if self.left.shape[2] == 1 else tf.reduce_sum(pairs, axis=0)
            if self.positions == 1 and other.positions == 1:
                return pairs
            shape = [tf.shape(self.left)[0], tf.shape(self.left)[1], tf.shape(other.left)[0], tf.shape(other.left)[1]]
            return tf.reduce_sum(tf.reshape(pairs, shape), axis=[1, 3])
        step, turned = min(self._step, other._step), self._cheaper_turned and other._cheaper_turned
        return sum(
            tf.matmul(matrix(mine._in_order(turned)), matrix(others._in_order(turned)), transpose_b=True)
            for mine, others in zip(self._blocks(step), other._blocks(step), strict=True)
        )

    def jvp(self, tangent: Any) -> Any:
        """Σ_t bᵀ (Vᵀ a), without any gradient."""
        v = tf.transpose(self._from_variable(tangent), [1, 0, 2])  # (G, I, O)
        moved = tf.matmul(_rows_of_groups(self.left), v)
        product = tf.reduce_sum(moved * _rows_of_groups(self.right), axis=[0, 2])
        return sum_after(tf.reshape(product, tf.shape(self.left)[:2]), 1)

    def vjp(self, weights: Any) -> Any:
        """Aᵀ diag(c) B: one matrix product."""
        weighted = self.right * weights[:, None, None, None]
        g = tf.matmul(_rows_of_groups(self.left), _rows_of_groups(weighted), transpose_a=True)  # (G, I, O)
        return self._to_variable(tf.transpose(g, [1, 0, 2])[None])[0]

    def sum_of_squares(self, weights: Any) -> Any:
        """(A²)ᵀ diag(c) (B²) for one position; else written out block by block."""
        if self.positions == 1:
            squares = replace(self, left=tf.square(self.left), right=tf.square(self.right))
            return squares.vjp(weights)
        parts = [tf.tensordot(weights, tf.square(block._written_out()), 1) for block in self._blocks(self._step)]
        return self._to_variable(tf.concat(parts, axis=-1)[None])[0]

    def joined(self, other: Any) -> "Factor | None":
        """More positions: the gradients of several uses add before anything is squared."""
        same = isinstance(other, OuterProduct) and (other.axes, other.permutation) == (self.axes, self.permutation)
        if not same or other.left.shape[2:] != self.left.shape[2:]:
            return None
        left = tf.concat([self.left, other.left], axis=1)
        return replace(self, left=left, right=tf.concat([self.right, other.right], axis=1))

    def cheaper_in_pairs(self, others: int | None) -> bool:
        """Return True if T² (I + O) products of pairs cost less than writing g out; `others` is T for a Gram matrix, else 1."""
        t = self.positions
        if t is None or others is None:
            return False
        i, o = self.left.shape[-1], self.right.shape[-1]
        # A norm writes g out with T·I·O products; in a Gram matrix that is done once for each row, and each of the N
        # pairs of that row costs I·O.
        return bool(t * t * (i + o) < (t * i * o if others == 1 else i * o))

    def _written_out(self) -> Any:
        """The gradients, float (N, I, G, O)."""
        if self.left.shape[2] == 1:
            left, right = self.left[:, :, 0], self.right[:, :, 0]
            if self.positions == 1:
                return tf.matmul(tf.reshape(left, [-1, left.shape[2], 1]), right)[:, :, None]
            return tf.matmul(left, right, transpose_a=True)[:, :, None]
        g = tf.matmul(_groups_first(self.left), _groups_first(self.right), transpose_a=True)  # (N, G, I, O)
        return tf.transpose(g, [0, 2, 1, 3])

    def _in_order(self, turned: bool) -> Any:
        """The numbers of g, (N, …), in either of two orders."""
        return self._turned() if turned else self._written_out()

    @property
    def _cheaper_turned(self) -> bool:
        """Return True if bᵀ a is faster than aᵀ b: on a CPU up to three times, if a is the wider one and not transposed."""
        one_group = self.left.shape[2] == 1 and self.positions != 1
        return bool(one_group and self.left.shape[-1] >= 2 * self.right.shape[-1])

    def _turned(self) -> Any:
        """The gradients of a single group, float (N, O, I)."""
        return tf.matmul(self.right[:, :, 0], self.left[:, :, 0], transpose_a=True)

    @property
    def _step(self) -> int:
        """How many columns of b, written out, fit into a block."""
        return factors.block(self.left.shape[0], self.left.shape[-1], self.left.shape[-2])

    def _blocks(self, step: int) -> Iterator["OuterProduct"]:
        """At most `step` columns of b at a time."""
        width = self.right.shape[-1]
        if step >= width:
            yield self
            return
        for start in range(0, width, step):
            yield replace(self, right=self.right[..., start : start + step])

    def _to_variable(self, g: Any) -> Any:
        """(N, I, G, O) to (N, *shape)."""
        g = tf.reshape(g, tf.concat([tf.shape(g)[:1], self.axes], axis=0))
        return g if self.permutation is None else tf.transpose(g, [0, *(1 + k for k in self.permutation)])

    def _from_variable(self, v: Any) -> Any:
        """The variable's shape to (I, G, O)."""
        if self.permutation is not None:
            v = tf.transpose(v, [self.permutation.index(k) for k in range(len(self.axes))])
        return tf.reshape(v, [self.left.shape[-1], self.left.shape[-2], self.right.shape[-1]])


def _rows_of_groups(x: Any) -> Any:
    """(N, T, G, I) to (G, N·T, I)."""
    flat = tf.reshape(x, [-1, x.shape[2], x.shape[3]])
    return flat[None, :, 0] if x.shape[2] == 1 else tf.transpose(flat, [1, 0, 2])


def _groups_first(x: Any) -> Any:
    """(N, T, G, I) to (N, G, T, I)."""
    return tf.transpose(x, [0, 2, 1, 3])


def _squares(x: Any) -> Any:
    """Σ over the last axis, as a product with ones where its size is known: on a CPU faster than a reduction."""
    size = x.shape[-1]
    if size is None:
        return tf.reduce_sum(tf.square(x), axis=-1)
    sums = tf.matmul(tf.reshape(tf.square(x), [-1, size]), tf.ones([size, 1], x.dtype))
    return tf.reshape(sums, tf.shape(x)[:-1])
