"""A policy as one Keras model of built-in layers alone: raw observations in, the environment's own actions out.

| input | |
|---|---|
| `observation` | (N, …), as the environment gives it; of a Dict the leaves, by their keys, of a Tuple `observation_0`, … |
| `action_mask` | (N, actions), where there is one |
| `state_0`, … | (N, units), where the policy has a memory: zeros where an episode begins |

| output | |
|---|---|
| `action` | (N, …), the most likely one, ready for `env.step`; the parts of a Dict or Tuple are `action_<key>`, … |
| `logits`, or `mean` and `log_std` | the distribution's parameters; `heads` and `log_std` of a Dict or Tuple of actions |
| `next_state_0`, … | (N, units), `state_0`, … of the next step |

The normalizer's numbers of the moment stand in it as constants, and bytes are divided by 255 inside. So whatever reads a Keras
model can act, without rlgrad.
"""

import copy
import math
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from rlgrad.distributions import Bernoulli, Categorical, DiagonalGaussian, Joint, MultiCategorical
from rlgrad.distributions.base import IMPOSSIBLE
from rlgrad.policies import observations as seen
from rlgrad.policies.networks import STATE
from rlgrad.policies.policy import Policy, like
from rlgrad.policies.recurrent import RecurrentPolicy, has_memory
from rlgrad.spaces.masks import MASK, OBSERVATION
from rlgrad.spaces.trees import map_arrays

__all__ = ["arrays", "standalone"]

_ROWS = 16
_TOLERANCE = 1e-3  # of a parameter, beside the largest: kernels add up in different orders


def standalone(policy: Policy) -> keras.Model:
    """A Keras model that acts like a policy at its weights of now.

    Args:
        policy: stays as it is. What changes it later does not reach the model, unless Keras cannot copy the network.

    Returns:
        A functional model from a dict of the inputs at the top of this file to a dict of the outputs.

    Raises:
        ValueError: it gives other numbers than the policy, for observations that were drawn to see that.
    """
    inputs, tree = _inputs(policy.observation_spec, OBSERVATION)
    network, states = _copied(policy.network), {}
    x = _prepared(policy, seen.without_mask(tree) if policy.masked else tree)
    if has_memory(network):
        spec = network.input[STATE]
        states = {
            f"{STATE}_{i}": keras.Input(leaf.shape[1:], dtype=leaf.dtype, name=f"{STATE}_{i}")
            for i, leaf in enumerate(tf.nest.flatten(spec))
        }
        x = {OBSERVATION: x, STATE: tf.nest.pack_sequence_as(spec, list(states.values()))}
    said = network(x)
    parameters = _parameters(policy, said["policy"] if isinstance(said, dict) else said, tree)
    outputs = dict(_actions(policy.distribution, parameters))
    outputs |= parameters if isinstance(parameters, dict) else {"logits": parameters}
    if states:
        outputs |= {f"next_{name}": leaf for name, leaf in zip(states, tf.nest.flatten(said[STATE]), strict=True)}
    model = keras.Model(inputs | states, outputs, name="acting")
    _check(model, policy)
    return model


def arrays(policy: Policy, observations: Any) -> dict[str, np.ndarray]:
    """A batch of observations (N, …) as the model's inputs by name; those of its state are zeros."""
    x = like(policy.observation_spec, observations)
    named = {name: np.asarray(leaf) for name, leaf in _named(x, OBSERVATION)}
    if isinstance(policy, RecurrentPolicy):
        state = tf.nest.flatten(policy.initial_state(len(next(iter(named.values()))))["policy"])
        named |= {f"{STATE}_{i}": leaf for i, leaf in enumerate(state)}
    return named


