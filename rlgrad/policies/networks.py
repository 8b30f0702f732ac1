"""Default networks, by what an observation is: numbers, images, choices, or a tree of these. Orthogonal initial weights.

| leaf of the observation | encoded by |
|---|---|
| Box of numbers | flattened |
| Box (H, W, C), (C, H, W), or frames of either; sides ≥ 36 | Nature CNN: 32 of 8×8 by 4, 64 of 4×4 by 2, 64 of 3×3, dense 512 |
| the same, smaller; sides ≥ 5 | MinAtar CNN: 16 of 3×3, dense 128 |
| Discrete, MultiDiscrete | one-hot |
| MultiBinary | 0 and 1 |

A vector goes through the hidden layers; so do the parts of a tree, side by side; a single image has its dense layer. With
memory, a GRU or LSTM cell comes after them, and the network makes one step: `rlgrad.policies.recurrent` says what it maps.

Source: orthogonal weights of gain √2 and a small last layer follow Andrychowicz et al. (2021); the CNNs, Mnih et al. (2015) and
Young & Tian (2019).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlgrad import random
from rlgrad.spaces.masks import OBSERVATION

STATE = "state"
_NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512
_MINATAR = ((16, 3, 1),), 128
_GAIN = math.sqrt(2.0)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Settings of the default networks.

    Attributes:
        hidden_sizes: widths of the hidden layers.
        activation: of the hidden layers, a Keras name.
        memory: the recurrent cell after the hidden layers; `None`: no memory.
        memory_size: units of that cell.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    memory: Literal["gru", "lstm"] | None = None
    memory_size: int = 64


def network(
    space: spaces.Space[Any],
    output_shape: tuple[int, ...],
    options: NetworkOptions,
    *,
    last_gain: float = 1.0,
    seed: np.random.SeedSequence,
    name: str,
) -> keras.Model:
    """Build a network with one linear head.

    Args:
        space: of the observations that it takes.
        output_shape: of its output for one observation.
        options: hidden layers and memory.
        last_gain: scale of the last layer's orthogonal weights; small for a policy, so that it begins near uniform.
        seed: for the initial weights.
        name: of the model; of a vector's, the variables are `name/hidden_1/kernel`, ….

    Returns:
        A built model, (N, …) to (N, *output_shape); with memory to a dict in which this stands under `name`.
    """
    last = random.child(seed, len(options.hidden_sizes))
    head = _head(output_shape, last_gain, last, "output")
    if options.memory is not None:
        inputs, features, after = _remembered(space, options, seed)
        return keras.Model(inputs, {name: _through(head, features), **after}, name=name)
    if not _is_vector(space):
        inputs, features = _features(space, options, seed)
        return keras.Model(inputs, _through(head, features), name=name)
    flatten = [] if len(space.shape or ()) == 1 else [keras.layers.Flatten()]
    layers = [keras.Input(space.shape), *flatten, *_hidden(options, seed), *head]
    return keras.Sequential(layers, name=name)


def shared_trunk(
    space: spaces.Space[Any],
    output_shape: tuple[int, ...],
    options: NetworkOptions,
    *,
    last_gain: float = 0.01,
    seed: np.random.SeedSequence,
) -> keras.Model:
    """Build a network whose policy and value share all but their linear heads.

    Args:
        space: of the observations that it takes.
        output_shape: shape of the policy's output for one observation.
        options: hidden layers and memory, which both heads share.
        last_gain: scale of the policy head's weights; the value's is 1.
        seed: for the initial weights.

    Returns:
        A built model, (N, …) to `{"policy": (N, *output_shape), "value": (N, 1)}`.
    """
    if options.memory is None:
        inputs, features = _features(space, options, seed)
        after: dict[str, Any] = {}
    else:
        inputs, features, after = _remembered(space, options, seed)
    last = len(options.hidden_sizes)
    policy = _through(_head(output_shape, last_gain, random.child(seed, last), "policy"), features)
    value = _through(_head((1,), 1.0, random.child(seed, last + 1), "value"), features)
    return keras.Model(inputs, {"policy": policy, "value": value, **after}, name="actor_critic")


def _remembered(
    space: spaces.Space[Any], options: NetworkOptions, seed: np.random.SeedSequence
) -> tuple[Any, Any, dict[str, Any]]:
    """Return the inputs of one step, the features for the heads, and the further output: the state after the step."""
    inputs, features = _features(space, options, seed, (OBSERVATION,))
    assert options.memory is not None
    remember = cell(options.memory, options.memory_size, random.child(seed, len(options.hidden_sizes) + 3))
    widths = tf.nest.flatten(remember.state_size)
    before = tuple(keras.Input((width,), name=f"{STATE}_{i}") for i, width in enumerate(widths))
    output, after = remember(features, before)
    return {OBSERVATION: inputs, STATE: before}, output, {STATE: tuple(after)}


def _features(
    space: spaces.Space[Any], options: NetworkOptions, seed: np.random.SeedSequence, path: tuple[Any, ...] = ()
) -> tuple[Any, Any]:
    """Return the inputs, a tree like the space, and the features for the heads."""
    inputs, parts = _encoded(space, random.child(seed, len(options.hidden_sizes) + 2), path)
    if len(parts) == 1 and _is_image(space):
        return inputs, parts[0]
    together = parts[0] if len(parts) == 1 else keras.layers.Concatenate()(parts)
    return inputs, _through(_hidden(options, seed), together)


def _encoded(space: spaces.Space[Any], seed: np.random.SeedSequence, path: tuple[Any, ...]) -> tuple[Any, list[Any]]:
    """The inputs of a space, and each leaf as a vector. The path names a leaf's layers."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = list(space.items()) if isinstance(space, spaces.Dict) else list(enumerate(space))
        below = [_encoded(leaf, random.child(seed, i), (*path, key)) for i, (key, leaf) in enumerate(inner)]
        trees = [inputs for inputs, _ in below]
        inputs = dict(zip(space, trees, strict=True)) if isinstance(space, spaces.Dict) else tuple(trees)
        return inputs, [part for _, parts in below for part in parts]
    shape = tuple(space.shape or ())
    integers = not isinstance(space, spaces.Box)
    name = "_".join(map(str, path)) or None
    x = keras.Input(shape, dtype="int32" if integers else "float32", name=name)
    if isinstance(space, spaces.Discrete):
        return x, [keras.ops.one_hot(x - int(space.start), int(space.n))]
    if isinstance(space, spaces.MultiDiscrete):
        choices = keras.ops.reshape(x, (-1, math.prod(shape)))
        counts, start = space.nvec.reshape(-1), space.start.reshape(-1)
        return x, [keras.ops.one_hot(choices[:, i] - int(start[i]), int(n)) for i, n in enumerate(counts)]
    if isinstance(space, spaces.MultiBinary):
        return x, [keras.ops.cast(keras.ops.reshape(x, (-1, math.prod(shape))), "float32")]
    return x, [_image_features(x, seed, name) if _is_image(space) else keras.layers.Flatten()(x)]


