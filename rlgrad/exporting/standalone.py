"""A policy as one Keras model: raw observations in, the environment's own actions out.

| input | |
|---|---|
| `observation` | (N, …), as it is stored; of a Dict the leaves, by their keys, of a Tuple `observation_0`, … |
| `action_mask` | (N, actions), where there is one |
| `state_0`, … | (N, units), where the policy has a memory: zeros where an episode begins |

| output | |
|---|---|
| `action` | (N, …), the most likely one, ready for `env.step`; the parts of a Dict or Tuple are `action_<key>`, … |
| `logits`, or `mean` and `log_std` | the distribution's parameters; `heads` and `log_std` of a Dict or Tuple of actions |
| `mean` alone | of a deterministic policy: the action in half-widths of its space |
| `next_state_0`, … | (N, units), `state_0`, … of the next step |

The model holds the normalizer's current numbers as constants and divides bytes by 255 itself. So any program that reads Keras
models can act, without rlgrad.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from rlgrad.core.keras_configs import rebuilt
from rlgrad.distributions import Deterministic, DiagonalGaussian
from rlgrad.distributions.protocol import IMPOSSIBLE
from rlgrad.policies.networks import STATE
from rlgrad.policies.observations import like
from rlgrad.policies.policy import Policy
from rlgrad.policies.recurrent import RecurrentPolicy, has_memory
from rlgrad.spaces.conversion import to_arrays
from rlgrad.spaces.encoder import Encoder
from rlgrad.spaces.masks import MASK, OBSERVATION, remove_mask
from rlgrad.spaces.trees import map_arrays

__all__ = ["model_inputs", "standalone"]

_ROWS = 16
_TOLERANCE = 1e-3  # of a parameter, beside the largest: kernels add up in different orders


def standalone(policy: Policy) -> keras.Model:
    """Build a Keras model that acts like a policy at its current weights.

    Args:
        policy: stays as it is. Later changes of it do not reach the model, unless Keras cannot copy the network.

    Returns:
        A functional model from a dict of the inputs at the top of this file to a dict of the outputs.

    Raises:
        ValueError: the model differs from the policy for random observations, or an encoder's `prepare` takes no Keras tensors.
    """
    inputs, tree = _inputs(policy.observation_spec, OBSERVATION)
    network, states = _copy(policy.network), {}
    x = _prepare(policy, remove_mask(tree) if policy.masked else tree)
    if has_memory(network):
        spec = network.input[STATE]
        states = {
            f"{STATE}_{i}": keras.Input(leaf.shape[1:], dtype=leaf.dtype, name=f"{STATE}_{i}")
            for i, leaf in enumerate(tf.nest.flatten(spec))
        }
        x = {OBSERVATION: x, STATE: tf.nest.pack_sequence_as(spec, list(states.values()))}
    raw = network(x)
    parameters = _parameters(policy, raw["policy"] if isinstance(raw, dict) else raw, tree)
    outputs = policy.distribution.keras_actions(parameters, "action")
    outputs |= _named_parameters(policy, parameters)
    if states:
        outputs |= {f"next_{name}": leaf for name, leaf in zip(states, tf.nest.flatten(raw[STATE]), strict=True)}
    model = keras.Model(inputs | states, outputs, name="acting")
    _check(model, policy)
    return model


def model_inputs(policy: Policy, observations: Any) -> dict[str, np.ndarray]:
    """Return a batch of observations (N, …) as the model's inputs by name, with zeros for its state."""
    return _by_name(policy, policy.as_arrays(observations))


def _by_name(policy: Policy, x: Any) -> dict[str, np.ndarray]:
    named = {name: np.asarray(leaf) for name, leaf in _named(x, OBSERVATION)}
    if isinstance(policy, RecurrentPolicy):
        state = tf.nest.flatten(policy.initial_state(len(next(iter(named.values()))))["policy"])
        named |= {f"{STATE}_{i}": leaf for i, leaf in enumerate(state)}
    return named


