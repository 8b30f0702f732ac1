"""Traces, and the steps that are taken along them. `rlgrad.updates.traces` has the equations."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from rlgrad.data import Metrics
from rlgrad.updates.moves import all_finite, assign_if, values_after


class Steps(NamedTuple):
    """One step of each stream.

    Attributes:
        directions: for each variable (N, *shape), along which δ moves it.
        rates: float (N,), the step sizes.
        active: float (N,), 1 where the bound shortened a step.
    """

    directions: list[tf.Tensor]
    rates: tf.Tensor
    active: tf.Tensor


class TraceState:
    """The traces of N streams, the second moments of their steps, and the variables that they move.

    Args:
        update: a `Traces`.
        variables: what is to move.
        num_envs: N.

    Attributes:
        variables: what it moves.
        num_envs: N.
        traces: for each variable (N, *shape).
        squares: for each variable (*shape), the second moment v of its steps; none if the rule needs none.
        count: steps taken, int64 ().
    """

    def __init__(self, update: Any, variables: Sequence[keras.Variable], num_envs: int) -> None:
        self.update, self.variables, self.num_envs = update, list(variables), num_envs
        self.traces = [_zeros((num_envs, *v.shape), v.dtype, f"trace_{i}") for i, v in enumerate(variables)]
        self.squares: list[keras.Variable] = []
        self.count: keras.Variable | None = None
        if update.is_adaptive:
            self.squares = [_zeros(tuple(v.shape), v.dtype, f"square_{i}") for i, v in enumerate(variables)]
            self.count = _zeros((), "int64", "steps")

    @property
    def slots(self) -> list[keras.Variable]:
        """Return what a checkpoint keeps: the traces, and the second moments with their number of steps."""
        return [*self.traces, *self.squares, *([] if self.count is None else [self.count])]

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
        several = self.num_envs > 1
        lead = (self.num_envs,) if several else ()
        expected = [(*lead, *v.shape) for v in self.variables]
        shapes = [tuple(g.shape) for g in gradient.values()]
        if shapes != expected:
            raise ValueError(
                f"Expected a gradient for the {len(expected)} variables given to build, of shapes {expected}; got {shapes}. "
                "Pass the same variables to both: `weights=` of rlgrad.gradients.gradient selects them."
            )
        metrics = self.move(
            [tf.convert_to_tensor(g) if several else g[None] for g in gradient.values()],
            error=tf.broadcast_to(tf.cast(error, tf.float32), (self.num_envs,)),
            decay=decay,
            cuts=tf.broadcast_to(tf.cast(ends, tf.bool), (self.num_envs,)),
            counts=tf.ones((self.num_envs,), tf.bool),
        )
        bad = metrics.pop("nonfinite_step")
        if tf.executing_eagerly() and int(bad) >= 0:
            raise FloatingPointError("The step is not finite: neither weights nor traces have moved.")
        return metrics

    def move(self, gradient: Sequence[tf.Tensor], *, error: Any, decay: float, cuts: Any, counts: Any) -> Metrics:
        """Take one step of each stream.

        Args:
            gradient: for each variable (N, *shape), what enters the traces.
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
        keeps = tf.where(counts, decay, 1.0)
        traces = [
            _rows(keeps, z) * z + tf.where(_rows(counts, g), g, 0.0)
            for z, g in zip(map(tf.convert_to_tensor, self.traces), gradient, strict=True)
        ]
        squares, count = self._second_moments(traces, error, share)
        steps = self._steps(traces, squares, count, error)
        weights = steps.rates * error * (share if update.over_streams == "mean" else counted)
        along = [tf.tensordot(tf.cast(weights, d.dtype), d, 1) for d in steps.directions]
        values = values_after(self.variables, along, 1.0)
        finite = all_finite([*values, *squares, weights])
        kept = [tf.where(_rows(cuts & counts, z), tf.zeros_like(z), z) for z in traces]
        assign_if(
            finite, [*self.variables, *self.slots], [*values, *kept, *squares, *([] if count is None else [count])]
        )
        numbers = {"td_error": tf.abs(error), "trace_norm": _size(traces), "effective_step": steps.rates}
        if update.is_bounded:
            numbers["bound_active"] = steps.active
        metrics: Metrics = {name: tf.reduce_sum(tf.where(counts, x, 0.0) * share) for name, x in numbers.items()}
        return metrics | {"nonfinite_step": tf.where(finite, -1, 0)}

    def _second_moments(
        self, traces: Sequence[tf.Tensor], error: tf.Tensor, share: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor | None]:
        """Return v after this step, of the mean over the streams, and the number of steps; unchanged if no stream counts."""
        if self.count is None:
            return [], None
        counts = tf.reduce_sum(share) > 0.0
        beta = tf.where(counts, self.update.beta_2, 1.0)
        squares = []
        for before, z in zip(self.squares, traces, strict=True):
            step = tf.square(_rows(error, z) * z)
            mean = tf.tensordot(tf.cast(share, step.dtype), step, 1)
            squares.append(
                tf.cast(beta, mean.dtype) * tf.convert_to_tensor(before) + tf.cast(1.0 - beta, mean.dtype) * mean
            )
        return squares, tf.convert_to_tensor(self.count) + tf.cast(counts, tf.int64)

    def _steps(
        self, traces: list[tf.Tensor], squares: Sequence[tf.Tensor], count: tf.Tensor | None, error: tf.Tensor
    ) -> Steps:
        """Return the directions and the step sizes of the rule."""
        update, directions = self.update, traces
        if count is not None:
            # 1 − βᵗ without the digits that float32 loses near 1.
            passed = -tf.math.expm1(tf.cast(tf.maximum(count, 1), tf.float32) * math.log(max(update.beta_2, 1e-38)))
            corrected = [v / tf.cast(passed, v.dtype) for v in squares]
            if update.step == "adam":
                scales = [tf.sqrt(v) + update.epsilon for v in corrected]
            else:
                scales = [tf.sqrt(v + update.epsilon) for v in corrected]
            directions = [z / scale for z, scale in zip(traces, scales, strict=True)]
        alpha = 1.0 if update.learning_rate is None else update.learning_rate
        if not update.is_bounded:
            return Steps(directions, tf.fill(tf.shape(error), alpha), tf.zeros_like(error))
        bound = alpha * update.kappa * tf.maximum(tf.abs(error), 1.0) * _size(directions)
        return Steps(directions, alpha / tf.maximum(bound, 1.0), tf.cast(bound > 1.0, tf.float32))


def _size(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the sum of absolute values over all tensors (N, *shape), float32 (N,)."""
    sums = [tf.reduce_sum(tf.abs(tf.cast(x, tf.float32)), axis=list(range(1, x.shape.rank))) for x in tensors]
    return tf.add_n(sums)


def _rows(numbers: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Return numbers (N,), or truth values, in a shape that multiplies tensors (N, *shape)."""
    shaped = tf.reshape(numbers, (-1, *[1] * (like.shape.rank - 1)))
    return shaped if shaped.dtype == tf.bool else tf.cast(shaped, like.dtype)


def _zeros(shape: tuple[int, ...], dtype: str, name: str) -> keras.Variable:
    return keras.Variable(tf.zeros(shape, dtype), dtype=dtype, trainable=False, name=name)
