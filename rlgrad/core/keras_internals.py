"""Everything that relies on Keras behavior which Keras does not promise. `test_keras_internals.py` pins each piece.

What is relied on:

- `layer.call` is looked up on the instance at each call, so an entry in `layer.__dict__` is what runs (`replaced_calls`).
- A layer's `activation` is the last thing that its `call` does, and `None` leaves it out (`split_activation`).
- `_remat_mode`, `quantization_mode` and `lora_enabled` say that a layer does not run its own `call` (`altered`).
- `keras.StatelessScope` decides what `variable.value` is, for everything that runs inside, in place of an outer one; the
  innermost one is what `get_stateless_scope` returns, and its `state_mapping` holds the values by the variables' ids
  (`values_in_place`, `placed_values`).
- `layer._flatten_layers()` lists a layer and everything below it (`all_layers`).
- `layer._losses` and `layer._loss_ids` hold what `add_loss` and activity regularizers left behind (`kept_losses`).
- Assignments to Keras variables inside a `StatelessScope` are not kept (`untouched.untouched`).
- Recurrent cells compute, at inference, what `recurrent_rules` writes out for them.
- `tensor._keras_history` names the operation that made a symbolic tensor (`ends_in_probabilities`).
- `layer._layers`, `_trainable_variables` and `_non_trainable_variables` are a layer's own parts, and together with
  `_trainable` of model and variables decide what `model.trainable_variables` is (`snapshots.Snapshot`).
- A layer's `__dict__` holds its attributes, those in which Keras keeps its own books among them (`bookkeeping`).
- `TFSMLayer.call_endpoint_fn` is the function that it runs (`has_saved_loops`).
- A layer's `compute_dtype` is what it computes in (`computes_in_half`).
- `variable.value` is the `tf.Variable` that a gradient tape watches (`tape_sources`).
- A tensor's mask is its attribute `_keras_mask` (`identity_with_mask`).
- `layer._seed_generators` are those of the layer alone. Each draws from its `state`, two integers, and assigns it at each
  draw. Draws without a generator take Keras's global one (`seed_generators`, `seed_states`).
"""

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from tensorflow.types.experimental import PolymorphicFunction

from rlgrad.core.code_names import without_compilation

# Captures change what a layer runs, for the duration of one call. Two threads must not do that at once.
_LOCK = threading.RLock()

_PROBABILITIES = {"softmax": "softmax", "sigmoid": "sigmoid", "hardsigmoid": "hard_sigmoid", "sparsemax": "sparsemax"}
# Layers that move numbers about without changing them at inference: what came in is what goes out.
_PASS_THROUGH = ("Dropout", "Flatten", "Reshape", "Permute", "Identity", "InputLayer")


# Whether a `TFSMLayer` holds a loop.
_SAVED_LOOPS: "weakref.WeakKeyDictionary[Any, bool]" = weakref.WeakKeyDictionary()


class Captured:
    """The values that one layer returned during one pass, and how often it was called."""

    def __init__(self) -> None:
        self.calls = 0
        self.output: Any = None


# Of a layer's own attributes, those that Keras itself reads around every `call`, and that can be set at any time.
ATTRIBUTES_THAT_SHAPE_CALLS = frozenset(
    {
        "call",
        "_dtype_policy",
        "_remat_mode",
        "autocast",
        "_convert_input_args",
        "_supports_masking",
        "_trainable",
        "name",
    }
    | {"_functional"}
)
# Set by `compile`, `fit`, `predict` and `export`; none of them is read where the model is called.
_TRAINING = frozenset(
    {"optimizer", "stop_training", "stop_predicting", "stop_evaluating", "history", "_compiled_trainable_state"}
    | {"_compile_config", "_eval_epoch_iterator", "_endpoint_names", "_endpoint_signatures"}
)


@functools.cache
def bookkeeping() -> frozenset[str]:
    """Return the names of attributes in which Keras keeps its own books on a layer or model."""
    own = {*vars(keras.layers.Layer()), *vars(keras.Model()), *vars(_smallest_functional()), *_TRAINING}
    return frozenset(own) - ATTRIBUTES_THAT_SHAPE_CALLS


