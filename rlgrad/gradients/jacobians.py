"""One gradient per sample and unit."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.programs import compiled
from rlgrad.gradients.programs.backward import dense, require_connected
from rlgrad.gradients.programs.capture import closed_forms, remaining
from rlgrad.gradients.programs.repeated import repeatable
from rlgrad.gradients.programs.taps import recording, taps_of
from rlgrad.gradients.programs.vectorized import map_samples, vectorized
from rlgrad.gradients.questions.heads import shape_text
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.posing import pose
from rlgrad.gradients.questions.problem import SINGLE, Notes, Problem, one_of_zeros

MAX_UNITS = 64  # each unit is a backward pass of its own in the traced function


@repeatable
def jacobian(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
) -> dict[str, Any]:
    """c_n ∇θ y_k(x_n), for each sample n and each unit k by itself.

    Takes N · K · P numbers of memory. One forward pass, and for each unit a backward pass of the whole batch that stops
    short of the weights: what the layers were given is the same for all units. `plan` says which variables have such a
    closed form; the others, and all where there are more than 64 units, take one sample after the other, vectorized.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        output: see `gradient`, except that an output with units keeps them: `None` and a head's name are not summed,
            and a function may return (N, K).
        layer: see `gradient`.
        weights: see `gradient`.
        sample_weight: c, float (N,); default 1.

    Returns:
        For each variable (N, *output.shape[1:], *variable.shape), under its path.

    Raises:
        ValueError: the input has several leading batch axes; and what `gradient` raises.
    """
    problem = pose(
        model, x, outputs={SINGLE: Output.of(output)}, layer=layer, weights=weights, sample_weight=sample_weight
    )
    if problem.sample_weight is not None and problem.sample_weight.shape.rank != 1:
        shape = shape_text(problem.sample_weight.shape)
        raise ValueError(f"sample_weight of a Jacobian is one number per sample, shape (N,), got {shape}.")

    # Shapes and connections of no samples come from one sample of zeros, of which nothing is kept.
    empty = problem.batch_size == 0
    results, notes = compiled.answer("jacobian", one_of_zeros(problem) if empty else problem, _all_units)
    keys = [problem.weights.keys[i] for i in notes.listed]
    return {key: result[:0] if empty else result for key, result in zip(keys, results, strict=True)}


def _all_units(problem: Problem, notes: Notes) -> list[Any]:
    """For each variable in `notes.listed` (N, *units, *shape), from closed forms where there are any."""
    taps, _ = taps_of(problem)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(problem.sources)
        with recording(problem, tape, taps, []) as calls:
            y = problem.forward(notes, per_unit=True)[SINGLE]
    _require_one_batch_axis(notes)
    units = y.shape[1:].num_elements()
    if not taps or units is None or not 0 < units <= MAX_UNITS:
        return map_samples(problem, notes, _of_one)
    free = [i for i, gradient in enumerate(tape.gradient(y, problem.sources)) if gradient is not None]
    z = [call.z for call in calls]
    by_unit = []
    for cotangent in _one_hot(y, units, problem.sample_weight):
        felt = tape.gradient(y, z, output_gradients=cotangent)
        by_unit.append(closed_forms(problem, calls, felt, set(free)))
    found = {i: _written_out([factors[i] for factors in by_unit], y.shape[1:]) for i in by_unit[0]}
    require_connected(problem, {*free, *found})
    if free:
        smaller = remaining(problem, tape, calls, free)
        rows = map_samples(smaller, notes, _of_one)
        found |= {free[i]: g for i, g in zip(notes.listed, rows, strict=True)}
    notes.listed = tuple(sorted(found))
    return [tf.cast(found[i], problem.weights.variables[i].dtype) for i in notes.listed]


def _one_hot(y: Any, units: int, weight: Any) -> list[Any]:
    """For each unit a cotangent of y (N, *units) that is c_n there, and 0 elsewhere."""
    rows = tf.shape(y)[:1]
    weight = tf.ones(rows, y.dtype) if weight is None else tf.cast(weight, y.dtype)
    return [tf.reshape(weight[:, None] * row, tf.shape(y)) for row in tf.unstack(tf.eye(units, dtype=y.dtype), units)]


def _written_out(factors: Sequence[Factor], units: Any) -> Any:
    """(N, *units, *shape), of one variable: each unit of each sample is a row, so that nothing is moved afterwards."""
    stacked = []
    for parts in zip(*(factor.tensors for factor in factors), strict=True):
        rows = tf.reshape(tf.stack(parts, axis=1), tf.concat([[-1], tf.shape(parts[0])[1:]], axis=0))
        stacked.append(tf.ensure_shape(rows, [None, *parts[0].shape[1:]]))
    g = factors[0].with_tensors(stacked).per_sample()
    return tf.reshape(g, tf.concat([[-1], list(units), tf.shape(g)[1:]], axis=0))


def _require_one_batch_axis(notes: Notes) -> None:
    if notes.batch_rank != 1:
        raise ValueError(
            f"A Jacobian needs one leading batch axis, got {notes.batch_rank}. Flatten the time and environment axes "
            "first."
        )


def _of_one(problem: Problem, notes: Notes) -> list[Any]:
    sources = problem.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        y = problem.forward(notes, per_unit=True)[SINGLE]
    _require_one_batch_axis(notes)
    positions = tuple(i for i, gradient in enumerate(tape.gradient(y, sources)) if gradient is not None)
    require_connected(problem, positions)
    notes.listed = positions

    def of_unit(cotangent: Any) -> list[Any]:
        gradients = tape.gradient(y, sources, output_gradients=tf.reshape(cotangent, tf.shape(y)))
        return [dense(gradients[i], sources[i]) for i in positions]

    units = tf.eye(tf.size(y), dtype=y.dtype)
    if problem.sample_weight is not None:
        units *= tf.cast(problem.sample_weight, y.dtype)
    count = y.shape.num_elements()
    if problem.loop and count is None:
        raise ValueError(f"The output's shape must be known for a Jacobian of a recurrent model, got {y.shape}.")
    # Samples are vectorized around this already; units within samples would be too, where XLA gives up on some layers.
    if problem.loop or (count is not None and count <= MAX_UNITS):
        per_unit = [of_unit(cotangent) for cotangent in tf.unstack(units, count)]
        stacked = [tf.stack(parts) for parts in zip(*per_unit, strict=True)]
    else:
        stacked = vectorized(of_unit, units)
    shape = tf.shape(y)[1:]
    return [tf.reshape(s, tf.concat([shape, tf.shape(s)[1:]], axis=0)) for s in stacked]
