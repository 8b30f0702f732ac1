"""Per-sample gradients of one variable, not written out: what each quantity needs is contracted from two small arrays.

A dense layer's gradient for one sample is the outer product a bᵀ of what came in and of what f feels at what came out.
Its norm is ‖a‖ ‖b‖, its inner product with another sample's (a·a′)(b·b′). With T positions that share the weights (time
steps, pixels, repeated calls) it is Σ_t a_t b_tᵀ, and each quantity has two routes: over pairs of positions, or by writing
the gradient out. The cheaper one is chosen by shapes alone, never by timing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import tensorflow as tf

# A gradient that is written out on the way to something smaller is written out in blocks of about this many numbers.
BLOCK = 2**25
# From so many positions on, to compute bᵀ a and transpose it may be faster than to compute aᵀ b.
_MANY_POSITIONS = 64
_TYPICAL_ROWS = 1024  # where the number of samples is not known when tracing


class Factor(Protocol):
    """The gradients g_n of one variable, for N samples. `shape` is the variable's."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""

    @property
    def positions(self) -> int | None:
        """T, the number of uses of the variable that one sample makes; `None` where it is not known when tracing."""

    @property
    def tensors(self) -> tuple[Any, ...]:
        """What it is made of; each tensor's first axis is N."""

    def with_tensors(self, tensors: Sequence[Any]) -> "Factor":
        """The same kind of factor made of other tensors."""

    def per_sample(self) -> Any:
        """g_n, float (N, *shape)."""

    def squared_norm(self) -> Any:
        """‖g_n‖², float (N,)."""

    def gram(self, other: Any) -> Any:
        """g_n · h_m, float (N, M), `other` being a factor of the same kind and variable."""

    def jvp(self, tangent: Any) -> Any:
        """g_n · v, float (N,), v of the variable's shape."""

    def vjp(self, weights: Any) -> Any:
        """Σ_n c_n g_n, of the variable's shape."""

    def sum_of_squares(self, weights: Any) -> Any:
        """Σ_n c_n g_n², of the variable's shape."""

    def joined(self, other: Any) -> "Factor | None":
        """The sum of this and `other`; `None` where it has to be written out."""


@dataclass(frozen=True)
class Direct:
    """Gradients that are written out: for small variables.

    Args:
        values: float (N, *shape).
    """

    values: Any
    positions: int | None = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return tuple(self.values.shape[1:])

    @property
    def tensors(self) -> tuple[Any, ...]:
        """The gradients."""
        return (self.values,)

    def with_tensors(self, tensors: Sequence[Any]) -> "Direct":
        """Other gradients of the same variable."""
        return replace(self, values=tensors[0])

    def per_sample(self) -> Any:
        """g_n."""
        return self.values

    def squared_norm(self) -> Any:
        """Σ_j g_nj²."""
        return _sum_after(tf.square(self.values), 1)

    def gram(self, other: Any) -> Any:
        """One matrix product."""
        return tf.matmul(_matrix(self.values), _matrix(other.values), transpose_b=True)

    def jvp(self, tangent: Any) -> Any:
        """One matrix-vector product."""
        return tf.linalg.matvec(_matrix(self.values), tf.reshape(tangent, [-1]))

    def vjp(self, weights: Any) -> Any:
        """One matrix-vector product."""
        return tf.tensordot(weights, self.values, 1)

    def sum_of_squares(self, weights: Any) -> Any:
        """One matrix-vector product."""
        return tf.tensordot(weights, tf.square(self.values), 1)

    def joined(self, other: Any) -> "Factor | None":
        """Added."""
        return Direct(self.values + other.values, self.positions) if isinstance(other, Direct) else None