@functools.cache
def base_classes() -> frozenset[type]:
    """Return the classes of Keras that run a layer's `call`, and have none of their own that computes."""
    return frozenset({*keras.Model.__mro__, *keras.Sequential.__mro__, *type(_smallest_functional()).__mro__})


def _smallest_functional() -> Any:
    x = keras.Input((1,))
    return keras.Model(x, x)


def require_tensorflow_backend() -> None:
    """Raises where Keras runs on another backend than TensorFlow.

    Raises:
        RuntimeError: `keras.backend.backend()` is not `"tensorflow"`.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "rlgrad.gradients differentiates with TensorFlow, but Keras runs on "
            f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow in the environment first."
        )


def all_layers(model: Any) -> list[Any]:
    """The model's layers at every depth, each once, without the model itself."""
    return list(model._flatten_layers(include_self=False))


def tape_sources(variables: Iterable[Any]) -> list[Any]:
    """The `tf.Variable`s behind Keras variables (a `tf.Variable` is returned as it is)."""
    return [variable.value if isinstance(variable, keras.Variable) else variable for variable in variables]


def placed_values() -> dict[int, Any]:
    """Return the values that the caller's `keras.StatelessScope` gives to variables, by the ids of these."""
    scope = get_stateless_scope()
    return {} if scope is None else scope.state_mapping


def seed_generators(layer: Any) -> list[Any]:
    """Return the generators of random numbers that a layer has, without those of layers in it."""
    return list(getattr(layer, "_seed_generators", ()))


def seed_states(model: Any) -> list[Any]:
    """Return the states of the generators that a model and its layers draw random numbers from, each once; the global last."""
    generators = [generator for layer in [model, *all_layers(model)] for generator in seed_generators(layer)]
    shared = get_global_attribute(GLOBAL_SEED_GENERATOR)
    generators += [] if shared is None else [shared]
    return list({id(generator.state): generator.state for generator in generators}.values())


@contextlib.contextmanager
def values_in_place(values: Iterable[tuple[Any, Any]]) -> Iterator[Mapping[int, Any]]:
    """While this context is open, Keras variables have other values, and assignments to them are not kept.

    Variables that are left out keep the value that an outer scope gives them; Keras's own scope would hide it.

    Args:
        values: variables, each with its value.

    Yields:
        The values that variables have, those that were assigned since included, by the variables' ids.
    """
    scope = keras.StatelessScope(state_mapping=values)
    outer = placed_values()
    with scope:
        scope.state_mapping = {**outer, **scope.state_mapping}
        yield scope.state_mapping


@contextlib.contextmanager
def kept_losses(layers: Iterable[Any]) -> Iterator[None]:
    """Leave the `losses` of these layers as they were; one thread at a time."""
    with _LOCK:
        before = [(layer, list(layer._losses), set(layer._loss_ids)) for layer in layers]
        try:
            yield
        finally:
            for layer, losses, loss_ids in before:
                layer._losses[:] = losses
                layer._loss_ids.clear()
                layer._loss_ids.update(loss_ids)


@contextlib.contextmanager
def capture(layer: Any) -> Iterator[Captured]:
    """Records what `layer` returns while this context is open; the layer computes what it always does."""
    captured = Captured()

    def call(original: Any, *args: Any, **kwargs: Any) -> Any:
        captured.calls += 1
        captured.output = original(*args, **kwargs)
        return captured.output

    with replaced_calls([(layer, call)]):
        yield captured


@contextlib.contextmanager
def replaced_calls(replacements: Iterable[tuple[Any, Callable[..., Any]]]) -> Iterator[None]:
    """While this context is open each layer runs its `replacement(original, *args, **kwargs)` as its `call`."""
    with _LOCK:
        before: list[tuple[dict[str, Any], dict[str, Any]]] = []
        try:
            for layer, replacement in replacements:
                attributes = layer.__dict__
                before.append((attributes, {"call": attributes["call"]} if "call" in attributes else {}))
                own = layer.call
                own = without_compilation(own) if isinstance(own, PolymorphicFunction) else own
                attributes["call"] = partial(replacement, own)
            yield
        finally:
            for attributes, own in reversed(before):
                attributes.pop("call", None)
                attributes.update(own)


