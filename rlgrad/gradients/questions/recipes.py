"""How to compute each kind of output from what a model returned. Recipes are frozen, hashable, and hold no arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from rlgrad.gradients.questions.heads import Heads, shape_text

# The arrays of one output, each with its position, in the order in which its recipe takes them.
Arrays = Iterator[tuple[int, Any]]


class Recipe(Protocol):
    """How to compute an output. Equal recipes share compiled programs, so they must be hashable."""

    @property
    def cacheable(self) -> bool:
        """`True` if equal recipes always compute the same thing."""

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return the arrays as tensors, checked as far as that is possible without running the model."""

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Return f, float (batch…); with `per_unit`, outputs that have units keep the axes of these."""


@dataclass(frozen=True)
class Whole:
    """A head, summed over its units (axes after the batch axes), as `K.gradients` did."""

    head: str | None
    cacheable = True

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return nothing: there are no arrays."""
        return []

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Return Σ_k y_k, or all y_k."""
        y = heads.tensor(self.head)
        return y if per_unit else sum_units(y, heads.batch_rank)


@dataclass(frozen=True)
class Unit:
    """One unit of the last axis of a head, the same for all samples (from the end if negative) or one per sample."""

    head: str | None
    cacheable = True

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return the unit number () or numbers (batch…)."""
        return [_as_integers(arrays[0])]

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Return y_k, summed over the axes between batch and units (the positions of a convolution)."""
        y = heads.tensor(self.head)
        position, unit = next(arrays)
        if y.shape.rank <= heads.batch_rank:
            raise ValueError(
                f"A unit was chosen of an output of shape {shape_text(y.shape, heads.batch_size)}, which has no axis "
                "of units. Leave the unit out."
            )
        heads.require_range(position, unit, y.shape[-1], "Units of this output")
        if unit.shape.rank:
            require_batch(unit, y.shape[: heads.batch_rank], heads, "Units (one per sample)")
            between = y.shape.rank - 1 - heads.batch_rank
            unit = tf.reshape(unit, tf.concat([tf.shape(unit), [1] * between], axis=0))
        else:
            unit = tf.where(unit < 0, unit + tf.cast(tf.shape(y)[-1], unit.dtype), unit)
        # A mask rather than a gather: its gradient is dense, and nothing in it loops when vectorized.
        chosen = tf.one_hot(unit, tf.shape(y)[-1], on_value=True, off_value=False, dtype=tf.bool)
        return sum_units(tf.where(chosen, y, tf.zeros_like(y)), heads.batch_rank)


@dataclass(frozen=True)
class Sum:
    """Σ_i scale_i f_i. The scales are arrays, so that changing one compiles nothing."""

    terms: tuple[Recipe, ...]
    counts: tuple[int, ...]

    @property
    def cacheable(self) -> bool:
        """`True` if all terms are cacheable."""
        return all(term.cacheable for term in self.terms)

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return for each term its scale, then its own arrays."""
        prepared: list[Any] = []
        start = 0
        for term, count in zip(self.terms, self.counts, strict=True):
            scale = arrays[start]
            prepared.append(scale if tf.is_tensor(scale) else tf.constant(scale, tf.float64))
            prepared += term.prepare(model, arrays[start + 1 : start + 1 + count])
            start += 1 + count
        return prepared

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Add the terms, which must have one shape: adding (N,) to (N, K) would broadcast."""
        total, units = None, 0
        for term in self.terms:
            _, scale = next(arrays)
            heads.units = 0
            value = widened(term.value(heads, arrays, False))
            scaled = tf.cast(scale, value.dtype) * value
            if total is None:
                total, units = scaled, heads.units
                continue
            if not scaled.shape.is_compatible_with(total.shape) or scaled.shape.rank != total.shape.rank:
                sum_of = "one number per sample" if not units and not heads.units else "one vector per sample"
                raise ValueError(
                    f"Outputs of shapes {shape_text(total.shape, heads.batch_size)} and "
                    f"{shape_text(scaled.shape, heads.batch_size)} do not add up to {sum_of}."
                )
            total, units = total + tf.cast(scaled, total.dtype), max(units, heads.units)
        heads.units = units
        return total


@dataclass(frozen=True)
class Weighed:
    """A term under weights, which are its first array: what adds them up differs."""

    term: Recipe

    @property
    def cacheable(self) -> bool:
        """`True` if the term is cacheable."""
        return self.term.cacheable

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return the weights, then the term's own arrays."""
        weights = arrays[0] if tf.is_tensor(arrays[0]) else tf.constant(arrays[0], tf.float32)
        return [weights, *self.term.prepare(model, arrays[1:])]


@dataclass(frozen=True)
class OverTime(Weighed):
    """Σ_t w_t f_t of a sequence: one number where the term has one for each step."""

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Return one number for each sequence, float (N,)."""
        _, weights = next(arrays)
        value = widened(self.term.value(heads, arrays, False))
        if value.shape.rank < 2:
            raise ValueError(
                f"PerSequence adds up one number for each step of a sequence, (N, T), and this output has the shape "
                f"{shape_text(value.shape, heads.batch_size)}: leave PerSequence out."
            )
        if weights.shape.rank:
            if weights.shape.rank == 2 < value.shape.rank:  # one number for all units of a step
                require_batch(weights, value.shape[:2], heads, "Weights of the steps")
                weights = tf.reshape(weights, tf.concat([tf.shape(weights), [1] * (value.shape.rank - 2)], axis=0))
            else:
                require_batch(weights, value.shape, heads, "Weights of the steps")
        heads.units = 0
        return sum_units(tf.cast(weights, value.dtype) * value, 1)


def require_batch(array: Any, expected: Any, heads: Heads, what: str) -> None:
    """Raise unless an array has the expected shape: broadcasting would give wrong numbers."""
    if not array.shape.is_compatible_with(expected):
        raise ValueError(
            f"{what} have shape {shape_text(expected, heads.batch_size)}, got "
            f"{shape_text(array.shape, heads.batch_size)}."
        )


def widened(value: Any) -> Any:
    """Return a value that can be scaled by anything: float16 has no number below 6e-8."""
    return tf.cast(value, tf.float32) if value.dtype.size < 4 else value


def _as_integers(array: Any) -> Any:
    return array if tf.is_tensor(array) else tf.constant(array, tf.int32)


def sum_units(y: Any, batch_rank: int) -> Any:
    """Sum over the axes that follow the first `batch_rank` ones."""
    return y if y.shape.rank == batch_rank else tf.reduce_sum(y, axis=list(range(batch_rank, y.shape.rank)))
