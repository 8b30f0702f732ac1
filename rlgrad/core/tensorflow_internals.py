"""Everything that relies on TensorFlow behavior which TensorFlow does not promise. A test of this file's name pins it.

What is relied on:

- a concrete function has `_call_flat(tensors, captured_inputs)`, which runs it on flat inputs and is what a gradient tape sees
  (`flat_call`);
- a concrete function has an `_inference_function`, which its context calls by name, and nothing else is needed where no tape
  records and all results are plain tensors (`_context_call`);
- differentiating, inside a graph, a loop over variables that a SavedModel brought along fails with a certain message
  (`cannot_differentiate_in_graph`);
- `tf.custom_gradient`, inside a graph, registers a closure for good, under a name that an attribute of an operation has
  (`trace`);
- of some operations that gradients are made of TensorFlow says that they have no derivative, although they have one, and leaves
  out what would have come through them without a word (`undifferentiable`);
- XLA on a CPU takes no scatter into what reads it (`computed_once`; without that, programs are slower);
- `tf.nn.moments`, which Keras looks up at each call, takes the mean for a constant inside of the variance: right for gradients,
  and wrong for the gradients of gradients (`exact_moments`).
"""

import contextlib
import contextvars
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeVar

import tensorflow as tf

try:
    from tensorflow.python.framework.ops import gradient_registry as _registry
except ImportError:  # then what is registered stays
    _registry = None
try:
    from tensorflow.python.eager.polymorphic_function.atomic_function import InterpolateRuntimeError as _Explained
    from tensorflow.python.eager.record import could_possibly_record as _may_be_recorded
except ImportError:  # then every call goes the longer way
    _Explained = contextlib.nullcontext

    def _may_be_recorded() -> bool:
        return True


_NAME = "_gradient_op_type"
_for_xla = contextvars.ContextVar("for_xla", default=False)  # what `trace` is tracing
Facts = TypeVar("Facts")

UNDIFFERENTIABLE = {
    "FakeQuantWithMinMaxArgsGradient",
    "FakeQuantWithMinMaxVarsGradient",
    "FakeQuantWithMinMaxVarsPerChannelGradient",
    "ResizeBilinearGrad",
    "SparseAddGrad",
}
"""Gradients that are linear in what comes back to them, and that a tape takes for constants."""