@contextlib.contextmanager
def split_activation(layer: Any) -> Iterator[Any]:
    """While this context is open the layer's `call` leaves its activation out; what it left out is what `as` names."""
    attributes = layer.__dict__
    activation = attributes.get("activation")
    if activation is None:
        yield None
        return
    attributes["activation"] = None
    try:
        yield activation
    finally:
        attributes["activation"] = activation


def identity_with_mask(tensor: Any) -> Any:
    """Return a new tensor with the same numbers and the same Keras mask."""
    same = tf.identity(tensor)
    mask = getattr(tensor, "_keras_mask", None)
    if mask is not None:
        same._keras_mask = mask
    return same


def rematerialized_around(model: Any, layer: Any) -> bool:
    """Return True if a layer, or one that it lies in, forgets what it computed and computes it again to differentiate it."""
    return any(
        getattr(outer, "_remat_mode", None) is not None and any(layer is inner for inner in outer._flatten_layers())
        for outer in [model, *all_layers(model)]
    )


def altered(layer: Any) -> str | None:
    """Why a layer does something else than its class's `call`; `None` where it does just that."""
    if "call" in layer.__dict__:
        return "its call was replaced"
    if getattr(layer, "_remat_mode", None) is not None:
        return "it is rematerialized"
    if getattr(layer, "quantization_mode", None) is not None:
        return "it is quantized"
    if getattr(layer, "lora_enabled", False):
        return "LoRA is enabled"
    return None


def output_names(model: Any, count: int) -> list[str]:
    """Names for a model's list of `count` outputs: Keras's own where it has them, else their positions."""
    names = list(getattr(model, "output_names", None) or [])
    return names if len(names) == count and len(set(names)) == count else [str(i) for i in range(count)]


def symbolic_outputs(model: Any) -> dict[str, Any] | None:
    """A functional or Sequential model's symbolic outputs by name; `None` for a model that has none.

    A single output is under the name `""`. Outputs in a dict inside a dict get names joined by `/`.
    """
    try:
        outputs = model.outputs if isinstance(model, keras.Sequential) else model.output
    except (AttributeError, ValueError):
        return None
    if isinstance(outputs, list | tuple):
        if len(outputs) == 1:
            return {"": outputs[0]}
        return dict(zip(output_names(model, len(outputs)), outputs, strict=True))
    return dict(_named("", outputs))


