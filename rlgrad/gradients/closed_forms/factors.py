"""Per-sample gradients of one variable, in a form that need not be written out; and the one that is written out.

`OuterProduct` and `Lookup` are the others. Each quantity is contracted from what the form is made of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Protocol, Self

import tensorflow as tf

# A gradient that is written out on the way to something smaller is written out in blocks of about this many numbers.
BLOCK = 2**25
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
        """The tensors of the factor; the first axis of each is N."""

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


class MadeOfTensors:
    """The part that all forms share: a dataclass, some of whose fields are tensors with one row per sample."""

    _TENSORS: ClassVar[tuple[str, ...]]

    @property
    def tensors(self) -> tuple[Any, ...]:
        """The tensors, in the order of their fields."""
        return tuple([getattr(self, name) for name in self._TENSORS])

    def with_tensors(self, tensors: Sequence[Any]) -> Self:
        """The same form made of other tensors."""
        form: Any = self
        changed: Self = replace(form, **dict(zip(self._TENSORS, tensors, strict=True)))
        return changed


@dataclass(frozen=True)
class Direct(MadeOfTensors):
    """Gradients that are written out: for small variables.

    Args:
        values: float (N, *shape).
        positions: T, the number of times that one sample uses the weights, which `plan` shows; `None`: not known.
    """

    _TENSORS = ("values",)
    values: Any
    positions: int | None = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return tuple(self.values.shape[1:])

    def per_sample(self) -> Any:
        """g_n."""
        return self.values

    def squared_norm(self) -> Any:
        """Σ_j g_nj²."""
        return sum_after(tf.square(self.values), 1)

    def gram(self, other: Any) -> Any:
        """One matrix product."""
        return tf.matmul(matrix(self.values), matrix(other.values), transpose_b=True)

    def jvp(self, tangent: Any) -> Any:
        """One matrix-vector product."""
        return tf.linalg.matvec(matrix(self.values), tf.reshape(tangent, [-1]))

    def vjp(self, weights: Any) -> Any:
        """One matrix-vector product."""
        return tf.tensordot(weights, self.values, 1)

    def sum_of_squares(self, weights: Any) -> Any:
        """One matrix-vector product."""
        return tf.tensordot(weights, tf.square(self.values), 1)

    def joined(self, other: Any) -> "Factor | None":
        """Added."""
        return Direct(self.values + other.values, self.positions) if isinstance(other, Direct) else None


def total(parts: Sequence[Factor]) -> Factor:
    """The sum of the factors of one variable: joined where that is possible, else written out."""
    # In pairs rather than one after the other: a joined factor is copied, and an unrolled layer has as many as steps.
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [_sum(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]


def _sum(one: Factor, other: Factor) -> Factor:
    joined = one.joined(other)
    return Direct(one.per_sample() + other.per_sample()) if joined is None else joined


def block(*sizes: int | None) -> int:
    """How many arrays of these sizes fit into a block; a size that is not known when tracing is a number of samples."""
    return max(1, BLOCK // max(1, prod(_TYPICAL_ROWS if size is None else size for size in sizes)))


def matrix(x: Any) -> Any:
    """(N, …) to (N, ·)."""
    return x if x.shape.rank == 2 else tf.reshape(x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])])


def sum_after(x: Any, axes: int) -> Any:
    """Σ over the axes after the first `axes` ones."""
    return x if x.shape.rank == axes else tf.reduce_sum(x, axis=list(range(axes, x.shape.rank)))