@dataclass(frozen=True)
class OuterProduct:
    """g = Σ_t a_t b_tᵀ, for each of G groups of channels by itself.

    Args:
        left: a, float (N, T, G, I).
        right: b, float (N, T, G, O).
        axes: sizes into which the axes (I, G, O) of g are split, in that order: their product is I · G · O.
        permutation: which of `axes` each axis of the variable is; default: as they stand.
    """

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

    @property
    def tensors(self) -> tuple[Any, ...]:
        """The two arrays, a and b."""
        return (self.left, self.right)

    def with_tensors(self, tensors: Sequence[Any]) -> "OuterProduct":
        """The same layout with other a and b."""
        return replace(self, left=tensors[0], right=tensors[1])

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
        return sum(_sum_after(tf.square(block._in_any_order()), 1) for block in self._blocks())

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
        return sum(
            tf.matmul(_matrix(mine._in_any_order()), _matrix(others._in_any_order()), transpose_b=True)
            for mine, others in zip(self._blocks(), other._blocks(), strict=True)
        )

    def jvp(self, tangent: Any) -> Any:
        """Σ_t bᵀ (Vᵀ a), without any gradient."""
        v = tf.transpose(self._from_variable(tangent), [1, 0, 2])  # (G, I, O)
        moved = tf.matmul(_rows_of_groups(self.left), v)
        product = tf.reduce_sum(moved * _rows_of_groups(self.right), axis=[0, 2])
        return _sum_after(tf.reshape(product, tf.shape(self.left)[:2]), 1)

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
        parts = [tf.tensordot(weights, tf.square(block._written_out()), 1) for block in self._blocks()]
        return self._to_variable(tf.concat(parts, axis=-1)[None])[0]

    def joined(self, other: Any) -> "Factor | None":
        """More positions: the gradients of several uses add before anything is squared."""
        same = isinstance(other, OuterProduct) and (other.axes, other.permutation) == (self.axes, self.permutation)
        if not same or other.left.shape[2:] != self.left.shape[2:]:
            return None
        left = tf.concat([self.left, other.left], axis=1)
        return replace(self, left=left, right=tf.concat([self.right, other.right], axis=1))

    def cheaper_in_pairs(self, others: int | None) -> bool:
        """Whether T² (I + O) products of pairs cost less than writing g out; `others` is T for a Gram matrix, else 1."""
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

    def _in_any_order(self) -> Any:
        """The numbers of g, (N, …), in the same order for all factors of one variable."""
        return self._turned() if self._cheaper_turned else self._written_out()

    @property
    def _cheaper_turned(self) -> bool:
        """Whether bᵀ a is faster than aᵀ b: on a CPU up to three times so, where a is the wider one and is not transposed."""
        one_group = self.left.shape[2] == 1 and self.positions != 1
        return bool(one_group and self.left.shape[-1] >= 2 * self.right.shape[-1])

    def _turned(self) -> Any:
        """The gradients of a single group, float (N, O, I)."""
        return tf.matmul(self.right[:, :, 0], self.left[:, :, 0], transpose_a=True)

    def _blocks(self) -> Iterator["OuterProduct"]:
        """Parts of the columns of b, so that each part written out is no larger than `BLOCK`."""
        width = self.right.shape[-1]
        rows = self.left.shape[0] or _TYPICAL_ROWS
        step = max(1, min(width, BLOCK // max(1, rows * self.left.shape[-1] * self.left.shape[-2])))
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


def total(factors: Sequence[Factor]) -> Factor:
    """The sum of the factors of one variable: joined where that is possible, else written out."""
    result = factors[0]
    for factor in factors[1:]:
        joined = result.joined(factor)
        result = Direct(result.per_sample() + factor.per_sample()) if joined is None else joined
    return result


def _matrix(x: Any) -> Any:
    """(N, …) to (N, ·)."""
    return x if x.shape.rank == 2 else tf.reshape(x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])])


def _rows(x: Any) -> Any:
    """(N, T, D) to (N·T, D)."""
    return tf.reshape(x, [-1, x.shape[-1]])


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


def _sum_after(x: Any, axes: int) -> Any:
    """Σ over the axes after the first `axes` ones."""
    return x if x.shape.rank == axes else tf.reduce_sum(x, axis=list(range(axes, x.shape.rank)))
