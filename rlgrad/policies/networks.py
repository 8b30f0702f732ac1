"""Default networks: multilayer perceptrons with orthogonal initial weights."""

import math
from collections.abc import Sequence
from typing import Any

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
    layers = _hidden(observation_shape, hidden_sizes, activation, seed)
    layers.append(_dense(units, "linear", last_gain, random.child(seed, len(hidden_sizes)), "output"))
    if output_shape is not None and len(output_shape) != 1:
        layers.append(keras.layers.Reshape(output_shape))
    return keras.Sequential(layers, name=name)


def shared_trunk(
    observation_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    *,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    last_gain: float = 0.01,
    seed: np.random.SeedSequence,
) -> keras.Model:
    """Hidden layers that the policy and the value share, with a linear head for each.

    Args:
        observation_shape: one observation's shape.
        output_shape: shape of the distribution's parameters.
        hidden_sizes: widths of the shared layers.
        activation: of the shared layers.
        last_gain: scale of the policy head's weights; the value's is 1.
        seed: for the initial weights.

    Returns:
        A built model, (N, *observation_shape) to `{"policy": (N, *output_shape), "value": (N, 1)}`.
    """
    trunk = keras.Sequential(_hidden(observation_shape, hidden_sizes, activation, seed), name="trunk")
    observations = keras.Input(observation_shape)
    features, last = trunk(observations), len(hidden_sizes)
    policy = _dense(math.prod(output_shape), "linear", last_gain, random.child(seed, last), "policy")(features)
    if len(output_shape) != 1:
        policy = keras.layers.Reshape(output_shape)(policy)
    value = _dense(1, "linear", 1.0, random.child(seed, last + 1), "value")(features)
    return keras.Model(observations, {"policy": policy, "value": value}, name="actor_critic")


def _hidden(
    observation_shape: tuple[int, ...], sizes: Sequence[int], activation: str, seed: np.random.SeedSequence
) -> list[Any]:
    layers: list[Any] = [keras.Input(observation_shape)]
    if len(observation_shape) != 1:
        layers.append(keras.layers.Flatten())
    gain = math.sqrt(2.0)
    return layers + [
        _dense(width, activation, gain, random.child(seed, i), f"hidden_{i + 1}") for i, width in enumerate(sizes)
    ]


def _dense(units: int, activation: str, gain: float, seed: np.random.SeedSequence, name: str) -> keras.layers.Layer:
    initializer = keras.initializers.Orthogonal(gain, seed=random.integer_seed(seed))
    return keras.layers.Dense(units, activation, kernel_initializer=initializer, name=name)
