"""Acting: from observations to distribution parameters, at every environment step, without TensorFlow's overhead.

A chain of dense layers, and of what stands between them, is mirrored into NumPy, which costs a tenth of a compiled call at
these sizes. Any other model runs as one program: a plain graph for convolutions on a CPU, through XLA otherwise. The rule
depends on the model alone, never on timings, so that a seed always gives the same numbers.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad.core.keras_internals import all_layers
from rlgrad.core.tensorflow_internals import trace
from rlgrad.mirrors.chains import Chain, Stage
from rlgrad.policies.networks import Dueling

Actor = Callable[[np.ndarray], Any]

_log = logging.getLogger("rlgrad")
_FUNCTIONAL = type(keras.Model(one := keras.Input((1,)), one))
_TOLERANCE = 1e-5  # of the mirror's outputs, relative to the network's largest

_ACTIVATIONS: dict[Any, str] = {
    keras.activations.linear: "linear",
    keras.activations.tanh: "tanh",
    keras.activations.relu: "relu",
}


class Mirror:
    """A chain of layers in NumPy, at the current weights.

    Args:
        layers: from `chain`.
        others: returns further tensors to read along with the weights.

    Attributes:
        chain: the layers as plain data, without the weights.
    """

    def __init__(self, layers: Sequence[keras.layers.Layer], others: Callable[[], list[Any]]) -> None:
        self._layers = [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
        self._others = others
        self.chain = Chain(tuple(map(_stage, self._layers)), tuple(tuple(x.shape) for x in self._tensors()))

    @cached_property
    def _read(self) -> Any:
        # One program and one array: reading each variable by itself would cost as much for each of them.
        return trace(self.packed, jit_compile=True)

    def packed(self) -> tf.Tensor:
        """Return all current numbers as one tensor, float32 (P,). A program that has just changed them can return it."""
        return tf.concat([tf.reshape(x, (-1,)) for x in self._tensors()], axis=0)

    def numbers(self) -> np.ndarray:
        """Return the value of `packed` at the current weights."""
        numbers: np.ndarray = self._read().numpy()
        return numbers

    def agrees_with(self, network: keras.Model) -> bool:
        """Return whether the chain gives the network's outputs for random observations. Warn if it does not."""
        x = np.random.default_rng(0).normal(size=(16, *network.input_shape[1:])).astype(np.float32)
        outputs = network(x, training=False)
        expected = np.asarray(outputs["policy"] if isinstance(outputs, dict) else outputs)
        gap = np.max(np.abs(self.chain.at(self.packed().numpy())[0](x) - expected))
        if gap <= _TOLERANCE * max(1.0, np.max(np.abs(expected))):
            return True
        _log.warning(
            "Acting in NumPy differs by %.1e from the Keras model, which therefore acts itself, compiled.", gap
        )
        return False

    def _tensors(self) -> list[tf.Tensor]:
        weights = [v.value for layer in self._layers for v in layer.weights]
        return [tf.convert_to_tensor(x) for x in (*weights, *self._others())]


def chain(network: keras.Model) -> list[keras.layers.Layer] | None:
    """Return the layers from the input to the policy's output, or `None` if NumPy cannot mirror them one after the other."""
    if type(network) is keras.Sequential:
        layers = list(network.layers)
    elif type(network) is _FUNCTIONAL and not isinstance(network.input, dict | list | tuple):
        layers = _path(network)
    else:
        return None
    return layers if any(map(_is_dense, layers)) and all(map(_mirrored, layers)) else None


def gains_from_xla(model: keras.Model) -> bool:
    """Return `False` for convolutions on a CPU, whose gradients take XLA many times as long as TensorFlow's own kernels."""
    return not convolves(model) or bool(tf.config.list_physical_devices("GPU"))


def convolves(model: keras.Model) -> bool:
    """Return whether any layer is a convolution."""
    return any("Conv" in kind.__name__ for layer in all_layers(model) for kind in type(layer).__mro__)


def compiled(function: Callable[..., Any], *specs: Any, xla: bool = True) -> Callable[..., Any]:
    """Return `function` of batches as one program (with XLA, one for each batch size) with NumPy arrays in and out."""
    program = trace(function, *specs, jit_compile=xla or None)

    def call(*batches: Any) -> Any:
        return tf.nest.map_structure(lambda y: y.numpy(), program(*tf.nest.map_structure(tf.constant, batches)))

    return call


def _path(network: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a functional model from its input to the policy's output; none if they are no single path."""
    output = network.output["policy"] if isinstance(network.output, dict) else network.output
    layers: list[keras.layers.Layer] = []
    while output is not network.input:
        try:
            before = next(layer for layer in network.layers if layer.output is output)
        except (StopIteration, AttributeError, ValueError):  # a layer that is called twice has no output
            return []
        layers.insert(0, before)
        output = before.input
    return layers


def _mirrored(layer: keras.layers.Layer) -> bool:
    rule = _STAGES.get(type(layer))
    return type(layer) is keras.layers.InputLayer or (rule is not None and rule[0](layer))


def _stage(layer: keras.layers.Layer) -> Stage:
    kind, option = _STAGES[type(layer)][1:]
    return Stage(kind, option(layer), len(layer.weights))


def _is_dense(layer: keras.layers.Layer) -> bool:
    return (
        type(layer) is keras.layers.Dense
        and layer.activation in _ACTIVATIONS
        and layer.compute_dtype == "float32"
        and getattr(layer, "lora_rank", None) is None
        and getattr(layer, "quantization_mode", None) is None
    )


def _is_plain_norm(layer: keras.layers.Layer) -> bool:
    options = layer.get_config()
    plain = options["center"] == options["scale"] and not options.get("rms_scaling")
    return plain and options["axis"] in (-1, [-1]) and layer.compute_dtype == "float32"


# By kind of layer: whether NumPy can compute one, its kind of stage, and the stage's option.
_STAGES: dict[Any, tuple[Callable[[Any], bool], str, Callable[[Any], Any]]] = {
    keras.layers.Dense: (_is_dense, "dense", lambda layer: _ACTIVATIONS[layer.activation]),
    keras.layers.LayerNormalization: (_is_plain_norm, "norm", lambda layer: layer.epsilon),
    keras.layers.LeakyReLU: (lambda _: True, "leaky", lambda layer: layer.negative_slope),
    keras.layers.Activation: (
        lambda layer: layer.activation in _ACTIVATIONS,
        "activation",
        lambda layer: _ACTIVATIONS[layer.activation],
    ),
    keras.layers.Flatten: (lambda layer: bool(layer.data_format == "channels_last"), "flatten", lambda _: None),
    keras.layers.Reshape: (lambda _: True, "reshape", lambda layer: tuple(layer.target_shape)),
    Dueling: (lambda _: True, "duel", lambda _: None),
}
