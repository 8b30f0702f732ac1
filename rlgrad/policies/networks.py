"""Default networks: multilayer perceptrons with orthogonal initial weights."""

import math
from collections.abc import Sequence

import keras
import numpy as np

from rlgrad import random


def mlp(
    observation_shape: tuple[int, ...],
    units: int,
    *,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    last_gain: float = 1.0,
    seed: np.random.SeedSequence,
    name: str,
    output_shape: tuple[int, ...] | None = None,
) -> keras.Sequential:
    """A multilayer perceptron, linear at the end.

    Args:
        observation_shape: one observation's shape; more than one axis is flattened.
        units: width of the last layer.
        hidden_sizes: widths of the hidden layers.
        activation: of the hidden layers, a Keras name.
        last_gain: scale of the last layer's orthogonal weights; small for a policy, so that it begins near uniform.
        seed: for the initial weights.
        name: of the model; its variables are `name/hidden_1/kernel`, ….
        output_shape: what the units are reshaped to; none: (units,).

    Returns:
        A built `keras.Sequential`, (N, *observation_shape) to (N, units).

    Source: orthogonal weights of gain √2 and a small last layer follow Andrychowicz et al. (2021).
    """
    widths = [*hidden_sizes, units]
    gains = [math.sqrt(2.0)] * len(hidden_sizes) + [last_gain]
    activations = [activation] * len(hidden_sizes) + ["linear"]
    names = [f"hidden_{i + 1}" for i in range(len(hidden_sizes))] + ["output"]
    layers: list[keras.layers.Layer] = [keras.Input(observation_shape)]
    if len(observation_shape) != 1:
        layers.append(keras.layers.Flatten())
    for i, (width, gain, function, layer_name) in enumerate(zip(widths, gains, activations, names, strict=True)):
        initializer = keras.initializers.Orthogonal(gain, seed=random.integer_seed(random.child(seed, i)))
        layers.append(keras.layers.Dense(width, function, kernel_initializer=initializer, name=layer_name))
    if output_shape is not None and len(output_shape) != 1:
        layers.append(keras.layers.Reshape(output_shape))
    return keras.Sequential(layers, name=name)