def _named(tree: Any, root: str, path: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The leaves with a name each, in the order in which `tf.nest` has them."""
    if isinstance(tree, dict | tuple):
        for key in sorted(tree) if isinstance(tree, dict) else range(len(tree)):
            yield from _named(tree[key], root, (*path, key))
        return
    words = path if path and isinstance(path[0], str) else (root, *path)
    yield re.sub(r"\W", "_", "_".join(map(str, words))), tree


def _inputs(specs: Any, root: str) -> tuple[dict[str, Any], Any]:
    """Keras inputs by name, and as a tree like the specs."""
    named = [
        (name, keras.Input(tuple(spec.shape[1:]), dtype=spec.dtype.name, name=name))
        for name, spec in _named(specs, root)
    ]
    if len(dict(named)) < len(named):
        raise ValueError(
            f"Two parts of the observation would have the same name: {', '.join(name for name, _ in named)}."
        )
    return dict(named), tf.nest.pack_sequence_as(specs, [leaf for _, leaf in named])


def _copied(network: keras.Model) -> keras.Model:
    """A network with the same weights; itself where Keras cannot copy it, as one that is subclassed."""
    if not isinstance(network, keras.Sequential) and type(network).__module__.partition(".")[0] != "keras":
        return network
    try:
        twin = keras.models.clone_model(network, clone_function=_rebuilt)
    except (NotImplementedError, TypeError, ValueError):  # a layer without a config, or with code in it
        return network
    twin.set_weights(network.get_weights())
    return twin


def _rebuilt(layer: keras.layers.Layer) -> keras.layers.Layer:
    return type(layer).from_config(_plain(layer.get_config()))


def _plain(config: Any, key: str = "") -> Any:
    """A layer's config without initializers of one's own, which a reader would have to know: the weights are set anyway."""
    if isinstance(config, dict):
        own = key.endswith("initializer") and not str(config.get("module")).startswith("keras.")
        return "zeros" if own else {name: _plain(value, name) for name, value in config.items()}
    return [_plain(value) for value in config] if isinstance(config, list) else config


def _prepared(policy: Policy, tree: Any) -> Any:
    """Observations as the network sees them: what `Preparation` does, in operations that Keras can save."""
    preparation = policy.preparation
    each = zip(tf.nest.flatten(tree), preparation.kinds, preparation.normalizers, strict=True)
    return tf.nest.pack_sequence_as(tree, [_leaf(x, kind, normalizer) for x, kind, normalizer in each])


def _leaf(x: Any, kind: str, normalizer: Any) -> Any:
    if kind == "choice":
        return ops.cast(x, "int32")
    x = ops.cast(x, "float32")
    if normalizer is not None:
        mean, deviation = (moment.numpy() for moment in normalizer.moments())
        return ops.clip((x - mean) / deviation, -normalizer.limit, normalizer.limit)
    return x / 255.0 if kind == "bytes" else x


def _parameters(policy: Policy, output: Any, tree: Any) -> Any:
    """The distribution's parameters, as `Policy` makes them of what the network says."""
    output = ops.cast(output, "float32")
    if not policy.from_logits:
        output = ops.log(ops.maximum(output, float(np.finfo(np.float32).tiny)))
    if policy.masked:
        output = ops.where(ops.cast(tree[MASK], "bool"), output, IMPOSSIBLE)
    if policy.log_std is None:
        return policy.distribution.assemble(output, None)
    log_std = policy.log_std.value.numpy()
    rows = output if isinstance(policy.distribution, DiagonalGaussian) else output[:, :1]
    return policy.distribution.assemble(output, ops.zeros_like(rows) + log_std)


def _actions(distribution: Any, parameters: Any, name: str = "action") -> Iterator[tuple[str, Any]]:
    """What `for_environment(most_likely(parameters))` gives, by name."""
    match distribution:
        case Categorical():
            yield name, _largest(parameters) + distribution.start
        case MultiCategorical():
            ends = np.cumsum(distribution.counts).tolist()
            choices = [_largest(parameters[:, end - n : end]) for n, end in zip(distribution.counts, ends, strict=True)]
            flat = ops.stack(choices, axis=-1)
            if distribution.start:
                flat = flat + np.asarray(distribution.start)
            yield name, ops.reshape(flat, (-1, *(distribution.shape or (len(choices),))))
        case Bernoulli():
            yield name, ops.cast(parameters > 0.0, "int8")
        case DiagonalGaussian():
            yield name, _within(distribution, parameters["mean"])
        case Joint():
            yield from _parts(distribution, parameters, name)
        case _:
            raise NotImplementedError(f"Nothing is known here of the actions of a {type(distribution).__name__}.")


def _parts(joint: Joint, parameters: Any, name: str) -> Iterator[tuple[str, Any]]:
    at = at_scale = 0
    for part in joint.parts:
        size = math.prod(part.raw_shape)
        own: Any = ops.reshape(parameters["heads"][:, at : at + size], (-1, *part.raw_shape))
        at += size
        if part.distribution.log_std_shape(part.raw_shape) is not None:
            log_std = parameters["log_std"][:, at_scale : at_scale + size]
            own, at_scale = {"mean": own, "log_std": ops.reshape(log_std, (-1, *part.raw_shape))}, at_scale + size
        path = re.sub(r"\W", "_", "_".join(map(str, part.path)))
        yield from _actions(part.distribution, own, f"{name}_{path}")


def _largest(logits: Any) -> Any:
    """The number of the largest, of equal ones the first. Keras' argmax looks for −0 by bits, which LiteRT cannot."""
    return ops.cast(ops.top_k(logits, 1)[1][..., 0], "int64")


def _within(gaussian: DiagonalGaussian, mean: Any) -> Any:
    low, high = (np.asarray(bound, np.float32) for bound in (gaussian.low, gaussian.high))
    if gaussian.squash:
        inside = 0.5 * (ops.tanh(mean) + 1.0) * (high - low) + low
    else:
        inside = mean if np.isinf(low).all() and np.isinf(high).all() else ops.minimum(ops.maximum(mean, low), high)
    dtype = np.dtype(gaussian.dtype)
    return ops.cast(ops.round(inside) if np.issubdtype(dtype, np.integer) else inside, dtype.name)


def _check(model: keras.Model, policy: Policy) -> None:
    """Raise a ValueError where the model says something else than the policy."""
    space = copy.deepcopy(policy.observation_space)
    space.seed(0)
    observations = map_arrays(lambda *rows: np.stack(rows), *[space.sample() for _ in range(_ROWS)])
    x = like(policy.observation_spec, observations)
    expected = policy.step(tf.nest.map_structure(tf.constant, x), policy.initial_state(_ROWS))[0]
    said = model(arrays(policy, x))
    for name, value in (expected if isinstance(expected, dict) else {"logits": expected}).items():
        gap = float(np.max(np.abs(np.asarray(value) - np.asarray(said[name]))))
        if not gap <= _TOLERANCE * max(1.0, float(np.max(np.abs(value)))):
            raise ValueError(
                f"This policy cannot be exported: as one Keras model its {name} differ by {gap:.1e}. Does its network do "
                "something that depends on more than the observation?"
            )
