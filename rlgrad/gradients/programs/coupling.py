"""Models that mix their samples: f of one sample depends on another one, so no sample has a gradient of its own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.core.rowwise_layers import is_made_of_rowwise_layers
from rlgrad.gradients.programs.cache import cache_of, find_or_make, question_key
from rlgrad.gradients.programs.probes import Probe, floats, is_mixed, moves, probe
from rlgrad.gradients.questions.heads import Heads
from rlgrad.gradients.questions.question import SINGLE, ForwardPass, Question
from rlgrad.gradients.questions.selection import Selection

_ROWS = 4  # made up for a function where the number of rows is not known


class BatchCoupledError(ValueError):
    """The model mixes its samples, so there is no gradient of one sample by itself.

    Batch normalization in training mode, a contrastive head, a batch mean that is subtracted: f of one sample is then another
    one in another batch. The message names what mixes them. Sums over samples, such as `gradient`, stay what they are.
    """


def require_separate_samples(question: Question) -> None:
    """Raise if f of one sample depends on other samples.

    Raises:
        BatchCoupledError: with the layer that mixes the samples.
    """
    mixer = find_mixer(question)
    if mixer:
        raise BatchCoupledError(
            f"Model {question.model.name!r} mixes its samples: {mixer} makes of one row something that depends on the "
            "other rows, so no sample has a gradient (or norm, Jacobian, input gradient) of its own. gradient() and "
            "linearize().gradient(), which are about the whole batch, take this model. Normalize with moving statistics "
            "(training=False), or compute what the batch shares outside of the model and pass it as an input."
        )


def are_separate(question: Question) -> bool:
    """Return `True` if f of one sample is known not to depend on other samples."""
    return question.recipes[SINGLE].cacheable and not find_mixer(question) and _known(question)


def find_mixer(question: Question) -> str:
    """Return what mixes the samples in f, for a message; `""` if nothing does, or if it cannot be known."""
    if is_made_of_rowwise_layers(question.model):
        return ""
    stripped, found = _found(question)
    if not found.runs or SINGLE not in question.recipes:
        return str(found.mixer)
    if not question.recipes[SINGLE].cacheable:
        return found.mixer if _reaches_f(question, found) else ""
    cache = cache_of(question.model)
    key = question_key(cache, "mixed", stripped)
    reaches = find_or_make(cache.surveys, key, lambda: (_reaches_f(question, found),))
    return found.mixer if reaches[0] else ""


def _known(question: Question) -> bool:
    return is_made_of_rowwise_layers(question.model) or _found(question)[1].known


def _found(question: Question) -> tuple[Question, Probe]:
    """Return the question without what a probe does not need, and the probe of its model."""
    stripped = replace(
        question,
        weights=Selection((), (), explicit=False),
        sample_weight=None,
        extra={},
        extra_batched=frozenset(),
        placed=(),
        placed_values=(),
        kept=(),
        replay=None,
        loop=False,
    ).with_probe_seed()
    bare = replace(stripped, recipes={}, arrays={}, batched={})
    cache = cache_of(question.model)
    return stripped, find_or_make(cache.surveys, question_key(cache, "rows", bare), lambda: probe(bare))


def require_separate_function(question: Question, forward: ForwardPass) -> None:
    """Raise if the caller's own function of what the model returned mixes the samples.

    It may do something else each time, so it is looked at each time: with every other row of its argument replaced. While
    TensorFlow traces, the rows are made up; a function that uses symbols of the caller's cannot be looked at then.

    Raises:
        BatchCoupledError: f of a row has changed although the row has not.
    """
    if question.recipes[SINGLE].cacheable:
        return
    eager = tf.executing_eagerly()
    with tf.init_scope():
        mixes = tf.executing_eagerly() and _function_mixes(question, forward.returned, made_up=not eager)
    if mixes:
        raise BatchCoupledError(
            "The function given as output= mixes the samples: its number for one row depends on the others, so no "
            "sample has a gradient of its own. Sums and means over samples are what sample_weight= is for."
        )


def _function_mixes(question: Question, returned: Any, made_up: bool) -> bool:
    leaves = tf.nest.flatten(returned)
    if not all(tf.is_tensor(y) and y.shape.rank for y in leaves) or len({y.shape[0] for y in leaves}) != 1:
        return False
    count = leaves[0].shape[0] or _ROWS
    arrays = _arrays(question, count) if made_up else list(question.arrays[SINGLE])
    if made_up:
        leaves = [_made_up(y, count) for y in leaves]
    before, even = _f(question, tf.nest.pack_sequence_as(returned, leaves), arrays, count), np.arange(count) % 2 == 0
    if before is None or before.shape[:1] != (count,) or count < 2:
        return False
    for kept in (even, ~even):
        rows = np.where(kept, np.arange(count), np.roll(np.arange(count), 1))
        some = [tf.stop_gradient(tf.gather(y, rows)) for y in leaves]
        after = _f(question, tf.nest.pack_sequence_as(returned, some), arrays, count)
        if after is not None and after.shape == before.shape and moves(before[kept], after[kept], before):
            return True
    return False


def _made_up(like: Any, rows: int) -> Any:
    shape = [rows, *(size or _ROWS for size in like.shape[1:])]
    if not like.dtype.is_floating:
        return tf.zeros(shape, like.dtype)
    return tf.constant(np.random.default_rng(0).uniform(0.05, 1.0, shape), like.dtype)


def _arrays(question: Question, rows: int) -> list[Any]:
    """Return arrays for f of made-up rows: what is known, action or unit 0, a half."""
    found = []
    for array, batched in zip(question.arrays[SINGLE], question.batched[SINGLE], strict=True):
        known = None if batched else tf.get_static_value(array)
        shape = [rows, *array.shape[1:]] if batched else array.shape
        made_up = np.full(shape, 0.5 if array.dtype.is_floating else 0)
        found.append(tf.constant(made_up if known is None else known, array.dtype))
    return found


def _reaches_f(question: Question, found: Probe) -> bool:
    """Return `True` if f is made of what is mixed: another output of the model may be."""
    with tf.init_scope():
        arrays = _arrays(question, found.rows)
        if not question.recipes[SINGLE].cacheable:
            values = [_f(question, returned, arrays, found.rows) for returned in found.runs]
            return any(value is None for value in values) or is_mixed(values, found.rows)
        # f of these numbers may hide what f of others shows, so that f is made of a mixed output counts.
        leaves, structure = tf.nest.flatten(found.runs[0]), found.runs[0]
        before = _f(question, structure, arrays, found.rows)
        for k, runs in enumerate(zip(*(tf.nest.flatten(run) for run in found.runs), strict=True)):
            if floats(runs) and is_mixed(floats(runs), found.rows):
                noise = tf.constant(np.random.default_rng(2).standard_normal(runs[0].shape), runs[0].dtype)
                moved = [*leaves[:k], leaves[k] + noise, *leaves[k + 1 :]]
                after = _f(question, tf.nest.pack_sequence_as(structure, moved), arrays, found.rows)
                if before is None or after is None or moves(before, after, before):
                    return True
        return False


def _f(question: Question, returned: Any, arrays: Sequence[Any], rows: int) -> Any:
    """Return f of what the model returned; `None` if it cannot be computed."""
    try:
        return np.asarray(_value(question, returned, arrays, rows))
    except Exception:
        return None


def _value(question: Question, returned: Any, arrays: Sequence[Any], rows: int) -> Any:
    heads = Heads(question.model, returned, question.layer is not None, rows)
    return question.recipes[SINGLE].value(heads, enumerate(arrays), False)
