"""Models that mix their samples: f of one sample depends on another one, so no sample has a gradient of its own.

A probe runs the model on a few made-up rows, replaces one row after the other, and looks at whether f of the other rows moves.
The weights are moved a little for that, since a head that starts at zero hides everything before it. All runs have the same
batch size, for which TensorFlow rounds each row in the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.gradients.programs.cache import cache_of, find_or_make, question_key
from rlgrad.gradients.questions.heads import Heads
from rlgrad.gradients.questions.question import SINGLE, ForwardPass, Question
from rlgrad.gradients.questions.selection import Selection

_ROWS = 3
_MOST_ROWS = 64  # of a model that runs at no other batch size than its own
_LARGE = 2**20  # weights of this size are not moved
_NOISE = 4.0  # in units of the dtype's rounding
_ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
Placed = Sequence[tuple[Any, Any]]  # variables, each with a value


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
    if keras_internals.is_made_of_rowwise_layers(question.model):
        return ""
    stripped, found = _found(question)
    if not found.mixer or SINGLE not in question.recipes:
        return str(found.mixer)
    if not question.recipes[SINGLE].cacheable:
        return found.mixer if _reaches_f(question, found) else ""
    cache = cache_of(question.model)
    key = question_key(cache, "mixed", stripped)
    reaches = find_or_make(cache.surveys, key, lambda: (_reaches_f(question, found),))
    return found.mixer if reaches[0] else ""


def _known(question: Question) -> bool:
    return keras_internals.is_made_of_rowwise_layers(question.model) or _found(question)[1].known


def _found(question: Question) -> tuple[Question, "_Probe"]:
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
    )
    bare = replace(stripped, recipes={}, arrays={}, batched={})
    cache = cache_of(question.model)
    return stripped, find_or_make(cache.surveys, question_key(cache, "rows", bare), lambda: _probe(bare))


def require_separate_function(question: Question, forward: ForwardPass) -> None:
    """Raise if the caller's own function of what the model returned mixes the samples.

    It may do something else each time, so it is looked at each time: with every other row of its argument replaced. While
    TensorFlow traces there are no numbers to look at.

    Raises:
        BatchCoupledError: f of a row has changed although the row has not.
    """
    if question.recipes[SINGLE].cacheable or not tf.executing_eagerly():
        return
    value, returned = forward.values[SINGLE], tf.nest.flatten(forward.returned)
    count = int(value.shape[0])
    if count < 2 or any(not tf.is_tensor(y) or y.shape.rank == 0 or y.shape[0] != count for y in returned):
        return
    before, even = np.asarray(value), np.arange(count) % 2 == 0
    for kept in (even, ~even):
        rows = np.where(kept, np.arange(count), np.roll(np.arange(count), 1))
        some = [tf.stop_gradient(tf.gather(y, rows)) for y in returned]
        after = _f(question, tf.nest.pack_sequence_as(forward.returned, some), question.arrays[SINGLE], count)
        if after is not None and after.shape == before.shape and _moves(before[kept], after[kept], before):
            raise BatchCoupledError(
                "The function given as output= mixes the samples: its number for one row depends on the others, so no "
                "sample has a gradient of its own. Sums and means over samples are what sample_weight= is for."
            )


@dataclass(frozen=True)
class _Probe:
    """What a model returned on made-up rows.

    Args:
        mixer: what mixes the samples, for a message; `""`: nothing that was found.
        known: the model ran, and draws no random numbers.
        runs: what the model returned in each of three runs. In run k, rows k, k + 3, … have been replaced.
    """

    mixer: str = ""
    known: bool = False
    runs: tuple[Any, ...] = ()


def _probe(question: Question) -> _Probe:
    """Run the model eagerly on made-up rows, also if a function is being traced; it is left as it was."""
    with tf.init_scope():
        if not tf.executing_eagerly():
            return _Probe()
        for rows in dict.fromkeys((_ROWS, question.batch_size or _ROWS)):
            if 2 <= rows <= _MOST_ROWS:
                try:
                    return _probe_rows(question, rows)
                except Exception:  # the model raises it again on the route that is taken
                    continue
    return _Probe()


def _probe_rows(question: Question, rows: int) -> _Probe:
    inputs = _inputs(question, rows)
    for values in (_moved_weights(question.model), []):
        runs = [_run(question, leaves, values) for leaves in inputs]
        outputs = [_floats(run) for run in runs]
        if all(np.isfinite(y).all() for run in outputs for y in run):
            break
    if not any(_is_mixed(leaf, rows) for leaf in zip(*outputs, strict=True)):
        return _Probe(known=True)
    again = _floats(_run(question, inputs[0], values))
    if any(_moves(a, b, a) for a, b in zip(outputs[0], again, strict=True)):
        return _Probe()  # it draws random numbers
    return _Probe(_blame(question, inputs, values, rows), True, tuple(runs))


def _inputs(question: Question, rows: int) -> list[list[Any]]:
    """Return the leaves of the three runs."""
    rng = np.random.default_rng(0)
    runs: list[list[Any]] = [[], [], []]
    for leaf, spec in zip(question.leaves, question.signature, strict=True):
        sizes = [s or t or _ROWS for s, t in zip(spec.shape[1:], leaf.shape[1:], strict=True)]
        usual, other = _numbers(rng, [rows, *sizes], spec.dtype)
        for k, run in enumerate(runs):
            replaced = (np.arange(rows) % 3 == k).reshape([-1] + [1] * len(sizes))
            run.append(tf.constant(np.where(replaced, other, usual), spec.dtype))
    return runs


def _numbers(rng: np.random.Generator, shape: list[int], dtype: Any) -> tuple[Any, Any]:
    """Return two arrays that differ everywhere: ids 0 and 1, which are there in every table; positive floats."""
    bits = rng.integers(2, size=shape)
    if dtype == tf.string:
        return np.where(bits, b"a", b"b"), np.where(bits, b"b", b"a")
    if dtype.is_floating:
        usual, other = rng.uniform(0.05, 1.95, [2, *shape])
        return usual.astype(dtype.as_numpy_dtype), other.astype(dtype.as_numpy_dtype)
    return bits.astype(dtype.as_numpy_dtype), (1 - bits).astype(dtype.as_numpy_dtype)


def _moved_weights(model: Any) -> Placed:
    """Return trainable variables, each with another value than it has."""
    rng = np.random.default_rng(1)
    moved = []
    for variable in model.trainable_variables:
        shape = tuple(variable.shape)
        if 0 < np.prod(shape) <= _LARGE and tf.as_dtype(variable.dtype).is_floating:
            size = 0.5 / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.1
            noise = size * rng.standard_normal(shape)
            value = keras.ops.convert_to_numpy(variable.value)
            moved.append((variable, tf.constant((value + noise).astype(value.dtype))))
    return moved


def _run(question: Question, leaves: Sequence[Any], values: Placed) -> Any:
    variables, tensors = zip(*values, strict=True) if values else ((), ())
    placed = replace(question, leaves=tuple(leaves), batch_size=None, placed=variables, placed_values=tensors)
    with keras.StatelessScope():  # what the model assigns is not kept
        return placed.run_model()


def _reaches_f(question: Question, probe: _Probe) -> bool:
    """Return `True` if f is made of what is mixed: another output of the model may be."""
    with tf.init_scope():
        rows = len(np.asarray(tf.nest.flatten(probe.runs[0])[0]))
        arrays = [
            tf.zeros([rows, *a.shape[1:]] if batched else a.shape, a.dtype)
            if batched or not isinstance(a, tf.Tensor) or tf.get_static_value(a) is None
            else tf.constant(tf.get_static_value(a))
            for a, batched in zip(question.arrays[SINGLE], question.batched[SINGLE], strict=True)
        ]
        values = [_f(question, returned, arrays, rows) for returned in probe.runs]
        return any(value is None for value in values) or _is_mixed(values, rows)


def _f(question: Question, returned: Any, arrays: Sequence[Any], rows: int) -> Any:
    """Return f of what the model returned; `None` if it cannot be computed."""
    heads = Heads(question.model, returned, question.layer is not None, rows)
    try:
        return np.asarray(question.recipes[SINGLE].value(heads, enumerate(arrays), False))
    except Exception:
        return None


def _is_mixed(runs: Sequence[Any], rows: int) -> bool:
    """Return `True` if a row has changed between the two runs in which it was not replaced."""
    first = runs[0]
    if any(run.shape != first.shape for run in runs) or not first.size or first.shape[0] % rows:
        return False
    grouped = [run.reshape(rows, -1) for run in runs]
    for k in range(3):
        own = np.arange(rows) % 3 == k
        one, other = (grouped[i][own] for i in range(3) if i != k)
        if _moves(one, other, grouped[k]):
            return True
    return False


def _moves(one: Any, other: Any, scale: Any) -> bool:
    """Return `True` if two arrays differ by more than rounding does."""
    step = _NOISE * _ROUNDING.get(np.dtype(scale.dtype).name, 0.0)
    one, other, scale = (np.asarray(a, np.float64) for a in (one, other, scale))
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)[~((one == other) | (np.isnan(one) & np.isnan(other)))]
    finite = np.abs(scale[np.isfinite(scale)])
    return bool(np.any(~(apart <= step * finite.max(initial=0.0))))


def _floats(tree: Any) -> list[Any]:
    """Return the floating-point tensors with a batch axis, as arrays."""
    return [np.asarray(y) for y in tf.nest.flatten(tree) if tf.is_tensor(y) and y.dtype.is_floating and y.shape.rank]


def _blame(question: Question, inputs: Sequence[Any], values: Placed, rows: int) -> str:
    """Return the innermost layer whose output is mixed, and whose input is not."""
    layers = keras_internals.all_layers(question.model)
    runs: list[list[tuple[Any, Any, Any]]] = []

    def watched(layer: Any) -> Callable[..., Any]:
        def call(original: Any, *args: Any, **kwargs: Any) -> Any:
            returned = original(*args, **kwargs)
            runs[-1].append((layer, _floats((args, kwargs)), _floats(returned)))
            return returned

        return call

    with keras_internals.replaced_calls([(layer, watched(layer)) for layer in layers]):
        for leaves in inputs:
            runs.append([])
            _run(question, leaves, values)
    for calls in zip(*runs, strict=True):
        layer = calls[0][0]
        before, after = (zip(*(call[i] for call in calls), strict=True) for i in (1, 2))
        if any(_is_mixed(leaf, rows) for leaf in before):
            return f"what it computes before layer {layer.name!r}"
        if any(_is_mixed(leaf, rows) for leaf in after):
            return f"layer {layer.name!r} ({type(layer).__name__})"
    return "what it computes after its last layer"
