"""Build a policy from an environment's spaces and, optionally, a user's models."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from gymnasium import spaces

from rlgrad import random
from rlgrad.core import capacity
from rlgrad.core.keras_configs import weights_within
from rlgrad.policies import networks
from rlgrad.policies.actions import (
    ActionModel,
    ActionValues,
    ActorCritic,
    action_model,
    action_value_model,
    actor_model,
    with_state_dependent_noise,
    with_state_dependent_std,
)
from rlgrad.policies.model_checks import (
    check_critic,
    check_mask,
    check_network,
    check_side_effects,
    check_value_network,
)
from rlgrad.policies.networks import NetworkOptions
from rlgrad.policies.observations import observation_spec
from rlgrad.policies.policy import Policy
from rlgrad.policies.policy_options import PolicyOptions, check_action_values, check_actor_critic, check_options
from rlgrad.policies.recurrent import RecurrentPolicy, has_memory
from rlgrad.spaces.masks import has_mask, unmasked_space

ModelOrBuilder: TypeAlias = keras.Model | Callable[[], keras.Model]


def make_policy(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    model: ModelOrBuilder | None = None,
    value_model: ModelOrBuilder | None = None,
    critic_model: Callable[[], keras.Model] | None = None,
    value: bool = True,
    action_values: ActionValues | None = None,
    actor_critic: ActorCritic | None = None,
    scalars: Mapping[str, float] | None = None,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    layer_norm: bool = False,
    fixed_layer_norm: bool = False,
    sparsity: float = 0.0,
    shared_trunk: bool = False,
    memory: Literal["gru", "lstm"] | None = None,
    memory_size: int = 64,
    squash_actions: bool = False,
    initial_log_std: float = 0.0,
    state_dependent_std: bool = False,
    state_dependent_noise: int = 0,
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
        critic_model: a function that builds a model from [observation, action] to (N, 1), called once for each critic. The
            action is a vector, in half-widths of its space. `None`: default networks.
        value: the policy needs a value estimate. If neither model gives one, add a default network.
        action_values: the network says how good each of the Discrete actions is, and the policy takes the best. `None`: it says
            how likely each action is.
        actor_critic: critics of observations and actions, and how the policy says its continuous actions. `None`: there are no
            critics.
        scalars: numbers that are learned beside the networks, by name, with their starts.
        hidden_sizes: widths of the hidden layers of the default networks.
        activation: of these hidden layers, a Keras name; `leaky_relu(0.01)` is one of that slope.
        layer_norm: normalize each hidden layer of the default networks before its activation.
        fixed_layer_norm: without its scale and shift, which are trained.
        sparsity: share of each unit's inputs whose initial weight is 0, the others being uniform; 0: orthogonal weights.
        shared_trunk: let the default policy and value networks share their hidden layers.
        memory: the recurrent cell of the default networks; `None`: they see the current observation only.
        memory_size: units of that cell.
        squash_actions: bring continuous actions into their bounds by a tanh, instead of clipping them.
        initial_log_std: start of the Gaussian's log standard deviation.
        state_dependent_std: the network says the log standard deviations beside the means; else they are a variable.
        state_dependent_noise: let the noise of continuous actions be a function of the state that is drawn anew after so many
            steps (gSDE); 0: noise of each step by itself.
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
        layer_norm=layer_norm,
        fixed_layer_norm=fixed_layer_norm,
        sparsity=sparsity,
        memory=memory,
        memory_size=memory_size,
        shared_trunk=shared_trunk,
        squash_actions=squash_actions,
        initial_log_std=initial_log_std,
        state_dependent_std=state_dependent_std,
        state_dependent_noise=state_dependent_noise,
        normalize_observations=normalize_observations,
        from_logits=from_logits,
    )
    with weights_within(capacity.memory() // 4):
        return build_policy(
            observation_space,
            action_space,
            options,
            model=model,
            value_model=value_model,
            critic_model=critic_model,
            value=value,
            action_values=action_values,
            actor_critic=actor_critic,
            scalars=scalars,
            seed=seed,
        )


def build_policy(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    options: PolicyOptions,
    *,
    model: ModelOrBuilder | None = None,
    value_model: ModelOrBuilder | None = None,
    critic_model: Callable[[], keras.Model] | None = None,
    value: bool = True,
    action_values: ActionValues | None = None,
    actor_critic: ActorCritic | None = None,
    scalars: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Policy:
    """Do what `make_policy` does, with its settings in one record."""
    if action_values is not None:
        check_action_values(options, value_model)
        actions, value = action_value_model(action_space, action_values), False
    elif actor_critic is not None:
        check_actor_critic(options, actor_critic)
        actions = actor_model(action_space, actor_critic, options.squash_actions)
    else:
        actions = action_model(action_space, options.squash_actions)
    if options.state_dependent_std:
        actions = with_state_dependent_std(actions, action_space, options.initial_log_std)
    space = unmasked_space(observation_space)
    if has_mask(observation_space):
        check_mask(observation_space, actions)
    check_options(options, model, value_model, value)
    if options.state_dependent_noise:
        actions = with_state_dependent_noise(actions, action_space, options.state_dependent_noise)
    init = random.stream(seed, "init")
    network = _policy_network(space, actions, options, model, action_values, random.child(init, 0))
    value_network = None if value_model is None else _build_model(value_model, random.child(init, 1), "value_model")
    # A default network fits, and has a value if it shares its layers with one.
    own_value = options.shared_trunk if model is None else check_network(network, space, actions, options.from_logits)
    remembers = has_memory(network)
    if value_network is not None:
        check_value_network(value_network, space, own_value, remembers)
    elif value and not own_value:
        memory = options.memory or ("gru" if remembers else None)
        default = replace(options.network, memory=memory)
        value_network = networks.network(space, (1,), default, seed=random.child(init, 1), name="value")
    if critic_model is not None and not (actor_critic and actor_critic.num_critics):
        raise ValueError("critic_model is for agents that credit q of continuous actions, such as sac: leave it out.")
    start = options.initial_log_std
    if options.state_dependent_noise:  # so that features of size 1 begin with it
        output = network.output["policy"] if isinstance(network.output, dict) else network.output
        start -= 0.5 * math.log(output.shape[-1] - math.prod(actions.spec.shape[1:]))
    more: dict[str, Any] = {}
    if actor_critic is not None:
        of_critics = random.child(init, 3)
        more["critics"] = [
            _critic(space, actions, options.network, critic_model, actor_critic, random.child(of_critics, i), i + 1)
            for i in range(actor_critic.num_critics)
        ]
    if scalars:
        more["scalars"] = scalars
    kind: type[Policy] = RecurrentPolicy if remembers else Policy
    policy = kind(
        network,
        actions.distribution,
        observation_space=observation_space,
        action_spec=actions.spec,
        value_network=value_network,
        normalize_observations=options.normalize_observations,
        initial_log_std=start,
        from_logits=options.from_logits,
        seed=random.child(init, 2),
        **more,
    )
    check_side_effects(policy, training=actor_critic is not None and actor_critic.training)
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
    values: ActionValues | None,
    seed: np.random.SeedSequence,
) -> keras.Model:
    if model is not None:
        return _build_model(model, seed, "model")
    noisy = bool(options.state_dependent_noise)
    if options.shared_trunk:
        return networks.shared_trunk(space, actions.raw_shape, options.network, with_features=noisy, seed=seed)
    if values is not None:
        dueling = values.dueling
        return networks.network(space, actions.raw_shape, options.network, dueling=dueling, seed=seed, name="policy")
    head: dict[str, Any] = {"last_gain": 0.01, "with_features": noisy, "seed": seed, "name": "policy"}
    return networks.network(space, actions.raw_shape, options.network, **head)


def _critic(
    space: spaces.Space[Any],
    actions: ActionModel,
    options: NetworkOptions,
    model: Callable[[], keras.Model] | None,
    actor_critic: ActorCritic,
    seed: np.random.SeedSequence,
    number: int,
) -> keras.Model:
    """Return a critic: a default network, or what a function builds."""
    size, quantiles = math.prod(actions.spec.shape[1:]), actor_critic.quantiles
    own, name = actor_critic.critic, f"critic_{number}"
    if actor_critic.actor == "categorical":
        size, quantiles = 0, actions.raw_shape[0]
    if model is None:
        return networks.critic(space, size, options, own, quantiles=quantiles, seed=seed, name=name)
    if isinstance(model, keras.Model):
        raise ValueError(
            "critic_model is a function that builds a model, since it is called once for each critic; got a model."
        )
    built = _build_model(model, seed, "critic_model")
    check_critic(built, space, size, quantiles or 1)
    return built


def _build_model(model: ModelOrBuilder, seed: np.random.SeedSequence, name: str) -> keras.Model:
    if not isinstance(model, keras.Model) and callable(model):
        keras.utils.set_random_seed(random.integer_seed(seed))
        model = model()
    if not isinstance(model, keras.Model):
        raise ValueError(f"{name} is a Keras model or a function that returns one, got {type(model).__name__}.")
    return model