def _image_features(x: Any, seed: np.random.SeedSequence, leaf: str | None) -> Any:
    prefix = "" if leaf is None else f"{leaf}_"
    if len(x.shape) == 5:  # frames (F, H, W, C) or (F, C, H, W): side by side as channels
        x = keras.layers.Permute((2, 3, 1, 4) if x.shape[4] < x.shape[2] else (3, 4, 1, 2))(x)
        x = keras.layers.Reshape((*x.shape[1:3], x.shape[3] * x.shape[4]))(x)
    elif x.shape[1] < min(x.shape[2:]):  # channels first
        x = keras.layers.Permute((2, 3, 1))(x)
    convolutions, width = _NATURE if min(x.shape[1:3]) >= 36 else _MINATAR
    for i, (filters, size, stride) in enumerate(convolutions):
        initializer = _orthogonal(_GAIN, random.child(seed, i))
        convolution = keras.layers.Conv2D(
            filters, size, stride, activation="relu", kernel_initializer=initializer, name=f"{prefix}conv_{i + 1}"
        )
        x = convolution(x)
    flat = keras.layers.Flatten()(x)
    return _dense(width, "relu", _GAIN, random.child(seed, len(convolutions)), f"{prefix}features")(flat)


def _is_vector(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and not _is_image(space)


def _is_image(space: spaces.Space[Any]) -> bool:
    """Three axes, or four with frames, of which the two longest are the picture's and at least 5 long."""
    if not isinstance(space, spaces.Box) or len(space.shape) not in (3, 4):
        return False
    picture = space.shape[-3:] if len(space.shape) == 3 else space.shape[1:]
    return sorted(picture)[1] >= 5 and picture[1] >= 5


def _hidden(options: NetworkOptions, seed: np.random.SeedSequence) -> list[Any]:
    return [
        _dense(width, options.activation, _GAIN, random.child(seed, i), f"hidden_{i + 1}")
        for i, width in enumerate(options.hidden_sizes)
    ]


def _head(shape: tuple[int, ...], gain: float, seed: np.random.SeedSequence, name: str) -> list[Any]:
    """A linear layer, and what gives its units their shape."""
    dense = _dense(math.prod(shape), "linear", gain, seed, name)
    return [dense] if len(shape) == 1 else [dense, keras.layers.Reshape(shape)]


def _dense(units: int, activation: str, gain: float, seed: np.random.SeedSequence, name: str) -> keras.layers.Layer:
    return keras.layers.Dense(units, activation, kernel_initializer=_orthogonal(gain, seed), name=name)


def _orthogonal(gain: float, seed: np.random.SeedSequence) -> keras.initializers.Initializer:
    return keras.initializers.Orthogonal(gain, seed=random.integer_seed(seed))


def _through(layers: list[Any], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


_LONGEST = 100  # steps


def cell(kind: Literal["gru", "lstm"], units: int, seed: np.random.SeedSequence) -> keras.layers.Layer:
    """A Keras cell, one step of a memory.

    Args:
        kind: which.
        units: that it has.
        seed: for the initial weights.
    """
    kernel, recurrent = (
        keras.initializers.Orthogonal(seed=random.integer_seed(random.child(seed, i))) for i in range(2)
    )
    scales = np.random.default_rng(random.child(seed, 2)).uniform(1.0, _LONGEST - 1.0, units)
    keeps, zeros = np.log(scales), np.zeros(units)
    options = {"kernel_initializer": kernel, "recurrent_initializer": recurrent, "name": kind}
    options["seed"] = random.integer_seed(random.child(seed, 3))  # of a dropout that is 0, but a variable all the same
    if kind == "gru":  # gates: update (how much is kept), reset, candidate; a second row for the recurrent part
        bias = np.stack([np.concatenate([keeps, zeros, zeros]), np.zeros(3 * units)])
        return keras.layers.GRUCell(units, bias_initializer=_Given(bias), **options)
    bias = np.concatenate([-keeps, keeps, zeros, zeros])  # gates: input, forget, candidate, output
    return keras.layers.LSTMCell(units, bias_initializer=_Given(bias), unit_forget_bias=False, **options)


class _Given(keras.initializers.Initializer):
    """Numbers that are known."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values).tolist()

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return keras.ops.reshape(keras.ops.convert_to_tensor(self.values, dtype), shape)

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values}
