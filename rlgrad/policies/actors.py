"""Acting: from observations to distribution parameters, at every environment step, without TensorFlow's overhead.

A chain of dense layers, and of what stands between them, is mirrored into NumPy, which costs a tenth of a compiled call at
these sizes. Any other model runs as one program: a plain graph for convolutions on a CPU, through XLA otherwise. The rule
depends on the model alone, never on timings, so that a seed always gives the same numbers.
"""

import logging
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad.core.keras_internals import all_layers
from rlgrad.core.tensorflow_internals import trace
from rlgrad.policies.networks import Dueling

Actor = Callable[[np.ndarray], Any]

_log = logging.getLogger("rlgrad")
_FUNCTIONAL = type(keras.Model(one := keras.Input((1,)), one))
_TOLERANCE = 1e-5  # of the mirror's outputs, relative to the network's largest

_ACTIVATIONS: dict[Any, Callable[[np.ndarray], Any]] = {
    keras.activations.linear: lambda x: x,
    keras.activations.tanh: lambda x: np.tanh(x, out=x),
    keras.activations.relu: lambda x: np.maximum(x, 0.0, out=x),
}


class Mirror:
    """A chain of layers in NumPy, at the current weights.

    Args:
        layers: from `chain`.
        others: returns further tensors to read along with the weights.
    """

    def __init__(self, layers: Sequence[keras.layers.Layer], others: Callable[[], list[Any]]) -> None:
        self._layers = [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
        self._others = others
        self._shapes = [tuple(x.shape) for x in self._tensors()]

    @cached_property
    def _read(self) -> Any:
        # One program and one array: reading each variable by itself would cost as much for each of them.
        return trace(self.packed, jit_compile=True)

    def packed(self) -> tf.Tensor:
        """Return all current numbers as one tensor, float32 (P,). A program that has just changed them can return it."""
        return tf.concat([tf.reshape(x, (-1,)) for x in self._tensors()], axis=0)

    def actor(self, packed: np.ndarray | None = None) -> tuple[Actor, list[np.ndarray]]:
        """Return the chain as a function of NumPy arrays, (N, in) to (N, out), and the other numbers.

        Args:
            packed: the value of `packed` at the current weights; `None`: the weights are read.
        """
        packed, at, arrays = self._read().numpy() if packed is None else packed, 0, []
        for shape in self._shapes:
            size = math.prod(shape)
            arrays.append(packed[at : at + size].reshape(shape))
            at += size
        numbers = iter(arrays)
        stages = [_stage(layer, [next(numbers) for _ in layer.weights]) for layer in self._layers]

        def forward(x: np.ndarray) -> np.ndarray:
            for stage in stages:
                x = stage(x)
            return x

        return forward, list(numbers)

    def agrees_with(self, network: keras.Model) -> bool:
        """Return whether the chain gives the network's outputs for random observations. Warn if it does not."""
        x = np.random.default_rng(0).normal(size=(16, *network.input_shape[1:])).astype(np.float32)
        outputs = network(x, training=False)
        expected = np.asarray(outputs["policy"] if isinstance(outputs, dict) else outputs)
        gap = np.max(np.abs(self.actor(self.packed().numpy())[0](x) - expected))
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


def _stage(layer: keras.layers.Layer, weights: list[np.ndarray]) -> Actor:
    return _STAGES[type(layer)][1](layer, weights)


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


def _dense(layer: keras.layers.Layer, weights: list[np.ndarray]) -> Actor:
    kernel, activate = weights[0], _ACTIVATIONS[layer.activation]
    if not layer.use_bias:
        return lambda x: activate(x.dot(kernel))
    bias = weights[1]

    def dense(x: np.ndarray) -> np.ndarray:
        x = x.dot(kernel)  # half a microsecond where `x @ kernel` takes one
        x += bias
        result: np.ndarray = activate(x)
        return result

    return dense


def _norm(layer: keras.layers.Layer, weights: list[np.ndarray]) -> Actor:
    epsilon = np.float32(layer.epsilon)

    def standardize(x: np.ndarray) -> np.ndarray:
        centered = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(centered).mean(axis=-1, keepdims=True)
        result: np.ndarray = centered / np.sqrt(variance + epsilon)
        return result

    if not weights:
        return standardize
    scale, shift = weights

    def normalize(x: np.ndarray) -> np.ndarray:
        result: np.ndarray = standardize(x) * scale + shift
        return result

    return normalize


def _leaky(layer: keras.layers.Layer, _: list[np.ndarray]) -> Actor:
    slope = np.float32(layer.negative_slope)
    return lambda x: np.where(x > 0.0, x, slope * x)


def _duel(x: np.ndarray) -> np.ndarray:
    advantages = x[:, 1:]
    result: np.ndarray = x[:, :1] + advantages - advantages.mean(axis=1, keepdims=True)
    return result


# By kind of layer: whether NumPy can compute one, and a function of arrays that does, from the layer and its weights.
_STAGES: dict[Any, tuple[Callable[[Any], bool], Callable[[Any, list[np.ndarray]], Actor]]] = {
    keras.layers.Dense: (_is_dense, _dense),
    keras.layers.LayerNormalization: (_is_plain_norm, _norm),
    keras.layers.LeakyReLU: (lambda _: True, _leaky),
    keras.layers.Activation: (
        lambda layer: layer.activation in _ACTIVATIONS,
        lambda layer, _: _ACTIVATIONS[layer.activation],
    ),
    keras.layers.Flatten: (
        lambda layer: bool(layer.data_format == "channels_last"),
        lambda *_: lambda x: x.reshape(len(x), -1),
    ),
    keras.layers.Reshape: (
        lambda _: True,
        lambda layer, _: lambda x: x.reshape(len(x), *layer.target_shape),
    ),
    Dueling: (lambda _: True, lambda *_: _duel),
}