def _named(tree: Any, root: str, path: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield the leaves with a name each, in the order of `tf.nest`."""
    if isinstance(tree, dict | tuple):
        for key in sorted(tree) if isinstance(tree, dict) else range(len(tree)):
            yield from _named(tree[key], root, (*path, key))
        return
    words = path if path and isinstance(path[0], str) else (root, *path)
    yield re.sub(r"\W", "_", "_".join(map(str, words))), tree


def _inputs(specs: Any, root: str) -> tuple[dict[str, Any], Any]:
    """Return Keras inputs by name, and as a tree like the specs."""
    named = [
        (name, keras.Input(tuple(spec.shape[1:]), dtype=spec.dtype.name, name=name))
        for name, spec in _named(specs, root)
    ]
    if len(dict(named)) < len(named):
        raise ValueError(
            f"Two parts of the observation would have the same name: {', '.join(name for name, _ in named)}."
        )
    return dict(named), tf.nest.pack_sequence_as(specs, [leaf for _, leaf in named])


def _copy(network: keras.Model) -> keras.Model:
    """Return a network with the same weights; the network itself if Keras cannot copy it, such as a subclassed model."""
    if not isinstance(network, keras.Sequential) and type(network).__module__.partition(".")[0] != "keras":
        return network
    try:
        twin = keras.models.clone_model(network, clone_function=rebuilt)
    except (NotImplementedError, TypeError, ValueError):  # a layer without a config, or with code in it
        return network
    twin.set_weights(network.get_weights())
    return twin


def _prepare(policy: Policy, tree: Any) -> Any:
    """Do what `Preparation` does, in operations that Keras can save."""
    preparation = policy.preparation
    each = zip(tf.nest.flatten(tree), preparation.encoders, preparation.normalizers, strict=True)
    return tf.nest.pack_sequence_as(tree, [_prepare_leaf(x, encoder, normalizer) for x, encoder, normalizer in each])


def _prepare_leaf(x: Any, encoder: Encoder, normalizer: Any) -> Any:
    try:
        x = encoder.prepare(x)
    except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
        raise ValueError(
            f"This policy cannot be exported: {type(encoder).__name__}.prepare takes no Keras tensors: write it with "
            f"keras.ops. {type(error).__name__}: {error}"
        ) from error
    if normalizer is None:
        return x
    mean, deviation = (moment.numpy() for moment in normalizer.moments())
    return ops.clip((x - mean) / deviation, -normalizer.limit, normalizer.limit)


def _parameters(policy: Policy, output: Any, tree: Any) -> Any:
    """Return the distribution's parameters from the network's output, as `Policy` does."""
    output = ops.cast(output, "float32")
    if not policy.from_logits:
        output = ops.log(ops.maximum(output, float(np.finfo(np.float32).tiny)))
    if policy.masked:
        allowed = ops.cast(tree[MASK], "bool")
        allowed = ops.reshape(allowed, (-1, allowed.shape[1], *[1] * (len(output.shape) - 2)))
        output = ops.where(allowed, output, IMPOSSIBLE)
    if policy.log_std is None:
        return policy.distribution.assemble(output, None)
    log_std = policy.log_std.value.numpy()
    rows = output if isinstance(policy.distribution, DiagonalGaussian) else output[:, :1]
    return policy.distribution.assemble(output, ops.zeros_like(rows) + log_std)


def _named_parameters(policy: Policy, parameters: Any) -> dict[str, Any]:
    """Return a distribution's parameters by the names of the outputs."""
    if isinstance(parameters, dict):
        return parameters
    return {"mean" if isinstance(policy.distribution, Deterministic) else "logits": parameters}


def _check(model: keras.Model, policy: Policy) -> None:
    """Raise a ValueError if the model and the policy differ."""
    space = copy.deepcopy(policy.observation_space)
    space.seed(0)
    observations = [to_arrays(space, space.sample()) for _ in range(_ROWS)]
    x = like(policy.observation_spec, map_arrays(lambda *rows: np.stack(rows), *observations))
    expected = policy.step(tf.nest.map_structure(tf.constant, x), policy.initial_state(_ROWS))[0]
    outputs = model(_by_name(policy, x))
    for name, value in _named_parameters(policy, expected).items():
        gap = float(np.max(np.abs(np.asarray(value) - np.asarray(outputs[name]))))
        if not gap <= _TOLERANCE * max(1.0, float(np.max(np.abs(value)))):
            raise ValueError(
                f"This policy cannot be exported: as one Keras model its {name} differ by {gap:.1e}. Does its network do "
                "something that depends on more than the observation?"
            )
