"""Default networks: each leaf of the observation as its encoder encodes it, side by side, then hidden layers and linear heads.

With memory, a GRU or LSTM cell comes after the hidden layers, and the network makes one step: `rlgrad.policies.recurrent` says
what it maps. An observation that is one picture needs no hidden layers: its convolutions end in a dense one.

Source: orthogonal weights of gain √2 and a small last layer follow Andrychowicz et al. (2021).
"""

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlgrad import random
from rlgrad.policies.critic_options import PLAIN_CRITICS, CriticNetwork
from rlgrad.policies.initializers import Sparse
from rlgrad.spaces.branches import branch
from rlgrad.spaces.layers import GAIN, dense
from rlgrad.spaces.masks import OBSERVATION
from rlgrad.spaces.table import encoder_for, is_ours

STATE = "state"
_ACTION = "action"  # the input of critics beside the observation
_EPSILON = 1e-5  # of layer normalization, as in PyTorch
_LONGEST = 100  # steps that a memory is initialized to span
_CLIPPING = {"rmin": 1 / 3, "rmax": 3.0, "dmax": 5.0}  # of batch renormalization, Ioffe (2017), section 3


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Settings of the default networks.

    Attributes:
        hidden_sizes: widths of the hidden layers.
        activation: of the hidden layers, a Keras name; `leaky_relu(0.01)` is one of that slope.
        layer_norm: normalize each hidden layer before its activation.
        fixed_layer_norm: without its scale and shift, which are trained.
        sparsity: share of each unit's inputs whose initial weight is 0, the others being uniform; 0: orthogonal weights.
        memory: the recurrent cell after the hidden layers; `None`: no memory.
        memory_size: units of that cell.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    layer_norm: bool = False
    fixed_layer_norm: bool = False
    sparsity: float = 0.0
    memory: Literal["gru", "lstm"] | None = None
    memory_size: int = 64


def network(
    space: spaces.Space[Any],
    output_shape: tuple[int, ...],
    options: NetworkOptions,
    *,
    last_gain: float = 1.0,
    dueling: bool = False,
    with_features: bool = False,
    seed: np.random.SeedSequence,
    name: str,
) -> keras.Model:
    """Build a network with one linear head.

    Args:
        space: of the observations that it takes.
        output_shape: of its output for one observation.
        options: hidden layers and memory.
        last_gain: scale of the last layer's orthogonal weights; small for a policy, so that it begins near uniform.
        dueling: the head is a value of the state and an advantage of each action, of which the first axis of the output is.
        with_features: the output is a vector, to which the inputs of the head are appended.
        seed: for the initial weights.
        name: of the model; of a vector's, the variables are `name/hidden_1/kernel`, ….

    Returns:
        A built model, (N, …) to (N, *output_shape); with memory to a dict in which this stands under `name`.
    """
    last = random.child(seed, len(options.hidden_sizes))
    head = (_dueling_head if dueling else _head)(output_shape, last_gain, last, "output", options.sparsity)
    if options.memory is not None:
        inputs, features, after = _recurrent_features(space, options, seed)
        return keras.Model(inputs, {name: _said(head, features, with_features), **after}, name=name)
    if with_features or branch(space) is not None or not encoder_for(space).flattens():
        inputs, features = _features(space, options, seed)
        return keras.Model(inputs, _said(head, features, with_features), name=name)
    shape, dtype = encoder_for(space).input_spec()
    flatten = [] if len(shape) == 1 else [keras.layers.Flatten()]
    layers = [keras.Input(shape, dtype=dtype), *flatten, *_hidden(options, seed), *head]
    return keras.Sequential(layers, name=name)


def shared_trunk(
    space: spaces.Space[Any],
    output_shape: tuple[int, ...],
    options: NetworkOptions,
    *,
    last_gain: float = 0.01,
    with_features: bool = False,
    seed: np.random.SeedSequence,
) -> keras.Model:
    """Build a network whose policy and value share all but their linear heads.

    Args:
        space: of the observations that it takes.
        output_shape: shape of the policy's output for one observation.
        options: hidden layers and memory, which both heads share.
        last_gain: scale of the policy head's weights; the value's is 1.
        with_features: append the inputs of the heads to the policy's output.
        seed: for the initial weights.

    Returns:
        A built model, (N, …) to `{"policy": (N, *output_shape), "value": (N, 1)}`.
    """
    if options.memory is None:
        inputs, features = _features(space, options, seed)
        after: dict[str, Any] = {}
    else:
        inputs, features, after = _recurrent_features(space, options, seed)
    last = len(options.hidden_sizes)
    sparsity = options.sparsity
    head = _head(output_shape, last_gain, random.child(seed, last), "policy", sparsity)
    policy = _said(head, features, with_features)
    value = _apply(_head((1,), 1.0, random.child(seed, last + 1), "value", sparsity), features)
    return keras.Model(inputs, {"policy": policy, "value": value, **after}, name="actor_critic")


