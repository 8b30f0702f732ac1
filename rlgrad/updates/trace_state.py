"""Traces, and the steps that are taken along them. `rlgrad.updates.traces` has the equations."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from rlgrad.data import Metrics
from rlgrad.updates.moves import all_finite, assign_if, values_after
from rlgrad.updates.weight_blocks import Blocks

_LANES = 16  # rows that a sum is folded into


class Steps(NamedTuple):
    """One step of each stream.

    Attributes:
        directions: in blocks, along which δ moves the weights; each float (N, …).
        sizes: float (N,), the sum of their absolute values, which the bound needs; `None` without a bound.
        rates: float (N,), the step sizes.
        active: float (N,), 1 where the bound shortened a step.
    """

    directions: list[tf.Tensor]
    sizes: tf.Tensor | None
    rates: tf.Tensor
    active: tf.Tensor


class TraceState:
    """The traces of N streams, the second moments of their steps, and the variables that they move.

    The numbers of a trace stand in blocks, those of all small variables side by side. See `Blocks`.

    Args:
        update: a `Traces`.
        variables: what is to move.
        num_envs: N.

    Attributes:
        variables: what it moves.
        num_envs: N.
    """

    def __init__(self, update: Any, variables: Sequence[keras.Variable], num_envs: int) -> None:
        self.update, self.variables, self.num_envs = update, list(variables), num_envs
        self._blocks = Blocks(variables)
        # Of each block: the traces, float (N, …), and of rules that need it the second moment v of the steps, float (…).
        self._traces = [_zeros((num_envs, *shape), "float32", "traces") for shape in self._blocks.shapes]
        moments = self._blocks.shapes if update.is_adaptive else []
        self._squares = [_zeros(shape, "float32", "squares") for shape in moments]
        self._count = _zeros((), "int64", "steps") if update.is_adaptive else None

    @property
    def traces(self) -> list[tf.Tensor]:
        """Return the traces of each of `variables`, float (N, *shape)."""
        return self._blocks.split([tf.convert_to_tensor(z) for z in self._traces], (self.num_envs,))

    @property
    def slots(self) -> list[keras.Variable]:
        """Return what a checkpoint keeps: the traces, and the second moments with their number of steps."""
        return [*self._traces, *self._squares, *([] if self._count is None else [self._count])]

    def slots_from(self, arrays: Sequence[Any]) -> list[Any] | None:
        """Return the slots in a checkpoint of an earlier version, in the order of `slots`; `None` if it has others."""
        before, lead = Blocks(self.variables, math.inf), (self.num_envs,)
        (vector,) = before.shapes
        if [array.shape for array in arrays] != [(*lead, *vector), *([] if self._count is None else [vector, ()])]:
            return None
        found = self._blocks.join(before.split(arrays[:1], lead), lead)
        if self._squares:
            found += self._blocks.join(before.split(arrays[1:2]))
        return [*map(np.asarray, found), *arrays[2:]]

    def apply_gradient(
        self, gradient: Mapping[str, tf.Tensor], *, error: Any, decay: float, ends: Any = False
    ) -> Metrics:
        """Take one step, in loops written by hand.

        Args:
            gradient: as `rlgrad.gradients.gradient` returns it, by variable path, in the order of the variables of `build`; of
                several streams as `per_sample_gradient` does.
            error: δ, a number, or float (N,).
            decay: γλ.
            ends: the episode ended: the trace is forgotten after the step. A bool, or bool (N,).

        Returns:
            `td_error`, `trace_norm`, `effective_step` and, with a bound, `bound_active`.

        Raises:
            ValueError: the gradient is not of the variables given to `build`.
            FloatingPointError: the step is not finite; nothing has moved.
        """
        lead = (self.num_envs,) if self.num_envs > 1 else ()
        expected = [(*lead, *v.shape) for v in self.variables]
        shapes = [tuple(g.shape) for g in gradient.values()]
        if shapes != expected:
            raise ValueError(
                f"Expected a gradient for the {len(expected)} variables given to build, of shapes {expected}; got {shapes}. "
                "Pass the same variables to both: `weights=` of rlgrad.gradients.gradient selects them."
            )
        every = (self.num_envs,)
        metrics = self.move(
            list(gradient.values()),
            error=tf.broadcast_to(tf.cast(error, tf.float32), every),
            decay=decay,
            cuts=tf.broadcast_to(tf.cast(ends, tf.bool), every),
            counts=tf.ones(every, tf.bool),
        )
        bad = metrics.pop("nonfinite_step")
        if tf.executing_eagerly() and int(bad) >= 0:
            raise FloatingPointError("The step is not finite: neither weights nor traces have moved.")
        return metrics

    def move(self, gradient: Sequence[tf.Tensor], *, error: Any, decay: float, cuts: Any, counts: Any) -> Metrics:
        """Take one step of each stream.

        Args:
            gradient: for each variable what enters the traces, (N, *shape); for a single stream also (*shape).
            error: δ, float (N,).
            decay: γλ.
            cuts: bool (N,), forget the trace after the step.
            counts: bool (N,), False: the stream rests, and its trace stays.

        Returns:
            Means over the streams that count, and `nonfinite_step`: 0 if the step is not finite and nothing moved, else −1.
        """
        update, counted = self.update, tf.cast(counts, tf.float32)
        share = tf.math.divide_no_nan(counted, tf.reduce_sum(counted))
        error = tf.where(counts, error, 0.0)
        if update.error_clip is not None:
            error = tf.clip_by_value(error, -update.error_clip, update.error_clip)
        entering = self._blocks.join([tf.cast(g, tf.float32) for g in gradient], (self.num_envs,))
        before = [tf.convert_to_tensor(z) for z in self._traces]
        traces = [tf.where(_over(counts, z), decay * z + new, z) for z, new in zip(before, entering, strict=True)]
        squares, count = self._second_moment(traces, error, share)
        steps = self._steps(traces, squares, count, error)
        weights = steps.rates * error * (share if update.over_streams == "mean" else counted)
        along = self._blocks.split([tf.reduce_sum(_over(weights, d) * d, axis=0) for d in steps.directions])
        cast = (tf.cast(step, v.dtype) for step, v in zip(along, self.variables, strict=True))
        values = values_after(self.variables, cast, 1.0)
        finite = self._all_finite(values, squares, weights, steps.sizes)
        kept = [tf.where(_over(cuts & counts, z), 0.0, z) for z in traces]
        assign_if(
            finite, [*self.variables, *self.slots], [*values, *kept, *squares, *([] if count is None else [count])]
        )
        norm = steps.sizes if steps.directions is traces and steps.sizes is not None else _size(traces)
        numbers = {"td_error": tf.abs(error), "trace_norm": norm, "effective_step": steps.rates}
        if update.is_bounded:
            numbers["bound_active"] = steps.active
        metrics: Metrics = {name: tf.reduce_sum(tf.where(counts, x, 0.0) * share) for name, x in numbers.items()}
        return metrics | {"nonfinite_step": tf.where(finite, -1, 0)}

    def _second_moment(
        self, traces: list[tf.Tensor], error: tf.Tensor, share: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor | None]:
        """Return v after this step, of the mean over the streams, and the number of steps; unchanged if no stream counts."""
        if self._count is None:
            return [], None
        counts = tf.reduce_sum(share) > 0.0
        beta = tf.where(counts, self.update.beta_2, 1.0)
        squares = []
        for v, z in zip(self._squares, traces, strict=True):
            mean = tf.reduce_sum(_over(share, z) * tf.square(_over(error, z) * z), axis=0)
            squares.append(beta * tf.convert_to_tensor(v) + (1.0 - beta) * mean)
        return squares, tf.convert_to_tensor(self._count) + tf.cast(counts, tf.int64)

    def _steps(
        self, traces: list[tf.Tensor], squares: list[tf.Tensor], count: tf.Tensor | None, error: tf.Tensor
    ) -> Steps:
        """Return the directions and the step sizes of the rule."""
        update, directions = self.update, traces
        if squares:
            # 1 − βᵗ without the digits that float32 loses near 1.
            t = tf.cast(tf.maximum(count, 1), tf.float32)
            correction = -tf.math.expm1(t * math.log(update.beta_2))
            corrected = [v / correction for v in squares]
            if update.step == "adam":
                scales = [tf.sqrt(v) + update.epsilon for v in corrected]
            else:
                scales = [tf.sqrt(v + update.epsilon) for v in corrected]
            directions = [z / scale for z, scale in zip(traces, scales, strict=True)]
        alpha = 1.0 if update.learning_rate is None else update.learning_rate
        if not update.is_bounded:
            return Steps(directions, None, tf.fill(tf.shape(error), alpha), tf.zeros_like(error))
        sizes = _size(directions)
        bound = alpha * update.kappa * tf.maximum(tf.abs(error), 1.0) * sizes
        return Steps(directions, sizes, alpha / tf.maximum(bound, 1.0), tf.cast(bound > 1.0, tf.float32))

    def _all_finite(
        self, values: list[tf.Tensor], squares: list[tf.Tensor], weights: tf.Tensor, sizes: tf.Tensor | None
    ) -> tf.Tensor:
        """Return True, bool (), if the step leaves finite numbers.

        A bounded step adds at most 1/κ to a finite weight, so it is finite if the size of its direction is. To look at each
        weight would take as long as to move it.
        """
        if sizes is None or squares:
            return all_finite([*values, *squares, weights])
        constrained = [x for v, x in zip(self.variables, values, strict=True) if getattr(v, "constraint", None)]
        return all_finite([weights, sizes, *constrained])


def _size(blocks: list[tf.Tensor]) -> tf.Tensor:
    """Return the sum of absolute values of each stream, float (N,)."""
    return tf.add_n([_folded(tf.abs(block)) for block in blocks])


def _folded(sizes: tf.Tensor) -> tf.Tensor:
    """Return the sum over all axes but the first of numbers that are not negative."""
    # Columns are summed side by side in vector registers, a single long sum number by number. XLA makes one long sum of two
    # sums again, unless something stands between them.
    sizes = tf.reshape(sizes, (sizes.shape[0], -1))
    if sizes.shape[1] >= _LANES * _LANES:
        sizes = tf.pad(sizes, [[0, 0], [0, -sizes.shape[1] % _LANES]])
        sizes = tf.maximum(tf.reduce_sum(tf.reshape(sizes, (sizes.shape[0], _LANES, -1)), axis=1), 0.0)
    return tf.reduce_sum(sizes, axis=1)


def _over(numbers: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
    """Return a number for each stream, (N,), in a shape that goes with a block, (N, …)."""
    return tf.reshape(numbers, (-1, *[1] * (block.shape.rank - 1)))


def _zeros(shape: tuple[int, ...], dtype: str, name: str) -> keras.Variable:
    return keras.Variable(tf.zeros(shape, dtype), dtype=dtype, trainable=False, name=name)