def _named(prefix: str, outputs: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(outputs, dict):
        for name, inner in outputs.items():
            yield from _named(f"{prefix}/{name}" if prefix else str(name), inner)
    else:
        yield prefix, outputs


def ends_in_probabilities(model: Any, head: str | None = None) -> str | None:
    """The activation that turns a model's output into probabilities, where there is one.

    A categorical policy's network returns logits. One that ends in a softmax or a sigmoid returns probabilities, and
    log-probabilities computed from those as if they were logits are wrong without any sign of it.

    Args:
        model: a Keras model. Sequential and functional models can be looked into, also nested ones; what a subclassed
            model computes cannot be known without running it.
        head: which output, for a model with several.

    Returns:
        `"softmax"`, `"sigmoid"`, `"hard_sigmoid"` or `"sparsemax"`; `None` for another ending, or where it is not
        known.

    Raises:
        ValueError: the model has several outputs and `head` names none of them.
    """
    return _ends_in(_PROBABILITIES, model, head)


def ends_in_tanh(model: Any, head: str | None = None) -> bool:
    """Return True if a model's output is known to be a tanh. The arguments are those of `ends_in_probabilities`."""
    return _ends_in({"tanh": "tanh"}, model, head) is not None


def _ends_in(endings: Mapping[str, str], model: Any, head: str | None) -> str | None:
    outputs = symbolic_outputs(model)
    if outputs is None:
        unbuilt = isinstance(model, keras.Sequential) and model.layers
        return _activation_of(model.layers[-1], endings) if unbuilt else None
    if head is None and len(outputs) == 1:
        return _ending(next(iter(outputs.values())), endings)
    if head not in outputs:
        raise ValueError(f"The model has the outputs {list(outputs)}; got head={head!r}.")
    return _ending(outputs[head], endings)


def _ending(tensor: Any, endings: Mapping[str, str]) -> str | None:
    """Follows a symbolic tensor back to the operation that decides what its numbers are."""
    history = tensor._keras_history
    operation = history.operation
    if isinstance(operation, keras.Model):
        if symbolic_outputs(operation) is None:
            return None
        return _ending(keras.tree.flatten(operation.outputs)[history.tensor_index], endings)
    activation = _activation_of(operation, endings)
    if activation is not None:
        return activation
    if type(operation).__name__ in _PASS_THROUGH or _is_linear_activation(operation):
        sources = operation._inbound_nodes[history.node_index].input_tensors
        return _ending(sources[0], endings) if len(sources) == 1 else None
    return None


def _is_linear_activation(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.linear


def _activation_of(operation: Any, endings: Mapping[str, str]) -> str | None:
    """The name of an operation's own final activation if it is one of these endings."""
    inner = getattr(operation, "layer", None)
    if isinstance(inner, keras.layers.Layer):  # TimeDistributed and other wrappers
        return _activation_of(inner, endings)
    activation = getattr(operation, "activation", None)
    for candidate in (activation, operation):
        name = getattr(candidate, "__name__", type(candidate).__name__).lower().replace("_", "")
        if name in endings:
            return endings[name]
    return None


def expected_inputs(model: Any) -> Any:
    """A functional or built Sequential model's symbolic inputs, in the structure it takes; `None` if it has none."""
    try:
        inputs = model.inputs if isinstance(model, keras.Sequential) else model.input
    except (AttributeError, ValueError):
        return None
    if isinstance(inputs, list | tuple) and len(inputs) == 1:
        return inputs[0]
    return inputs


def stateful_layers(model: Any) -> list[str]:
    """Names of recurrent layers that keep their state from call to call: running them changes the model."""
    return [layer.name for layer in all_layers(model) if getattr(layer, "stateful", False) and hasattr(layer, "states")]


def has_loops(model: Any) -> bool:
    """Return True if a layer runs as a `while` loop over time: an RNN that is not unrolled."""
    return any(isinstance(layer, keras.layers.RNN) and not layer.unroll for layer in [model, *all_layers(model)])


def has_saved_loops(model: Any) -> bool:
    """Return True if a `TFSMLayer` holds a loop, such as that of a recurrent layer: TensorFlow differentiates it eagerly only.

    More exactly: eagerly or in a graph, whichever came first, and in a graph not inside of another loop.
    """
    return any(
        isinstance(layer, keras.layers.TFSMLayer) and _holds_loop(layer) for layer in [model, *all_layers(model)]
    )


def _holds_loop(layer: Any) -> bool:
    if layer not in _SAVED_LOOPS:
        endpoint = layer.call_endpoint_fn
        functions = getattr(endpoint, "concrete_functions", None) or [endpoint]
        graphs = [function.graph.as_graph_def() for function in functions if hasattr(function, "graph")]
        nodes = [node for graph in graphs for part in (graph, *graph.library.function) for node in _nodes(part)]
        _SAVED_LOOPS[layer] = any(node.op in ("While", "StatelessWhile") for node in nodes)
    return _SAVED_LOOPS[layer]


def _nodes(part: Any) -> Any:
    return part.node if hasattr(part, "node") else part.node_def


def computes_in_half(model: Any) -> bool:
    """Return True if a layer computes in float16 or bfloat16."""
    return any(
        getattr(layer, "compute_dtype", None) in ("float16", "bfloat16") for layer in [model, *all_layers(model)]
    )
