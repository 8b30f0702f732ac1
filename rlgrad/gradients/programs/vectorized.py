"""The route for everything without a closed form: each sample is a batch of one, and all of them run at once.

Never `tape.jacobian` over a batch: it sends one cotangent per sample through the whole batch, N² backward passes.
`tf.vectorized_map` is as fast as its peers; what it cannot do runs one sample after the other.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.tensorflow_internals import trace
from rlgrad.gradients.programs.backward import dense, require_connected, weight_for
from rlgrad.gradients.questions.problem import SINGLE, Notes, Problem, rows_of, with_rows

# From a question about one sample to what belongs in that sample's row of the results.
OneSample = Callable[[Problem, Notes], list[Any]]


def gradients_one_by_one(problem: Problem, notes: Notes) -> tuple[tuple[int, ...], list[Any]]:
    """The gradients of f of each sample, for a question with one number per sample.

    Returns:
        Positions of the variables that f depends on, and for each of them float (N, *variable.shape).
    """
    positions: tuple[int, ...] = ()

    def of_one(single: Problem, notes: Notes) -> list[Any]:
        nonlocal positions
        sources = single.sources
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            value = single.forward(notes)[SINGLE]
        gradients = tape.gradient(value, sources, output_gradients=weight_for(single, value))
        positions = tuple(i for i, gradient in enumerate(gradients) if gradient is not None)
        require_connected(single, positions)
        return [dense(gradients[i], sources[i]) for i in positions]

    rows = map_samples(problem, notes, of_one)
    # Vectorized over no samples at all, some operations lose the other axes.
    shapes = [tuple(problem.weights.variables[i].shape) for i in positions]
    return positions, [
        tf.reshape(g, tf.concat([tf.shape(g)[:1], shape], axis=0)) for g, shape in zip(rows, shapes, strict=True)
    ]


def map_samples(problem: Problem, notes: Notes, one: OneSample) -> list[Any]:
    """Vectorized where TensorFlow can, else one sample after the other; errors of the question itself come through.

    Args:
        problem: the question about all samples.
        notes: gets what tracing tells.
        one: answers it for a question about one sample, whose `loop` says that nothing in it is to be vectorized.
    """
    rows = rows_of(problem)
    own_error: list[Exception] = []

    def of_one(row: list[Any], loop: bool) -> list[Any]:
        remaining = iter(row)
        single = replace(with_rows(problem, lambda _: next(remaining)[None]), batch_size=1, loop=loop)
        try:
            return one(single, notes)
        except Exception as error:
            own_error.append(error)
            raise

    if not (problem.loop or keras_internals.has_loops(problem.model)):
        try:
            results = vectorized(lambda row: of_one(row, False), rows)
        except Exception:
            if own_error:
                raise own_error[0] from None
        else:
            notes.vectorized = True
            return results
    return _one_by_one(lambda row: of_one(row, True), rows)


def vectorized(function: Callable[[Any], list[Any]], rows: Any) -> list[Any]:
    """`tf.vectorized_map` without its log."""
    with _quiet():
        results: list[Any] = tf.vectorized_map(tf.autograph.experimental.do_not_convert(function), rows, warn=False)
    return results


def _one_by_one(function: Callable[[Any], list[Any]], rows: list[Any]) -> list[Any]:
    """`tf.map_fn` with the shapes of the results, which XLA needs, found by tracing one sample."""
    specs = [tf.TensorSpec(row.shape[1:], row.dtype) for row in rows]
    signature = [tf.TensorSpec(result.shape, result.dtype) for result in trace(function, specs).structured_outputs]
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
