"""The recipes of outputs with units: all units of a head, those of one of its entries, and their sums with weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from rlgrad.gradients.questions.heads import Heads, shape_text
from rlgrad.gradients.questions.recipes import Arrays, Weighed, require_batch, sum_units, widened


@dataclass(frozen=True)
class Units:
    """A head with all its units."""

    head: str | None
    cacheable = True

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return nothing: there are no arrays."""
        return []

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Return y."""
        y = heads.tensor(self.head)
        heads.units = y.shape.rank - heads.batch_rank
        return y


@dataclass(frozen=True)
class ChosenEntry:
    """y[a]: one entry, for each sample, along the first axis that follows those of the actions."""

    head: str | None
    cacheable = True

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return the actions, int (batch…)."""
        (given,) = arrays
        actions = given if isinstance(given, tf.Tensor) else tf.convert_to_tensor(given)
        if not actions.dtype.is_integer:
            raise TypeError(f"Chosen takes integer actions, got {actions.dtype.name}.")
        if actions.shape.rank == 0:
            raise ValueError("Chosen takes one action for each sample, int (N,), got a single number.")
        return [actions]

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Return y[a], without the axis of the actions."""
        y = heads.tensor(self.head)
        position, actions = next(arrays)
        axis = actions.shape.rank
        if axis < heads.batch_rank:
            require_batch(actions, y.shape[: heads.batch_rank], heads, "Actions (one per sample)")
        if y.shape.rank <= axis:
            raise ValueError(
                f"Actions of shape {shape_text(actions.shape, heads.batch_size)} choose among entries along axis {axis} of "
                f"the output, which has the shape {shape_text(y.shape, heads.batch_size)} and no such axis."
            )
        require_batch(actions, y.shape[:axis], heads, "Actions (one per sample)")
        heads.require_range(position, actions, y.shape[axis], "Actions")
        # A mask rather than a gather: its gradient is dense, and nothing in it loops when vectorized.
        mask = tf.one_hot(actions, tf.shape(y)[axis], on_value=True, off_value=False, dtype=tf.bool)
        units = y.shape.rank - axis - 1
        mask = tf.reshape(mask, tf.concat([tf.shape(mask), [1] * units], axis=0)) if units else mask
        heads.units = units
        return tf.reduce_sum(tf.where(mask, y, tf.zeros_like(y)), axis=axis)


@dataclass(frozen=True)
class OverUnits(Weighed):
    """Σ_k w_k f_k: one number for each sample where the term has a vector."""

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Return one number for each sample, float (batch…)."""
        _, weights = next(arrays)
        heads.units = 0
        value = widened(self.term.value(heads, arrays, False))
        batch_rank = value.shape.rank - heads.units
        heads.units = 0
        if weights.shape.rank == batch_rank < value.shape.rank:  # one number for all units of a sample
            require_batch(weights, value.shape[:batch_rank], heads, "Weights of the samples")
            return tf.cast(weights, value.dtype) * sum_units(value, batch_rank)
        require_batch(weights, value.shape, heads, "Weights of the units")
        return sum_units(tf.cast(weights, value.dtype) * value, batch_rank)
