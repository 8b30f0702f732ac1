"""From an environment's spaces and a user's models, or none, to a policy; with the errors of the model contract."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlgrad import random
from rlgrad.distributions import Categorical, DiagonalGaussian, Distribution
from rlgrad.gradients.keras_internals import ends_in_probabilities
from rlgrad.policies import networks
from rlgrad.policies.normalizer import RunningNormalizer
from rlgrad.policies.policy import Policy

ModelOrBuilder: TypeAlias = keras.Model | Callable[[], keras.Model]
_log = logging.getLogger("rlgrad")


def make_policy(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    model: ModelOrBuilder | None = None,
    value_model: ModelOrBuilder | None = None,
    value: bool = True,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    shared_trunk: bool = False,
    initial_log_std: float = 0.0,
    normalize_observations: bool = False,
    from_logits: bool = True,
    seed: int = 0,
) -> Policy:
    """A policy for an environment.

    Args:
        observation_space: `Box`.
        action_space: `Discrete` (logits) or `Box` (mean of a diagonal Gaussian).
        model: observation (N, …) to logits or mean, or to `{"policy": …, "value": …}`; or a function that builds one. None: a
            multilayer perceptron.
        value_model: observation to (N, 1), or a function that builds one.
        value: whether a value estimate is needed; if neither model gives one, a default network does.
        hidden_sizes: of the default networks.
        activation: of the default networks.
        shared_trunk: let the default policy and value networks share their hidden layers.
        initial_log_std: start of the Gaussian's log standard deviation.
        normalize_observations: put a `RunningNormalizer` before the networks.
        from_logits: false declares that `model` ends in probabilities.
        seed: the run's seed: for default networks, for models given as functions, and for `act`.

    Returns:
        A built `Policy`.

    Raises:
        ValueError: a space that is not supported, or a model that does not fit the spaces, with what to change.
    """
    observation_spec, action_spec = specs_for(observation_space, action_space)
    shape = tuple(observation_spec.shape[1:])
    distribution, output_shape = distribution_for(action_space)
    init = random.stream(seed, "init")
    sizes: dict[str, Any] = {"hidden_sizes": hidden_sizes, "activation": activation}
    if shared_trunk:
        given = [name for name, thing in (("model", model), ("value_model", value_model)) if thing is not None]
        if given or not value:
            why = f"{given[0]} was given" if given else "no value is needed"
            raise ValueError(f"shared_trunk speaks of the default networks, and {why}: leave it out.")
        network = networks.shared_trunk(shape, output_shape, seed=random.child(init, 0), **sizes)
    elif model is None:
        units, gain = math.prod(output_shape), 0.01
        shaped = {**sizes, "output_shape": output_shape}
        network = networks.mlp(shape, units, last_gain=gain, seed=random.child(init, 0), name="policy", **shaped)
    else:
        network = _built(model, random.child(init, 0), "model")
    value_network = _built(value_model, random.child(init, 1), "value_model") if value_model is not None else None
    own_value = _check_network(network, shape, distribution, output_shape, from_logits)
    if own_value and value_network is not None:
        raise ValueError('model returns a "value" and value_model was given too: leave one of them out.')
    if value_network is not None:
        _check_value(_try(value_network, shape, "value_model"), "value_model")
    elif value and not own_value:
        value_network = networks.mlp(shape, 1, seed=random.child(init, 1), name="value", **sizes)
    policy = Policy(
        network,
        distribution,
        observation_spec=observation_spec,
        action_spec=action_spec,
        value_network=value_network,
        normalizer=RunningNormalizer(shape, name="normalizer") if normalize_observations else None,
        initial_log_std=initial_log_std,
        from_logits=from_logits,
        seed=random.child(init, 2),
    )
    _check_side_effects(policy)
    return policy


def specs_for(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> tuple[Any, Any]:
    """`tf.TensorSpec` of stored observations and of sampled actions, each with a leading batch axis.

    Floating-point observations are stored in float32, others in their own type.

    Raises:
        ValueError: a space is not supported.
    """
    if not isinstance(observation_space, spaces.Box):
        raise ValueError(
            f"Observations are a Box of numbers, got {observation_space}. Wrap the environment to give one."
        )
    dtype = np.float32 if np.issubdtype(observation_space.dtype, np.floating) else observation_space.dtype
    distribution, shape = distribution_for(action_space)
    action = ((None,), tf.int64) if isinstance(distribution, Categorical) else ((None, *shape), tf.float32)
    return tf.TensorSpec((None, *observation_space.shape), dtype), tf.TensorSpec(*action)


def distribution_for(action_space: spaces.Space[Any]) -> tuple[Distribution, tuple[int, ...]]:
    """The distribution over an action space, and the shape of the parameters that a network gives for it.

    Raises:
        ValueError: the space is neither `Discrete` nor a floating-point `Box`.
    """
    if isinstance(action_space, spaces.Discrete):
        count = int(action_space.n)
        return Categorical(count, start=int(action_space.start)), (count,)
    if isinstance(action_space, spaces.Box) and np.issubdtype(action_space.dtype, np.floating):
        shape = action_space.shape
        return DiagonalGaussian(low=action_space.low, high=action_space.high, rank=len(shape)), shape
    raise ValueError(f"Actions are Discrete or a Box of floating-point numbers, got {action_space}.")


def _built(model: ModelOrBuilder, seed: np.random.SeedSequence, name: str) -> keras.Model:
    if not isinstance(model, keras.Model) and callable(model):
        keras.utils.set_random_seed(random.integer_seed(seed))
        model = model()
    if not isinstance(model, keras.Model):
        raise ValueError(f"{name} is a Keras model or a function that returns one, got {type(model).__name__}.")
    return model


def _try(network: keras.Model, shape: tuple[int, ...], name: str) -> Any:
    """The network's outputs for two observations, for their structure and shapes."""
    try:
        return network(np.zeros((2, *shape), np.float32), training=False)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} does not take the environment's observations, shape (N, {', '.join(map(str, shape))}): "
            f"{str(error).splitlines()[0]}"
        ) from error


