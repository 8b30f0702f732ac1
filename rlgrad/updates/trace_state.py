"""Traces, and the steps that are taken along them. `rlgrad.updates.traces` has the equations."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from rlgrad.data import Metrics
from rlgrad.updates.moves import all_finite, assign_if, values_after

_LANES = 16  # rows that a sum is folded into


class Steps(NamedTuple):
    """One step of each stream.

    Attributes:
        directions: float (N, P), along which δ moves the weights.
        sizes: float (N,), the sum of their absolute values, which the bound needs; `None` without a bound.
        rates: float (N,), the step sizes.
        active: float (N,), 1 where the bound shortened a step.
    """

    directions: tf.Tensor
    sizes: tf.Tensor | None
    rates: tf.Tensor
    active: tf.Tensor


class TraceState:
    """The traces of N streams, the second moments of their steps, and the variables that they move.

    All P numbers of a trace stand side by side: a compiled step has a fixed cost per variable, which exceeds that of the
    arithmetic at one row.

    Args:
        update: a `Traces`.
        variables: what is to move.
        num_envs: N.

    Attributes:
        variables: what it moves.
        num_envs: N.
        traces: float (N, P), in the order of the variables.
        squares: float (P,), the second moment v of the steps; `None` if the rule needs none.
        count: steps taken, int64 (); `None` likewise.
    """

    def __init__(self, update: Any, variables: Sequence[keras.Variable], num_envs: int) -> None:
        self.update, self.variables, self.num_envs = update, list(variables), num_envs
        self._sizes = [math.prod(v.shape) for v in variables]
        self.traces = _zeros((num_envs, sum(self._sizes)), "float32", "traces")
        self.squares = _zeros((sum(self._sizes),), "float32", "squares") if update.is_adaptive else None
        self.count = _zeros((), "int64", "steps") if update.is_adaptive else None

    @property
    def slots(self) -> list[keras.Variable]:
        """Return what a checkpoint keeps: the traces, and the second moments with their number of steps."""
        return [slot for slot in (self.traces, self.squares, self.count) if slot is not None]

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
        entering = tf.concat([tf.reshape(tf.cast(g, tf.float32), (self.num_envs, -1)) for g in gradient], axis=1)
        traces = tf.convert_to_tensor(self.traces)
        traces = tf.where(counts[:, None], decay * traces + entering, traces)
        squares, count = self._second_moment(traces, error, share)
        steps = self._steps(traces, squares, count, error)
        weights = steps.rates * error * (share if update.over_streams == "mean" else counted)
        along = tf.split(tf.linalg.matvec(steps.directions, weights, transpose_a=True), self._sizes)
        values = values_after(self.variables, map(_shaped, along, self.variables), 1.0)
        finite = self._all_finite(values, squares, weights, steps.sizes)
        kept = tf.where((cuts & counts)[:, None], 0.0, traces)
        after = [slot for slot in (kept, squares, count) if slot is not None]
        assign_if(finite, [*self.variables, *self.slots], [*values, *after])
        norm = steps.sizes if steps.directions is traces and steps.sizes is not None else _size(traces)
        numbers = {"td_error": tf.abs(error), "trace_norm": norm, "effective_step": steps.rates}
        if update.is_bounded:
            numbers["bound_active"] = steps.active
        metrics: Metrics = {name: tf.reduce_sum(tf.where(counts, x, 0.0) * share) for name, x in numbers.items()}
        return metrics | {"nonfinite_step": tf.where(finite, -1, 0)}

    def _second_moment(
        self, traces: tf.Tensor, error: tf.Tensor, share: tf.Tensor
    ) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        """Return v after this step, of the mean over the streams, and the number of steps; unchanged if no stream counts."""
        if self.squares is None or self.count is None:
            return None, None
        counts = tf.reduce_sum(share) > 0.0
        beta = tf.where(counts, self.update.beta_2, 1.0)
        mean = tf.linalg.matvec(tf.square(error[:, None] * traces), share, transpose_a=True)
        squares = beta * tf.convert_to_tensor(self.squares) + (1.0 - beta) * mean
        return squares, tf.convert_to_tensor(self.count) + tf.cast(counts, tf.int64)

    def _steps(self, traces: tf.Tensor, squares: tf.Tensor | None, count: tf.Tensor | None, error: tf.Tensor) -> Steps:
        """Return the directions and the step sizes of the rule."""
        update, directions = self.update, traces
        if squares is not None:
            # 1 − βᵗ without the digits that float32 loses near 1.
            t = tf.cast(tf.maximum(count, 1), tf.float32)
            corrected = squares / -tf.math.expm1(t * math.log(update.beta_2))
            if update.step == "adam":
                directions = traces / (tf.sqrt(corrected) + update.epsilon)
            else:
                directions = traces / tf.sqrt(corrected + update.epsilon)
        alpha = 1.0 if update.learning_rate is None else update.learning_rate
        if not update.is_bounded:
            return Steps(directions, None, tf.fill(tf.shape(error), alpha), tf.zeros_like(error))
        sizes = _size(directions)
        bound = alpha * update.kappa * tf.maximum(tf.abs(error), 1.0) * sizes
        return Steps(directions, sizes, alpha / tf.maximum(bound, 1.0), tf.cast(bound > 1.0, tf.float32))

    def _all_finite(
        self, values: Sequence[tf.Tensor], squares: tf.Tensor | None, weights: tf.Tensor, sizes: tf.Tensor | None
    ) -> tf.Tensor:
        """Return True, bool (), if the step leaves finite numbers.

        A bounded step adds at most 1/κ to a finite weight, so it is finite if the size of its direction is. To look at each
        weight would take as long as to move it.
        """
        if sizes is None or squares is not None:
            return all_finite([*values, *([] if squares is None else [squares]), weights])
        constrained = [x for v, x in zip(self.variables, values, strict=True) if getattr(v, "constraint", None)]
        return all_finite([weights, sizes, *constrained])


def _size(traces: tf.Tensor) -> tf.Tensor:
    """Return the sum of absolute values of each row, float (N,)."""
    sums = tf.abs(traces)
    # Columns are summed side by side in vector registers, a single long sum number by number: a third of the time under XLA.
    while sums.shape[1] >= _LANES * _LANES:
        sums = tf.pad(sums, [[0, 0], [0, -sums.shape[1] % _LANES]])
        sums = tf.reduce_sum(tf.reshape(sums, (sums.shape[0], _LANES, -1)), axis=1)
    return tf.reduce_sum(sums, axis=1)


def _shaped(numbers: tf.Tensor, variable: keras.Variable) -> tf.Tensor:
    return tf.cast(tf.reshape(numbers, variable.shape), variable.dtype)


def _zeros(shape: tuple[int, ...], dtype: str, name: str) -> keras.Variable:
    return keras.Variable(tf.zeros(shape, dtype), dtype=dtype, trainable=False, name=name)