def critic(
    space: spaces.Space[Any],
    action_size: int,
    options: NetworkOptions,
    own: CriticNetwork,
    *,
    quantiles: int = 0,
    seed: np.random.SeedSequence,
    name: str,
) -> keras.Model:
    """Build a critic: a value of an observation and an action.

    Args:
        space: of the observations that it takes.
        action_size: numbers of an action; 0: it says a value of each of several actions, as `quantiles`.
        options: hidden layers. Pictures are encoded first, and the action comes beside what they turn out to be.
        own: what differs in critics.
        quantiles: of the return, that it says; 0: its expectation.
        seed: for the initial weights.
        name: of the model.

    Returns:
        A built model, [(N, …), (N, action_size)] to (N, 1), or to (N, quantiles); of observations alone if there is no action.
    """
    sizes = options.hidden_sizes if own.hidden_sizes is None else own.hidden_sizes
    options = replace(options, hidden_sizes=sizes, layer_norm=options.layer_norm or own.layer_norm)
    inputs, parts = _encode(space, random.child(seed, len(options.hidden_sizes) + 2), (), options.sparsity)
    action = keras.Input((action_size,), name=_ACTION) if action_size else None
    layers = _hidden(options, seed, f"{name}_", own)
    last = random.child(seed, len(options.hidden_sizes))
    head = _head((quantiles or 1,), 1.0, last, f"{name}_output", options.sparsity)
    given = [inputs, action] if action_size else inputs
    parts = [*parts, action] if action_size else parts
    together = keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    return keras.Model(given, _apply([*layers, *head], together), name=name)


