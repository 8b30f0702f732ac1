"""Build a policy from an environment's spaces and, optionally, a user's models; check those against the model contract."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlgrad import random
from rlgrad.core.checks import close_names
from rlgrad.core.keras_internals import ends_in_probabilities
from rlgrad.distributions import Categorical, DiagonalGaussian, Distribution, Joint, MultiCategorical
from rlgrad.policies import networks
from rlgrad.policies.actions import ActionModel, action_model
from rlgrad.policies.networks import NetworkOptions
from rlgrad.policies.observations import Preparation, observation_spec, seen_space
from rlgrad.policies.policy import Policy, zeros
from rlgrad.policies.recurrent import RecurrentPolicy, has_memory, one_step, state_spec
from rlgrad.spaces.masks import MASK, has_mask

ModelOrBuilder: TypeAlias = keras.Model | Callable[[], keras.Model]
_log = logging.getLogger("rlgrad")


@dataclass(frozen=True, kw_only=True)
class PolicyOptions(NetworkOptions):
    """Settings of a policy, besides its spaces and models.

    Attributes:
        shared_trunk: let the default policy and value networks share their hidden layers.
        squash_actions: bring continuous actions into their bounds by a tanh, instead of clipping them.
        initial_log_std: start of the Gaussian's log standard deviation.
        normalize_observations: put a `RunningNormalizer` before floating-point observations.
        from_logits: `False` declares that `model` ends in probabilities.
    """

    shared_trunk: bool = False
    squash_actions: bool = False
    initial_log_std: float = 0.0
    normalize_observations: bool = False
    from_logits: bool = True

    @property
    def network(self) -> NetworkOptions:
        """The part that the default networks need."""
        return NetworkOptions(
            hidden_sizes=self.hidden_sizes,
            activation=self.activation,
            memory=self.memory,
            memory_size=self.memory_size,
        )


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
    memory: Literal["gru", "lstm"] | None = None,
    memory_size: int = 64,
    squash_actions: bool = False,
    initial_log_std: float = 0.0,
    normalize_observations: bool = False,
    from_logits: bool = True,
    seed: int = 0,
) -> Policy:
    """Build a policy for an environment.

    Args:
        observation_space: Box, Discrete, MultiDiscrete, MultiBinary, a space with an encoder of your own
            (`rlgrad.spaces.Encoder`), or a Dict or Tuple of these. The entry `"action_mask"` of a Dict says which actions are
            allowed.
        action_space: Discrete (logits), Box (mean of a diagonal Gaussian), MultiDiscrete, MultiBinary (logits), or a Tuple or
            Dict of these (all of that side by side).
        model: observation (N, …) to logits or mean, or to `{"policy": …, "value": …}`; or a function that builds one. Its input
            is a tree like the observation space: numbers as float32, bytes divided by 255, choices as integers. `None`: a
            default network that fits the space (`rlgrad.policies.networks`).
        value_model: observation to (N, 1), or a function that builds one.
        value: the policy needs a value estimate. If neither model gives one, add a default network.
        hidden_sizes: widths of the hidden layers of the default networks.
        activation: of these hidden layers, a Keras name.
        shared_trunk: let the default policy and value networks share their hidden layers.
        memory: the recurrent cell of the default networks; `None`: they see the current observation only.
        memory_size: units of that cell.
        squash_actions: bring continuous actions into their bounds by a tanh, instead of clipping them.
        initial_log_std: start of the Gaussian's log standard deviation.
        normalize_observations: put a `RunningNormalizer` before floating-point observations.
        from_logits: `False` declares that `model` ends in probabilities.
        seed: the run's seed: for default networks, for models given as functions, and for `act`.

    Returns:
        A built `Policy`.

    Raises:
        ValueError: a space is not supported, or a model does not fit the spaces. The message says what to change.
    """
    options = PolicyOptions(
        hidden_sizes=tuple(hidden_sizes),
        activation=activation,
        memory=memory,
        memory_size=memory_size,
        shared_trunk=shared_trunk,
        squash_actions=squash_actions,
        initial_log_std=initial_log_std,
        normalize_observations=normalize_observations,
        from_logits=from_logits,
    )
    return build_policy(
        observation_space, action_space, options, model=model, value_model=value_model, value=value, seed=seed
    )


def build_policy(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    options: PolicyOptions,
    *,
    model: ModelOrBuilder | None = None,
    value_model: ModelOrBuilder | None = None,
    value: bool = True,
    seed: int = 0,
) -> Policy:
    """Do what `make_policy` does, with its settings in one record."""
    actions = action_model(action_space, options.squash_actions)
    space = seen_space(observation_space)
    if has_mask(observation_space):
        _check_mask(observation_space, actions)
    _check_options(options, model, value_model, value)
    init = random.stream(seed, "init")
    network = _policy_network(space, actions, options, model, random.child(init, 0))
    value_network = None if value_model is None else _built(value_model, random.child(init, 1), "value_model")
    own_value = _check_network(network, space, actions, options.from_logits)
    remembers = has_memory(network)
    if value_network is not None:
        _check_value_network(value_network, space, own_value, remembers)
    elif value and not own_value:
        memory = options.memory or ("gru" if remembers else None)
        default = replace(options.network, memory=memory)
        value_network = networks.network(space, (1,), default, seed=random.child(init, 1), name="value")
    kind: type[Policy] = RecurrentPolicy if remembers else Policy
    policy = kind(
        network,
        actions.distribution,
        observation_space=observation_space,
        action_spec=actions.spec,
        value_network=value_network,
        normalize_observations=options.normalize_observations,
        initial_log_std=options.initial_log_std,
        from_logits=options.from_logits,
        seed=random.child(init, 2),
    )
    _check_side_effects(policy)
    return policy


def specs_for(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> tuple[Any, Any]:
    """Return trees of `tf.TensorSpec` of stored observations and of sampled actions, each with a leading batch axis.

    Raises:
        ValueError: a space is not supported.
    """
    return observation_spec(observation_space), action_model(action_space).spec


def _policy_network(
    space: spaces.Space[Any],
    actions: ActionModel,
    options: PolicyOptions,
    model: ModelOrBuilder | None,
    seed: np.random.SeedSequence,
) -> keras.Model:
    if model is not None:
        return _built(model, seed, "model")
    if options.shared_trunk:
        return networks.shared_trunk(space, actions.raw_shape, options.network, seed=seed)
    return networks.network(space, actions.raw_shape, options.network, last_gain=0.01, seed=seed, name="policy")


def _check_options(
    options: PolicyOptions, model: ModelOrBuilder | None, value_model: ModelOrBuilder | None, value: bool
) -> None:
    """Raise a ValueError for settings of the default networks that contradict the models."""
    _require_activation(options.activation)
    if options.memory is not None and model is not None:
        raise ValueError(
            "memory is a setting of the default networks, and a model was given: leave it out, and give a model of one step, "
            'from {"observation": …, "state": …} to {"policy": …, "state": …}.'
        )
    if not options.shared_trunk:
        return
    given = [name for name, thing in (("model", model), ("value_model", value_model)) if thing is not None]
    if given or not value:
        why = f"{given[0]} was given" if given else "no value is needed"
        raise ValueError(f"shared_trunk is a setting of the default networks, and {why}: leave it out.")


def _check_value_network(network: keras.Model, space: spaces.Space[Any], own_value: bool, remembers: bool) -> None:
    if has_memory(network) and not remembers:
        raise ValueError("value_model has a memory, and the policy has none: give both one, or the policy alone.")
    if own_value:
        raise ValueError('model returns a "value" and value_model was given too: leave one of them out.')
    _check_value(_try(network, space, "value_model"), "value_model")


def _require_activation(name: Any) -> None:
    try:
        keras.activations.get(name)
    except ValueError:
        known = [n for n in dir(keras.activations) if n.islower() and n not in ("get", "serialize", "deserialize")]
        raise ValueError(f"activation is one that Keras knows, got {name!r}. {close_names(str(name), known)}") from None


def _check_mask(observation_space: Any, actions: ActionModel) -> None:
    if not isinstance(actions.distribution, Categorical | MultiCategorical):
        raise ValueError(
            f"Observations bring an {MASK!r}, and only Discrete and MultiDiscrete actions can be masked: take it out, with "
            "gymnasium.wrappers.FilterObservation."
        )
    shape = observation_space[MASK].shape
    if shape != actions.raw_shape:
        raise ValueError(
            f"The {MASK!r} in the observations has shape {shape}, and there are {actions.raw_shape[0]} actions: one number for "
            "each, those of the first choice first."
        )


def _built(model: ModelOrBuilder, seed: np.random.SeedSequence, name: str) -> keras.Model:
    if not isinstance(model, keras.Model) and callable(model):
        keras.utils.set_random_seed(random.integer_seed(seed))
        model = model()
    if not isinstance(model, keras.Model):
        raise ValueError(f"{name} is a Keras model or a function that returns one, got {type(model).__name__}.")
    return model


def _try(network: keras.Model, space: spaces.Space[Any], name: str) -> Any:
    """The network's outputs for two observations, for their structure and shapes."""
    spec = observation_spec(space)
    try:
        x = Preparation(space)(zeros(spec, (2,)))
        if not has_memory(network):
            return network(x, training=False)
        return one_step(network, x, zeros(state_spec(network), (2,)))[0]
    except (ValueError, TypeError) as error:
        shapes = tf.nest.map_structure(lambda s: "(N, " + ", ".join(map(str, s.shape[1:])) + ")", spec)
        raise ValueError(
            f"{name} does not take the environment's observations, shape {shapes}: {str(error).splitlines()[0]}"
        ) from error


