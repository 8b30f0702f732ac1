"""One gradient per sample, and per sample and unit.

Never `tape.jacobian` over a batch: it sends one cotangent per sample through the whole batch, N² backward passes. Here
each sample is a batch of one, and `tf.vectorized_map` runs all of them at once.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import tensorflow as tf

from rlgrad.gradients import compiled, keras_internals
from rlgrad.gradients.heads import shape_text
from rlgrad.gradients.linearization import dense, linearize_here, require_connected, weight_for
from rlgrad.gradients.outputs import Output, OutputLike
from rlgrad.gradients.problem import SINGLE, Notes, Problem, one_of_zeros, pose, rows_of, with_rows

# From a question about one sample to what belongs in that sample's row of the results. `bool`: without vectorizing.
OneSample = Callable[[Problem, Notes, bool], list[Any]]


def per_sample_gradient(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
) -> dict[str, Any]:
    """c_n ∇θ f(x_n), for each sample by itself.

    Takes N · P numbers of memory, P being the number of weights. All samples are computed at once, except where a layer
    cannot be vectorized: recurrent layers that are not unrolled run one sample after the other.

    Args, errors: see `gradient`.

    Returns:
        For each variable (N, *variable.shape), under its path.

    Raises:
        ValueError: f has not exactly one number per sample (several leading axes must be flattened into one first); and
            what `gradient` raises.
    """
    problem = pose(
        model, x, outputs={SINGLE: Output.of(output)}, layer=layer, weights=weights, sample_weight=sample_weight
    )
    return per_sample_of(problem)


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
    return _for_each_sample("jacobian", problem, _jacobian_of_one)


def per_sample_of(problem: Problem) -> dict[str, Any]:
    """`per_sample_gradient` of a question that was already posed."""
    rows = _for_each_sample("per_sample", problem, _gradient_of_one)
    if problem.batch_size is not None:
        return rows
    # Vectorized over no samples at all, some operations lose the other axes.
    shapes = dict(zip(problem.weights.keys, (variable.shape for variable in problem.weights.variables), strict=True))
    return {key: tf.reshape(g, tf.concat([tf.shape(g)[:1], tuple(shapes[key])], axis=0)) for key, g in rows.items()}


def _for_each_sample(kind: str, problem: Problem, one: OneSample) -> dict[str, Any]:
    empty = problem.batch_size == 0
    # Shapes and connections of no samples come from one sample of zeros, of which nothing is kept.
    results, notes = _run(kind, one_of_zeros(problem) if empty else problem, one)
    if empty:
        results = [result[:0] for result in results]
    return {problem.weights.keys[i]: result for i, result in zip(notes.listed, results, strict=True)}


def _run(kind: str, problem: Problem, one: OneSample) -> tuple[list[Any], Notes]:
    loop_only = keras_internals.has_loops(problem.model)

    def body(symbolic: Problem, notes: Notes) -> list[Any]:
        return _map_samples(symbolic, notes, one, loop_only)

    def looped(symbolic: Problem, notes: Notes) -> list[Any]:
        return _map_samples(symbolic, notes, one, True)

    if not compiled.worthwhile(problem):
        notes = Notes()
        return body(problem, notes), notes
    program = compiled.program(kind, problem, body)
    try:
        return program(problem), program.notes
    except tf.errors.OpError:  # vectorized without complaint, and failed when it ran
        if loop_only:
            raise
    program = compiled.program(kind, problem, looped, anew=True)
    return program(problem), program.notes


def _map_samples(problem: Problem, notes: Notes, one: OneSample, loop_only: bool) -> list[Any]:
    """Vectorized where TensorFlow can, else one sample after the other; errors of the question itself come through."""
    rows = rows_of(problem)
    own_error: list[Exception] = []

    def of_one(row: list[Any], loop: bool) -> list[Any]:
        remaining = iter(row)
        single = replace(with_rows(problem, lambda _: next(remaining)[None]), batch_size=1)
        try:
            return one(single, notes, loop)
        except Exception as error:
            own_error.append(error)
            raise

    if not loop_only:
        try:
            return _vectorized(lambda row: of_one(row, False), rows)
        except Exception:
            if own_error:
                raise own_error[0] from None
    return _one_by_one(lambda row: of_one(row, True), rows)


def _gradient_of_one(problem: Problem, notes: Notes, loop: bool) -> list[Any]:
    lin = linearize_here(problem, notes)
    value = lin.outputs
    if value.shape.rank != 1:
        raise ValueError(
            f"One number per sample is needed, got {shape_text(value.shape[1:])} numbers for each row of the input. "
            "Flatten the time and environment axes first; for several outputs per sample use jacobian()."
        )
    gradients = lin.gradient(weight_for(problem, value))
    notes.listed = tuple(i for i, key in enumerate(problem.weights.keys) if key in gradients)
    return list(gradients.values())


def _jacobian_of_one(problem: Problem, notes: Notes, loop: bool) -> list[Any]:
    sources = problem.weights.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        y = problem.forward(notes, per_unit=True)[SINGLE]
    if notes.batch_rank != 1:
        raise ValueError(
            f"A Jacobian needs one leading batch axis, got {notes.batch_rank}. Flatten the time and environment axes "
            "first."
        )
    positions = tuple(i for i, gradient in enumerate(tape.gradient(y, sources)) if gradient is not None)
    require_connected(problem, positions)
    notes.listed = positions

    def of_unit(cotangent: Any) -> list[Any]:
        gradients = tape.gradient(y, sources, output_gradients=tf.reshape(cotangent, tf.shape(y)))
        return [dense(gradients[i], sources[i]) for i in positions]

    units = tf.eye(tf.size(y), dtype=y.dtype)
    if problem.sample_weight is not None:
        units *= tf.cast(problem.sample_weight, y.dtype)
    if loop:
        if y.shape.num_elements() is None:
            raise ValueError(f"The output's shape must be known for a Jacobian of a recurrent model, got {y.shape}.")
        per_unit = [of_unit(cotangent) for cotangent in tf.unstack(units, y.shape.num_elements())]
        stacked = [tf.stack(parts) for parts in zip(*per_unit, strict=True)]
    else:
        stacked = _vectorized(of_unit, units)
    shape = tf.shape(y)[1:]
    return [tf.reshape(s, tf.concat([shape, tf.shape(s)[1:]], axis=0)) for s in stacked]


def _vectorized(function: Callable[[Any], list[Any]], rows: Any) -> list[Any]:
    with _quiet():
        results: list[Any] = tf.vectorized_map(tf.autograph.experimental.do_not_convert(function), rows, warn=False)
    return results


def _one_by_one(function: Callable[[Any], list[Any]], rows: list[Any]) -> list[Any]:
    """`tf.map_fn` with the shapes of the results, which XLA needs, found by tracing one sample."""
    specs = [tf.TensorSpec(row.shape[1:], row.dtype) for row in rows]
    traced = tf.function(function, autograph=False).get_concrete_function(specs)
    signature = [tf.TensorSpec(result.shape, result.dtype) for result in traced.structured_outputs]
    results: list[Any] = tf.map_fn(function, rows, fn_output_signature=signature)
    return results


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TensorFlow from logging each operation that it cannot vectorize; what fails still raises."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