def _check_network(
    network: keras.Model,
    shape: tuple[int, ...],
    distribution: Distribution,
    output_shape: tuple[int, ...],
    from_logits: bool,
) -> bool:
    """Check a policy network against the model contract; whether it has a value head."""
    raw = _try(network, shape, "model")
    if isinstance(raw, dict) and "policy" not in raw:
        raise ValueError(f'model returns a dict with the keys {sorted(raw)}: it needs "policy", and may have "value".')
    head = "policy" if isinstance(raw, dict) else None
    output = raw["policy"] if isinstance(raw, dict) else raw
    discrete = isinstance(distribution, Categorical)
    what = f"{output_shape[0]} actions: one logit each" if discrete else f"actions of shape {output_shape}: their mean"
    if tuple(output.shape) != (2, *output_shape):
        raise ValueError(
            f"model gives shape (N, {', '.join(map(str, output.shape[1:]))}), and the environment has {what}. "
            f"End it in keras.layers.Dense({math.prod(output_shape)})."
        )
    activation = ends_in_probabilities(network, head)
    if activation and discrete and from_logits:
        raise ValueError(
            f"model ends in a {activation}, and a policy's model gives logits: leave the activation of its last layer out, "
            "or declare that it gives probabilities with from_logits=False."
        )
    if not from_logits and not discrete:
        raise ValueError(
            "from_logits=False speaks of probabilities, and the actions of this environment are continuous."
        )
    if isinstance(raw, dict) and "value" in raw:
        _check_value(raw["value"], 'model\'s "value"')
        return True
    return False


def _check_value(value: Any, name: str) -> None:
    if isinstance(value, dict) or tuple(value.shape) not in ((2,), (2, 1)):
        shape = "a dict" if isinstance(value, dict) else f"shape {('N', *value.shape[1:])}"
        raise ValueError(f"{name} gives {shape}; a value is (N, 1): end it in keras.layers.Dense(1).")


def _check_side_effects(policy: Policy) -> None:
    if policy.losses:
        raise ValueError(
            "The model has regularizers, and an update here climbs credited outputs alone: take them out and use an "
            "optimizer with weight_decay, e.g. keras.optimizers.AdamW."
        )
    kinds = (keras.layers.BatchNormalization, keras.layers.Dropout)
    parts = [n for n in (policy.network, policy.value_network) if n is not None]
    for layer in (layer for network in parts for layer in network.layers if isinstance(layer, kinds)):
        _log.warning(
            "%s %r always runs as at inference (training=False): its statistics stay, nothing is dropped.",
            type(layer).__name__,
            layer.name,
        )
