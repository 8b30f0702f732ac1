"""Acting: from observations to distribution parameters, at every environment step, without TensorFlow's overhead.

A stack of dense layers is mirrored into NumPy, which costs a tenth of a compiled call at these sizes. Any other model runs as
one XLA program. The rule looks at the model alone, never at timings, so that a seed always gives the same numbers.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Actor = Callable[[np.ndarray], Any]

_ACTIVATIONS: dict[Any, Callable[[np.ndarray], Any]] = {
    keras.activations.linear: lambda x: None,
    keras.activations.tanh: lambda x: np.tanh(x, out=x),
    keras.activations.relu: lambda x: np.maximum(x, 0.0, out=x),
}


def dense_stack(network: keras.Model) -> list[keras.layers.Dense] | None:
    """The layers of a plain sequential stack of float32 `Dense` layers that NumPy can mirror, else `None`."""
    if type(network) is not keras.Sequential or len(network.input_shape) != 2:
        return None
    plain = all(
        type(layer) is keras.layers.Dense
        and layer.activation in _ACTIVATIONS
        and layer.compute_dtype == "float32"
        and getattr(layer, "lora_rank", None) is None
        and getattr(layer, "quantization_mode", None) is None
        for layer in network.layers
    )
    return list(network.layers) if plain and network.layers else None


def numpy_stack(layers: list[keras.layers.Dense]) -> Actor:
    """The layers as one function of NumPy arrays, at their present weights. (N, in) to (N, out)."""
    stages = [
        (
            layer.kernel.numpy(),
            layer.bias.numpy() if layer.use_bias else None,
            _ACTIVATIONS[layer.activation],
        )
        for layer in layers
    ]

    def forward(x: np.ndarray) -> np.ndarray:
        for kernel, bias, activate in stages:
            x = x @ kernel
            if bias is not None:
                x += bias
            activate(x)
        return x

    return forward


def compiled(function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
    """`function` of batches as one XLA program for each batch size, with NumPy in and out."""
    program = tf.function(function, input_signature=specs, jit_compile=True, autograph=False)
    return lambda *batches: tf.nest.map_structure(lambda y: y.numpy(), program(*batches))
