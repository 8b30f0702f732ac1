"""The route for a model that runs at its own batch size only, such as one that reshapes to (3, …): one batch after the other.

Also for samples that cannot be run by themselves because each has a mask of its own, that of a dropout in training mode.

f_n is then an output of the whole batch, and its gradient takes a backward pass of the whole batch: N passes for N samples.
"""

import weakref
from dataclasses import replace
from typing import Any

import tensorflow as tf

from rlgrad.core.tensorflow_internals import trace_facts
from rlgrad.gradients.programs.backward import dense, require_connected, weight_for
from rlgrad.gradients.programs.cache import cache_of, find_or_make
from rlgrad.gradients.programs.program import Computed
from rlgrad.gradients.questions.question import SINGLE, Question

IN_BATCH = "in the whole batch"  # a `Computed.detail`
_UNROLLED = 64


def in_batch(question: Question, error: Exception, *, per_unit: bool = False) -> Computed:
    """Compute the gradients of the outputs of each sample from the whole batch, after single samples failed.

    Args:
        question: the question about all samples.
        error: of single samples; raised again if the whole batch is no way out.
        per_unit: each unit by itself.

    Returns:
        For each variable that f depends on float (N, *units, *variable.shape).
    """
    if runs_on(question, 1):
        raise error
    try:
        return _in_batch(question, per_unit)
    except Exception:
        raise error from None


def runs_on(question: Question, rows: int) -> bool:
    """Return `True` if the model runs on a batch of so many rows. It is traced on them, once."""

    def traced(leaves: list[Any]) -> tuple[list[Any], None]:
        replace(question, leaves=tuple(leaves), kept=(), replay=None).with_probe_seed().run_model()
        return [], None

    def runs() -> bool:
        try:
            trace_facts(traced, [tf.TensorSpec([rows, *spec.shape[1:]], spec.dtype) for spec in question.signature])
        except Exception:
            return False
        return True

    cache, layer = cache_of(question.model), question.layer and weakref.ref(question.layer)
    shape = repr(question.structure), question.signature, layer, question.training
    key = (cache.state(question.model), "runs on", rows, *shape)
    found: tuple[bool] = find_or_make(cache.surveys, key, lambda: (runs(),))
    return found[0]


def row_by_row(question: Question) -> Computed:
    """Compute the gradient of f of each sample by a backward pass of the whole batch, of any number of rows.

    Returns:
        For each variable that f depends on float (N, *variable.shape).
    """
    sources = question.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        forward = question.forward()
    y = forward.values[SINGLE]
    positions = tuple(i for i, gradient in enumerate(tape.gradient(y, sources)) if gradient is not None)
    require_connected(question, positions)
    weight, rows = weight_for(question, y, forward.units[SINGLE]), tf.shape(y)[0]

    def of_row(n: Any) -> list[Any]:
        own = tf.reshape(tf.one_hot(n, rows, dtype=y.dtype), [-1, *[1] * (y.shape.rank - 1)])
        gradients = tape.gradient(y, sources, output_gradients=own * weight)
        return [tf.convert_to_tensor(dense(gradients[i], sources[i])) for i in positions]

    signature = [tf.TensorSpec(sources[i].shape, sources[i].dtype) for i in positions]
    results = tf.map_fn(of_row, tf.range(rows), fn_output_signature=signature)
    return Computed(results, positions, forward.ranges, detail=IN_BATCH)


def _in_batch(question: Question, per_unit: bool) -> Computed:
    sources, rows = question.sources, question.batch_size
    fixed = [tf.ensure_shape(leaf, [rows, *leaf.shape[1:]]) for leaf in question.leaves]
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        forward = replace(question, leaves=tuple(fixed)).forward(per_unit=per_unit)
    y = forward.values[SINGLE]
    count = y.shape.num_elements()
    if rows is None or count is None or y.shape[0] != rows:
        raise ValueError(f"{rows} rows of input gave an output of shape {y.shape}.")
    shape, cotangents = y.shape, tf.eye(count, dtype=y.dtype)
    if per_unit or not forward.units[SINGLE]:
        weight = (
            tf.ones([rows], y.dtype) if question.sample_weight is None else tf.cast(question.sample_weight, y.dtype)
        )
        cotangents *= tf.repeat(tf.ensure_shape(weight, [rows]), count // rows)[:, None]
    else:  # one row for each sample, with the weights of all its units
        cotangents *= tf.reshape(weight_for(question, y, forward.units[SINGLE]), [-1, 1])
        cotangents = tf.reduce_sum(tf.reshape(cotangents, [rows, -1, count]), axis=1)
        shape = y.shape[:1]
    positions = tuple(i for i, gradient in enumerate(tape.gradient(y, sources)) if gradient is not None)
    require_connected(question, positions)

    def of_one(cotangent: Any) -> list[Any]:
        gradients = tape.gradient(y, sources, output_gradients=tf.reshape(cotangent, y.shape))
        return [tf.convert_to_tensor(dense(gradients[i], sources[i])) for i in positions]

    if count <= _UNROLLED:
        stacked = [tf.stack(parts) for parts in zip(*map(of_one, tf.unstack(cotangents)), strict=True)]
    else:
        signature = [tf.TensorSpec(sources[i].shape, sources[i].dtype) for i in positions]
        stacked = tf.map_fn(of_one, cotangents, fn_output_signature=signature)
    results = [tf.reshape(g, [*shape, *g.shape[1:]]) for g in stacked]
    return Computed(results, positions, forward.ranges, detail=IN_BATCH)
