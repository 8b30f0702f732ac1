"""Segments: rows, such as the steps of one trajectory, whose gradients are summed before anything else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Factor


@dataclass(frozen=True)
class Segmented:
    """A factor whose rows are Σ_{n in segment s} g_n, for each segment s.

    Args:
        steps: the factor of the N rows.
        ids: int (N,), which segment each row belongs to.
        count: S, the number of segments.
    """

    steps: Factor
    ids: Any
    count: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return self.steps.shape

    @property
    def positions(self) -> int | None:
        """Not known: the number depends on how many rows a segment has."""
        return None

    @property
    def tensors(self) -> tuple[Any, ...]:
        """The tensors of the rows' factor."""
        return self.steps.tensors

    def with_tensors(self, tensors: Sequence[Any]) -> "Segmented":
        """Other rows in the same segments."""
        return replace(self, steps=self.steps.with_tensors(tensors))

    def per_sample(self) -> Any:
        """(S, *shape)."""
        return self._sum(self.steps.per_sample())

    def squared_norm(self) -> Any:
        """Σ over pairs of rows of one segment."""
        same = self.ids[:, None] == self.ids[None, :]
        pairs = self.steps.gram(self.steps)
        return self._sum(tf.reduce_sum(tf.where(same, pairs, tf.zeros_like(pairs)), axis=1))

    def gram(self, other: Any) -> Any:
        """Σ over pairs of rows of two segments."""
        rows = self._sum(self.steps.gram(other.steps))
        return tf.transpose(other._sum(tf.transpose(rows)))

    def jvp(self, tangent: Any) -> Any:
        """(S,)."""
        return self._sum(self.steps.jvp(tangent))

    def vjp(self, weights: Any) -> Any:
        """Σ of the rows, each weighted as its segment is."""
        return self.steps.vjp(tf.gather(weights, self.ids))

    def sum_of_squares(self, weights: Any) -> Any:
        """Σ of squared sums, which are written out for each segment."""
        return tf.tensordot(weights, tf.square(self.per_sample()), 1)

    def joined(self, other: Any) -> Factor | None:
        """The sum of two factors of the same segments."""
        if not isinstance(other, Segmented):
            return None
        steps = self.steps.joined(other.steps)
        return None if steps is None else replace(self, steps=steps)

    def _sum(self, rows: Any) -> Any:
        return tf.math.unsorted_segment_sum(rows, self.ids, self.count)


def prepare_segments(segments: Any, num_segments: Any, rows: int | None) -> dict[str, Any]:
    """Return segments as tensors: ids (N,) and their number; nothing if there are no segments.

    Raises:
        TypeError: the ids are not integers.
        ValueError: not one id for each row; ids that no segment has.
    """
    if segments is None:
        if num_segments is not None:
            raise ValueError("num_segments= is the number of segments, but segments= is missing.")
        return {}
    ids = segments if tf.is_tensor(segments) else tf.convert_to_tensor(np.asarray(segments))
    if not ids.dtype.is_integer:
        raise TypeError(f"segments= holds the number of the segment that each row belongs to, got {ids.dtype.name}.")
    if ids.shape.rank != 1 or (rows is not None and ids.shape[0] not in (None, rows)):
        raise ValueError(f"segments= has one number for each row of the input, shape ({rows},), got {ids.shape}.")
    ids = tf.cast(ids, tf.int32)
    known = tf.get_static_value(ids)
    if known is not None:
        top = int(known.max(initial=-1)) + 1
        if known.size and (known.min() < 0 or (isinstance(num_segments, int) and top > num_segments)):
            raise ValueError(
                f"segments= counts from 0{'' if num_segments is None else f' to {num_segments - 1}'}, got numbers from "
                f"{int(known.min())} to {top - 1}."
            )
        num_segments = top if num_segments is None else num_segments
    count = tf.reduce_max(ids) + 1 if num_segments is None else num_segments
    return {"segments": ids, "num_segments": tf.cast(count, tf.int32)}


def part(factor: Factor, rows: slice, count: Any) -> Factor:
    """Return a factor of some of the rows; if it has segments, of `count` segments."""
    if isinstance(factor, Segmented):
        return Segmented(part(factor.steps, rows, count), factor.ids[rows], count)
    return factor.with_tensors([tensor[rows] for tensor in factor.tensors])


@dataclass(frozen=True)
class Packing:
    """Rows in chunks of whole segments, so that no segment's sum is cut.

    Args:
        chunks: for each chunk its rows, and for each row its segment, counted from 0 within the chunk.
        present: the segments that have rows, in the order of the chunks.
        count: S, the number of segments.
    """

    chunks: tuple[tuple[np.ndarray, np.ndarray], ...]
    present: np.ndarray
    count: int

    @property
    def largest(self) -> int:
        """The number of rows of the largest chunk: a segment that is larger than a chunk is one by itself."""
        return max(len(rows) for rows, _ in self.chunks)

    def spread(self, whole: Any, axis: int = 0) -> Any:
        """Turn an axis of the chunks' segments, one after the other, into one of all S; those without rows are zero."""
        if np.array_equal(self.present, np.arange(self.count)):
            return whole
        places = np.full(self.count, len(self.present))
        places[self.present] = np.arange(len(self.present))
        padding = [[0, int(k == axis)] for k in range(whole.shape.rank)]
        return tf.gather(tf.pad(whole, padding), places, axis=axis)


def pack_segments(segments: dict[str, Any], size: int) -> Packing:
    """Put segments, in the order of their numbers, into chunks of at most `size` rows.

    Raises:
        ValueError: the numbers are not known when tracing.
    """
    ids, count = (tf.get_static_value(segments[name]) for name in ("segments", "num_segments"))
    if ids is None or count is None:
        raise ValueError(
            "chunk_size= puts whole segments into chunks, so segments= (and num_segments=) must be known when tracing: "
            "pass a NumPy array from outside of the tf.function, or leave chunk_size out."
        )
    order = np.argsort(ids, kind="stable")
    present, starts = np.unique(ids[order], return_index=True)
    chunks: list[list[np.ndarray]] = []
    for segment in np.split(order, starts[1:]):
        if not chunks or sum(map(len, chunks[-1])) + len(segment) > size:
            chunks.append([])
        chunks[-1].append(segment)
    numbered = ((np.concatenate(c), np.repeat(np.arange(len(c)), [len(rows) for rows in c])) for c in chunks)
    return Packing(tuple((rows, numbers.astype(np.int32)) for rows, numbers in numbered), present, int(count))