def trace(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """A concrete function for these arguments, and TensorFlow forgets with it what was registered while it was traced.

    Else the closure of each custom gradient, that of a Keras optimizer's step among them, would keep the graph that it was
    traced in, which for a whole update is some 10,000 objects, until the process ends.

    Args:
        function: traced without AutoGraph.
        arguments: tensors, or specifications of them.
        options: of `tf.function`.
    """
    before = _for_xla.set(bool(options.get("jit_compile")))
    try:
        concrete = tf.function(function, autograph=False, **options).get_concrete_function(*arguments)
    finally:
        _for_xla.reset(before)
    graph = concrete.graph.as_graph_def()
    nodes = chain(graph.node, *(each.node_def for each in graph.library.function))
    names = [node.attr[_NAME].s.decode() for node in nodes if _NAME in node.attr]
    if names:
        weakref.finalize(concrete, _forget, names).atexit = False
    return concrete


def computed_once(tensor: Any) -> Any:
    """Return a float tensor as it is, for XLA to compute once and keep, rather than anew for each reader.

    On a CPU, XLA takes cheap operations into whatever reads them. A column of the credits of a batch is so computed anew for
    each weight of a layer with one output, which takes as long as all else. It does not do so with a scatter, and an
    optimization barrier is gone before that. Only in programs that `trace` makes for XLA; elsewhere nothing is done.
    """
    size = tensor.shape.num_elements()
    if not _for_xla.get() or size is None or size < 2:
        return tensor
    flat = tf.reshape(tensor, [-1])
    # Two places, not known before it runs: of one, and of known ones, XLA makes something else.
    places = tf.cast(flat[:2] > 0, tf.int32)[:, None]
    return tf.reshape(tf.tensor_scatter_nd_add(flat, places, tf.zeros([2], flat.dtype)), tensor.shape)


def trace_facts(function: Callable[..., tuple[Any, Facts]], *arguments: Any, **options: Any) -> tuple[Any, Facts]:
    """Trace a function that returns tensors and facts; TensorFlow traces only functions that return nothing but tensors.

    Returns:
        The concrete function (see `trace`), which returns the tensors; and the facts.
    """
    facts: list[Facts] = []

    def tensors(*arguments: Any) -> Any:
        results, told = function(*arguments)
        facts.append(told)
        return results

    return trace(tensors, *arguments, **options), facts[-1]


def _forget(names: list[str]) -> None:
    registered = getattr(_registry, "_registry", {})
    for name in names:
        registered.pop(name, None)


def cannot_differentiate_in_graph(error: BaseException) -> bool:
    """Return True if an error says that TensorFlow differentiates an operation eagerly, but not inside of a graph.

    So it is with the loop of a recurrent layer that a SavedModel holds, `keras.layers.TFSMLayer` among others.
    """
    return "of a variable without handle data" in str(error)


def flat_call(function: Any) -> Callable[[list[Any]], list[Any]]:
    """A concrete function that returns a list as one of its flat inputs, whose dtypes and shapes the caller has made sure of.

    To call it as TensorFlow documents binds the arguments to the signature and casts each of them, which takes some
    0.04 ms: half as long as a small network takes to run. Where no tape records, another 0.03 ms go to asking what it could
    record. A TensorFlow without the shorter ways is called as documented.
    """
    run, captured = getattr(function, "_call_flat", None), function.captured_inputs
    run_unrecorded = _context_call(function)

    def call(tensors: list[Any]) -> list[Any]:
        flat = [tensor if isinstance(tensor, tf.Tensor) else tf.convert_to_tensor(tensor) for tensor in tensors]
        if run_unrecorded is not None and tf.executing_eagerly() and not _may_be_recorded():
            return run_unrecorded(flat)
        results: list[Any] = function(flat) if run is None else run(flat, captured)
        return results

    return call


def _context_call(function: Any) -> Callable[[list[Any]], list[Any]] | None:
    """The call of a concrete function by its name, for eager execution without a tape; `None` if it may not be called so."""
    try:
        inference, captured = function._inference_function, function.captured_inputs
        run, name, kinds = inference._bound_context.call_function, inference.name, inference.function_type.flat_outputs
        waits = inference._call_options.control_captures
    except AttributeError:
        return None
    plain = all(isinstance(kind, tf.TensorSpec) and kind.dtype not in (tf.resource, tf.variant) for kind in kinds)
    structure = function.structured_outputs
    if waits or not plain or not isinstance(structure, list) or len(structure) != len(kinds):
        return None
    explained, count = _Explained(inference), len(kinds)

    def call(flat: list[Any]) -> list[Any]:
        with explained:  # where in the model an error comes from
            return run(name, flat + captured, count) or []

    return call


def undifferentiable() -> "Counter[str]":
    """The operations of `UNDIFFERENTIABLE` in the graph that is being traced and in its functions; none of eager execution."""
    if tf.executing_eagerly():
        return Counter()
    graph = tf.compat.v1.get_default_graph()
    found = Counter(operation.type for operation in graph.get_operations())
    if any(kind.endswith(("Call", "While", "If", "Case")) for kind in found):
        found.update(node.op for each in graph.as_graph_def().library.function for node in each.node_def)
    return Counter({kind: count for kind, count in found.items() if kind in UNDIFFERENTIABLE})


@contextlib.contextmanager
def exact_moments() -> Iterator[None]:
    """A context in which `tf.nn.moments` has all derivatives, so that those of LayerNormalization and the like are right.

    With m̄ as TensorFlow takes it, a constant, the variance is mean((x − m)²) = mean((x − m̄)²) − (m − m̄)². What is taken off is
    0, and so is its gradient: values and gradients stay as they are, to the last bit.
    """
    original = tf.nn.moments
    if getattr(original, "exact", False):
        yield
        return

    def moments(*arguments: Any, **options: Any) -> Any:
        mean, variance = original(*arguments, **options)
        return mean, variance - tf.square(mean - tf.stop_gradient(mean))

    moments.exact = True  # type: ignore[attr-defined]
    tf.nn.moments = moments
    try:
        yield
    finally:
        tf.nn.moments = original
