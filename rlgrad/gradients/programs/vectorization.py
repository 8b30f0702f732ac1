"""The route for everything without a closed form: each sample is a batch of one, and all of them run at once.

Never `tape.jacobian` over a batch: it sends one cotangent per sample through the whole batch, N² backward passes.
`tf.vectorized_map` is as fast as its peers; samples that it cannot vectorize run one after the other.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.tensorflow_internals import trace
from rlgrad.gradients.programs.backward import value_and_sum
from rlgrad.gradients.programs.program import Computation, Computed
from rlgrad.gradients.programs.whole_batch import in_batch, row_by_row
from rlgrad.gradients.questions.question import Question


def gradients_one_by_one(question: Question) -> Computed:
    """Compute the gradients of f of each sample, for a question with one number per sample.

    Returns:
        For each variable that f depends on float (N, *variable.shape).
    """

    def of_one(single: Question) -> Computed:
        computed = value_and_sum(single)
        return replace(computed, results=computed.results[1:])

    if question.seed is not None:  # a sample by itself would have the first one's mask
        return row_by_row(question)
    try:
        computed = map_samples(question, of_one)
    except Exception as error:
        return in_batch(question, error)
    # Vectorized over no samples at all, some operations lose the other axes.
    shapes = [tuple(question.weights.variables[i].shape) for i in computed.positions]
    rows = [
        tf.reshape(g, tf.concat([tf.shape(g)[:1], shape], axis=0))
        for g, shape in zip(computed.results, shapes, strict=True)
    ]
    return replace(computed, results=rows)


def map_samples(question: Question, of_one: Computation) -> Computed:
    """Compute something of each sample: vectorized if TensorFlow can, else one sample after the other.

    Errors of the computation itself are raised as they are.

    Args:
        question: the question about all samples.
        of_one: computes a list of tensors from the question about one sample, whose `loop` forbids to vectorize within
            it. Its facts hold for all samples.
    """
    rows = question.rows
    facts: list[Computed] = []
    own_errors: list[Exception] = []

    def of_row(row: list[Any], loop: bool) -> list[Any]:
        remaining = iter(row)
        single = replace(question.with_rows(lambda _: next(remaining)[None], batch_size=1), loop=loop)
        try:
            computed = of_one(single)
        except Exception as error:
            own_errors.append(error)
            raise
        facts.append(replace(computed, results=None))
        results: list[Any] = computed.results
        return results

    saved = keras_internals.has_saved_loops(question.model)
    if not (question.loop or saved or keras_internals.has_loops(question.model)):
        try:
            results = vectorize(lambda row: of_row(row, False), rows)
        except Exception:
            if own_errors:
                raise own_errors[0] from None
        else:
            return replace(facts[-1], results=results, vectorized=True)
    loop = _loop_in_python if saved and tf.executing_eagerly() else _loop
    results = loop(lambda row: of_row(row, True), rows)
    return replace(facts[-1], results=results)


def vectorize(function: Callable[[Any], list[Any]], rows: Any) -> list[Any]:
    """Run `tf.vectorized_map` without its log."""
    with _quiet():
        results: list[Any] = tf.vectorized_map(tf.autograph.experimental.do_not_convert(function), rows, warn=False)
    return results


def _loop(function: Callable[[Any], list[Any]], rows: list[Any]) -> list[Any]:
    """Run `tf.map_fn` with the shapes of the results, which XLA needs, found by tracing one sample."""
    specs = [tf.TensorSpec(row.shape[1:], row.dtype) for row in rows]
    signature = [tf.TensorSpec(result.shape, result.dtype) for result in trace(function, specs).structured_outputs]
    results: list[Any] = tf.map_fn(function, rows, fn_output_signature=signature)
    return results


def _loop_in_python(function: Callable[[Any], list[Any]], rows: list[Any]) -> list[Any]:
    results = [function([array[n] for array in rows]) for n in range(rows[0].shape[0])]
    return [tf.stack(parts) for parts in zip(*results, strict=True)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TensorFlow from logging each operation that it cannot vectorize; failures still raise."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