def _check_network(network: keras.Model, space: spaces.Space[Any], actions: ActionModel, from_logits: bool) -> bool:
    """Check a policy network against the model contract; whether it has a value head."""
    raw, distribution, output_shape = _try(network, space, "model"), actions.distribution, actions.raw_shape
    if isinstance(raw, dict) and "policy" not in raw:
        raise ValueError(f'model returns a dict with the keys {sorted(raw)}: it needs "policy", and may have "value".')
    head = "policy" if isinstance(raw, dict) else None
    output = raw["policy"] if isinstance(raw, dict) else raw
    discrete = isinstance(distribution, Categorical)
    if tuple(output.shape) != (2, *output_shape):
        raise ValueError(
            f"model gives shape (N, {', '.join(map(str, output.shape[1:]))}), and the environment has "
            f"{_described(distribution, output_shape)}. End it in keras.layers.Dense({math.prod(output_shape)})."
        )
    activation = ends_in_probabilities(network, head)
    takes_logits = not isinstance(distribution, DiagonalGaussian)
    if activation and takes_logits and from_logits:
        fix = ", or declare that it gives probabilities with from_logits=False" if discrete else ""
        raise ValueError(
            f"model ends in a {activation}, and a policy's model gives logits: leave the activation of its last layer "
            f"out{fix}."
        )
    if not from_logits and not discrete:
        raise ValueError(
            "from_logits=False speaks of the probabilities of one choice among several, and the actions of this environment "
            f"are another: {_described(distribution, output_shape)}."
        )
    if isinstance(raw, dict) and "value" in raw:
        _check_value(raw["value"], 'model\'s "value"')
        return True
    return False


def _described(distribution: Distribution, shape: tuple[int, ...]) -> str:
    if isinstance(distribution, Categorical):
        return f"{shape[0]} actions: one logit each"
    if isinstance(distribution, DiagonalGaussian):
        return f"actions of shape {shape}: their mean"
    if isinstance(distribution, Joint):
        return f"actions of several parts: {shape[0]} numbers, the parts' logits and means in the order of the space"
    return f"several choices at once: {math.prod(shape)} logits, those of the first choice first"


def _check_value(value: Any, name: str) -> None:
    if isinstance(value, dict) and set(value) == {"value"}:  # of a model with memory
        value = value["value"]
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
