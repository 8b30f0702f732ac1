"""A probe runs a model on a few made-up rows and looks at whether one row moves what comes out for another.

The weights are moved a little for that, since a head that starts at zero hides everything before it. All runs have the same
batch size, for which TensorFlow rounds each row in the same way. A model that draws random numbers is left alone.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad.core import keras_internals, snapshots
from rlgrad.gradients.questions.question import Question

_ROWS = 3
_MOST_ROWS = 64  # of a model that runs at no other batch size than its own
_LARGE = 2**20  # weights of this size are not moved
_NOISE = 4.0  # in units of the dtype's rounding
_ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
Placed = Sequence[tuple[Any, Any]]  # variables, each with a value


@dataclass(frozen=True)
class Probe:
    """The outputs of a model on made-up rows.

    Args:
        mixer: what mixes the samples, for a message; `""`: nothing that was found.
        known: the model ran, and draws no random numbers.
        rows: the number of rows.
        runs: what the model returned in each of three runs. In run k, rows k, k + 3, … have been replaced. Empty: what is
            mixed is not the outputs, but their derivatives.
    """

    mixer: str = ""
    known: bool = False
    rows: int = 0
    runs: tuple[Any, ...] = ()


def probe(question: Question) -> Probe:
    """Run the model eagerly on made-up rows, also if a function is being traced; it is left as it was."""
    # Values that the caller has put in place may be symbols.
    with tf.init_scope(), keras.StatelessScope(initialize_variables=False):
        if not tf.executing_eagerly():
            return Probe()
        for rows in dict.fromkeys((_ROWS, question.batch_size or _ROWS)):
            if 2 <= rows <= _MOST_ROWS:
                try:
                    return _probe_rows(question, rows)
                except Exception:  # the model raises it again on the route that is taken
                    continue
    return Probe()


def _probe_rows(question: Question, rows: int) -> Probe:
    inputs = _inputs(question, rows)
    for values in (_moved_weights(question.model), []):
        runs = [_run(question, leaves, values) for leaves in inputs]
        outputs = [floats(run) for run in runs]
        if all(np.isfinite(y).any() for run in outputs for y in run):
            break
    if not any(is_mixed(leaf, rows) for leaf in zip(*outputs, strict=True)):
        return Probe(_renormalization(question, inputs[0], values), known=True, rows=rows)
    again = floats(_run(question, inputs[0], values))
    if any(moves(a, b, a) for a, b in zip(outputs[0], again, strict=True)):
        return Probe()  # it draws random numbers
    try:
        mixer = _blame(question, inputs, values, rows)
    except Exception:
        mixer = "one of its layers"
    return Probe(mixer, True, rows, tuple(runs))


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
    with keras.StatelessScope(), _plain_variables_kept(question.model):  # what the model assigns is not kept
        return placed.run_model()


@contextlib.contextmanager
def _plain_variables_kept(model: Any) -> Iterator[None]:
    """Give variables and generators of TensorFlow that layers hold their values back in the end."""
    held = [value for layer in [model, *keras_internals.all_layers(model)] for value in vars(layer).values()]
    variables = [each.state if isinstance(each, tf.random.Generator) else each for each in held]
    before = [(variable, tf.identity(variable)) for variable in variables if isinstance(variable, tf.Variable)]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def is_mixed(runs: Sequence[Any], rows: int) -> bool:
    """Return `True` if a row has changed between the two runs in which it was not replaced."""
    first = runs[0]
    if any(run.shape != first.shape for run in runs) or not first.size or first.shape[0] % rows:
        return False
    grouped = [run.reshape(rows, -1) for run in runs]
    for k in range(3):
        own = np.arange(rows) % 3 == k
        one, other = (grouped[i][own] for i in range(3) if i != k)
        if moves(one, other, grouped[k]):
            return True
    return False


def moves(one: Any, other: Any, scale: Any) -> bool:
    """Return `True` if two arrays differ by more than rounding does."""
    step = _NOISE * _ROUNDING.get(np.dtype(scale.dtype).name, 0.0)
    one, other, scale = (np.asarray(a, np.float64) for a in (one, other, scale))
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)[~((one == other) | (np.isnan(one) & np.isnan(other)))]
    finite = np.abs(scale[np.isfinite(scale)])
    return bool(np.any(~(apart <= step * finite.max(initial=0.0))))


def floats(tree: Any) -> list[Any]:
    """Return the floating-point tensors with a batch axis, as arrays."""
    return [np.asarray(y) for y in tf.nest.flatten(tree) if tf.is_tensor(y) and y.dtype.is_floating and y.shape.rank]


def _renormalization(question: Question, leaves: Sequence[Any], values: Placed) -> str:
    """Return a layer whose outputs are those of moving statistics, and whose derivatives are those of the batch's."""
    found: list[str] = []

    def call(original: Any, *args: Any, **kwargs: Any) -> Any:
        layer = original.__self__
        if kwargs.get("training") and layer.trainable:
            found.append(f"layer {layer.name!r} ({type(layer).__name__})")
        return original(*args, **kwargs)

    kind = keras.layers.BatchNormalization
    layers = [each for each in keras_internals.all_layers(question.model) if isinstance(each, kind) and each.renorm]
    if layers:
        with snapshots.held(question.model), keras_internals.replaced_calls([(layer, call) for layer in layers]):
            _run(question, leaves, values)
    return found[0] if found else ""


def _blame(question: Question, inputs: Sequence[Any], values: Placed, rows: int) -> str:
    """Return the innermost layer whose output is mixed, and whose input is not."""
    layers = keras_internals.all_layers(question.model)
    runs: list[list[tuple[Any, Any, Any]]] = []

    def watched(layer: Any) -> Callable[..., Any]:
        def call(original: Any, *args: Any, **kwargs: Any) -> Any:
            returned = original(*args, **kwargs)
            runs[-1].append((layer, floats((args, kwargs)), floats(returned)))
            return returned

        return call

    replaced = keras_internals.replaced_calls([(layer, watched(layer)) for layer in layers])
    with snapshots.held(question.model), replaced:
        for leaves in inputs:
            runs.append([])
            _run(question, leaves, values)
    for calls in zip(*runs, strict=True):
        layer = calls[0][0]
        before, after = (zip(*(call[i] for call in calls), strict=True) for i in (1, 2))
        if any(is_mixed(leaf, rows) for leaf in before):
            return f"what it computes before layer {layer.name!r}"
        if any(is_mixed(leaf, rows) for leaf in after):
            return f"layer {layer.name!r} ({type(layer).__name__})"
    return "what it computes after its last layer"