def _recurrent_features(
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
    inputs, parts = _encode(space, random.child(seed, len(options.hidden_sizes) + 2), path, options.sparsity)
    if len(parts) == 1 and branch(space) is None and encoder_for(space).is_deep():
        return inputs, parts[0]
    together = parts[0] if len(parts) == 1 else keras.layers.Concatenate()(parts)
    return inputs, _apply(_hidden(options, seed), together)


def _encode(
    space: spaces.Space[Any], seed: np.random.SeedSequence, path: tuple[Any, ...], sparsity: float
) -> tuple[Any, list[Any]]:
    """Return the inputs of a space, and its leaves as vectors. The path names a leaf's layers."""
    parts = branch(space)
    if parts is not None:
        below = [
            _encode(part, random.child(seed, i), (*path, key), sparsity)
            for i, (key, part) in enumerate(parts.parts.items())
        ]
        return parts.build([inputs for inputs, _ in below]), [vector for _, vectors in below for vector in vectors]
    encoder, name = encoder_for(space), "_".join(map(str, path)) or None
    shape, dtype = encoder.input_spec()
    x = keras.Input(shape, dtype=dtype, name=name)
    if not is_ours(encoder):  # which may leave its layers' seeds to Keras
        keras.utils.set_random_seed(random.integer_seed(seed))
    vectors = encoder.encode(x, seed, name)
    if sparsity and is_ours(encoder):
        _make_sparse(keras.Model(x, vectors), sparsity, seed)
    return x, vectors


def _make_sparse(model: keras.Model, sparsity: float, seed: np.random.SeedSequence) -> None:
    """Give the convolutions and dense layers of an encoder sparse weights; of a convolution each filter is a unit."""
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    for i, kernel in enumerate(kernels):
        kernel.assign(Sparse(sparsity, random.integer_seed(random.child(seed, i, 1)))(kernel.shape, kernel.dtype))


def _hidden(
    options: NetworkOptions, seed: np.random.SeedSequence, prefix: str = "", critic: CriticNetwork = PLAIN_CRITICS
) -> list[Any]:
    layers = _batch_norm(critic, f"{prefix}input")
    for i, width in enumerate(options.hidden_sizes):
        name, own = f"{prefix}hidden_{i + 1}", random.child(seed, i)
        activation, slope = options.activation, slope_of(options.activation)
        if not options.layer_norm and not critic.dropout and slope is None:
            layers.append(_dense(width, activation, GAIN, own, name, options.sparsity))
            layers += _batch_norm(critic, name)
            continue
        layers.append(_dense(width, "linear", GAIN, own, name, options.sparsity))
        if critic.dropout:
            drawn = random.integer_seed(random.child(own, 1))
            layers.append(keras.layers.Dropout(critic.dropout, seed=drawn, name=f"{name}_dropout"))
        if options.layer_norm:
            weights = not options.fixed_layer_norm
            norm = keras.layers.LayerNormalization(epsilon=_EPSILON, center=weights, scale=weights, name=f"{name}_norm")
            layers.append(norm)
        if slope is None:
            layers.append(keras.layers.Activation(activation, name=f"{name}_{activation}"))
        else:
            layers.append(keras.layers.LeakyReLU(negative_slope=slope, name=f"{name}_leaky_relu"))
        layers += _batch_norm(critic, name)
    return layers


def _batch_norm(critic: CriticNetwork, name: str) -> list[Any]:
    """Return the normalization of a critic's layer, an empty list if it has none."""
    if critic.batch_norm is None:
        return []
    renorm = {"renorm": True, "renorm_clipping": _CLIPPING} if critic.batch_norm == "renorm" else {}
    return [keras.layers.BatchNormalization(momentum=critic.momentum, name=f"{name}_batch_norm", **renorm)]


def slope_of(activation: str) -> float | None:
    """Return the slope of `leaky_relu(0.01)` and the like, which Keras has no name for; `None`: it is another activation."""
    found = re.fullmatch(r"leaky_relu\((\d*\.?\d+)\)", activation)
    return None if found is None else float(found[1])


def _dense(
    units: int, activation: str, gain: float, seed: np.random.SeedSequence, name: str, sparsity: float
) -> keras.layers.Layer:
    if not sparsity:
        return dense(units, activation, gain, seed, name)
    initializer = Sparse(sparsity, random.integer_seed(seed))
    return keras.layers.Dense(units, activation, kernel_initializer=initializer, name=name)


def _head(shape: tuple[int, ...], gain: float, seed: np.random.SeedSequence, name: str, sparsity: float) -> list[Any]:
    """Return a linear layer, and a reshape if its units have more than one axis."""
    linear = _dense(math.prod(shape), "linear", gain, seed, name, sparsity)
    return [linear] if len(shape) == 1 else [linear, keras.layers.Reshape(shape)]


@keras.saving.register_keras_serializable("rlgrad")
class Dueling(keras.layers.Layer):
    """A value and advantages, (N, 1 + A, …), to action values, (N, A, …): v + (advantage − mean of the advantages).

    Source: Wang et al. (2016), "Dueling network architectures for deep reinforcement learning", equation 9.
    """

    def call(self, x: Any) -> Any:
        """Return the action values."""
        advantages = x[:, 1:]
        return x[:, :1] + advantages - keras.ops.mean(advantages, axis=1, keepdims=True)


def _dueling_head(
    shape: tuple[int, ...], gain: float, seed: np.random.SeedSequence, name: str, sparsity: float
) -> list[Any]:
    return [*_head((shape[0] + 1, *shape[1:]), gain, seed, f"{name}_parts", sparsity), Dueling(name=name)]


def _said(head: list[Any], features: Any, with_features: bool) -> Any:
    """Return the output of a head, with its inputs after it if they are asked for."""
    output = _apply(head, features)
    return keras.layers.Concatenate(name="with_features")([output, features]) if with_features else output


def _apply(layers: list[Any], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


def cell(kind: Literal["gru", "lstm"], units: int, seed: np.random.SeedSequence) -> keras.layers.Layer:
    """Return a Keras cell, one step of a memory. Its gates start with time scales from 1 to 100 steps.

    Args:
        kind: the cell.
        units: its width.
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
        return keras.layers.GRUCell(units, bias_initializer=_Values(bias), **options)
    bias = np.concatenate([-keeps, keeps, zeros, zeros])  # gates: input, forget, candidate, output
    return keras.layers.LSTMCell(units, bias_initializer=_Values(bias), unit_forget_bias=False, **options)


class _Values(keras.initializers.Initializer):
    """Initialize a variable to these numbers."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values).tolist()

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return keras.ops.reshape(keras.ops.convert_to_tensor(self.values, dtype), shape)

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values}
