"""The model contract: errors for models that do not fit an environment's spaces, with what to change."""

import logging
import math
from typing import Any

import keras
import tensorflow as tf
from gymnasium import spaces

from rlgrad.core.keras_configs import reason_of
from rlgrad.core.keras_internals import ends_in_probabilities, ends_in_tanh
from rlgrad.distributions import (
    Categorical,
    Deterministic,
    DiagonalGaussian,
    Distribution,
    Greedy,
    Joint,
    MultiCategorical,
)
from rlgrad.policies.actions import ActionModel
from rlgrad.policies.observations import Preparation, observation_spec, zeros
from rlgrad.policies.policy import Policy
from rlgrad.policies.recurrent import has_memory, one_step, state_spec
from rlgrad.spaces.masks import MASK

_log = logging.getLogger("rlgrad")


def check_mask(observation_space: Any, actions: ActionModel) -> None:
    """Raise a ValueError for a mask that does not fit the actions."""
    if not isinstance(actions.distribution, Categorical | Greedy | MultiCategorical):
        raise ValueError(
            f"Observations bring an {MASK!r}, and only Discrete and MultiDiscrete actions can be masked: take it out, with "
            "gymnasium.wrappers.FilterObservation."
        )
    shape = observation_space[MASK].shape
    count = actions.raw_shape[:1]  # of actions, each of which may have several numbers
    if shape != count:
        raise ValueError(
            f"The {MASK!r} in the observations has shape {shape}, and there are {actions.raw_shape[0]} actions: one number for "
            "each, those of the first choice first."
        )


def check_value_network(network: keras.Model, space: spaces.Space[Any], own_value: bool, remembers: bool) -> None:
    """Raise a ValueError for a value model that the policy network or the observations do not allow."""
    if has_memory(network) and not remembers:
        raise ValueError("value_model has a memory, and the policy has none: give both one, or the policy alone.")
    if own_value:
        raise ValueError('model returns a "value" and value_model was given too: leave one of them out.')
    _check_value(_call_on_zeros(network, space, "value_model"), "value_model")


def check_critic(network: keras.Model, space: spaces.Space[Any], action_size: int, width: int) -> None:
    """Raise a ValueError for a critic's model that does not take [observation, action] to (N, width); size 0: observations."""
    try:
        x = Preparation(space)(zeros(observation_spec(space), (2,)))
        value = network([x, tf.zeros((2, action_size))] if action_size else x, training=False)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        what = f"[observation, action], the action a vector of {action_size}" if action_size else "an observation"
        raise ValueError(f"critic_model does not take {what}: {reason_of(error)}") from error
    if isinstance(value, dict) or tuple(value.shape) != (2, width):
        shape = "a dict" if isinstance(value, dict) else f"shape {('N', *value.shape[1:])}"
        raise ValueError(f"critic_model gives {shape}, not (N, {width}): end it in keras.layers.Dense({width}).")


def check_network(network: keras.Model, space: spaces.Space[Any], actions: ActionModel, from_logits: bool) -> bool:
    """Check a policy network against the model contract, and return whether it has a value head."""
    raw, distribution, output_shape = _call_on_zeros(network, space, "model"), actions.distribution, actions.raw_shape
    if isinstance(raw, dict) and "policy" not in raw:
        raise ValueError(f'model returns a dict with the keys {sorted(raw)}: it needs "policy", and may have "value".')
    head = "policy" if isinstance(raw, dict) else None
    output = raw["policy"] if isinstance(raw, dict) else raw
    discrete = isinstance(distribution, Categorical)
    if tuple(output.shape) != (2, *output_shape):
        raise ValueError(
            f"model gives shape (N, {', '.join(map(str, output.shape[1:]))}), and the environment has "
            f"{_describe(distribution, output_shape)}. End it in keras.layers.Dense({math.prod(output_shape)})."
        )
    activation = ends_in_probabilities(network, head)
    takes_logits = not isinstance(distribution, DiagonalGaussian | Deterministic)
    if activation and isinstance(distribution, Greedy):
        raise ValueError(f"model ends in a {activation}, and a value of an action may be any number: leave it out.")
    if activation and takes_logits and from_logits:
        fix = ", or declare that it gives probabilities with from_logits=False" if discrete else ""
        raise ValueError(
            f"model ends in a {activation}, and a policy's model gives logits: leave the activation of its last layer "
            f"out{fix}."
        )
    if isinstance(distribution, Deterministic) and ends_in_tanh(network, head):
        raise ValueError(
            "model ends in a tanh, and the policy takes the tanh of what it gives, so its actions could not reach their "
            "bounds: leave the activation of its last layer out."
        )
    if not from_logits and not discrete:
        raise ValueError(
            "from_logits=False declares probabilities of one choice among several, and this environment has "
            f"{_describe(distribution, output_shape)}: leave it out."
        )
    if isinstance(raw, dict) and "value" in raw:
        if isinstance(distribution, Greedy):
            raise ValueError(
                'model returns a "value", and this agent\'s is the best of its action values: leave it out.'
            )
        _check_value(raw["value"], 'model\'s "value"')
        return True
    return False


def _describe(distribution: Distribution, shape: tuple[int, ...]) -> str:
    wide = isinstance(distribution, DiagonalGaussian) and distribution.scale == "network"
    texts: dict[type[Any], str] = {
        Categorical: f"{shape[0]} actions: one logit each",
        Greedy: f"{shape[0]} actions: {shape[1] if shape[1:] else 'one'} number{'s' if shape[1:] else ''} each, how good it is",
        Deterministic: f"actions of shape {shape}: one number each, whose tanh is the action in half-widths of its space",
        DiagonalGaussian: f"actions of {shape[0] // 2} numbers: first the means, then the logs of the standard deviations"
        if wide
        else f"actions of shape {shape}: their mean",
        Joint: f"actions of several parts: {shape[0]} numbers, the parts' logits and means in the order of the space",
    }
    other = f"several choices at once: {math.prod(shape)} logits, those of the first choice first"
    return texts.get(type(distribution), other)


def _check_value(value: Any, name: str) -> None:
    if isinstance(value, dict) and set(value) == {"value"}:  # of a model with memory
        value = value["value"]
    if isinstance(value, dict) or tuple(value.shape) not in ((2,), (2, 1)):
        shape = "a dict" if isinstance(value, dict) else f"shape {('N', *value.shape[1:])}"
        raise ValueError(f"{name} gives {shape}; a value is (N, 1): end it in keras.layers.Dense(1).")


def check_side_effects(policy: Policy, training: bool = False) -> None:
    """Raise a ValueError for regularizers, which updates would ignore, and warn of layers that only ever infer.

    Args:
        policy: the policy.
        training: its critics are learned in training mode.
    """
    if policy.losses:
        raise ValueError(
            "The model has regularizers, and an update here climbs credited outputs alone: take them out and use an "
            "optimizer with weight_decay, e.g. keras.optimizers.AdamW."
        )
    kinds = (keras.layers.BatchNormalization, keras.layers.Dropout)
    critics = () if training else policy.critics
    parts = [n for n in (policy.network, policy.value_network, *critics) if n is not None]
    for layer in (layer for network in parts for layer in network.layers if isinstance(layer, kinds)):
        _log.warning(
            "%s %r always runs as at inference (training=False): its statistics stay, nothing is dropped.",
            type(layer).__name__,
            layer.name,
        )


def _require_inputs(network: keras.Model, spec: Any, name: str) -> None:
    """Raise a ValueError for a functional model that lacks an input for a part of the observations, or has one too many."""
    inputs = getattr(network, "input", None) if isinstance(network, keras.Model) and network.built else None
    if (
        not isinstance(inputs, dict)
        or not isinstance(spec, dict)
        or has_memory(network)
        or inputs.keys() == spec.keys()
    ):
        return
    lacks, other = sorted(spec.keys() - inputs.keys()), sorted(inputs.keys() - spec.keys())
    said = [f"no input {', '.join(map(repr, lacks))}"] if lacks else []
    said += [f"an input {', '.join(map(repr, other))} that they do not have"] if other else []
    raise ValueError(
        f"{name} does not take the environment's observations, whose parts are {', '.join(map(repr, sorted(spec)))}: it has "
        f"{' and '.join(said)}. Its inputs have the names of the parts, as in keras.Input(…, name={sorted(spec)[0]!r})."
    )


def _call_on_zeros(network: keras.Model, space: spaces.Space[Any], name: str) -> Any:
    """Return the network's outputs for two observations of zeros, for their structure and shapes."""
    spec = observation_spec(space)
    _require_inputs(network, spec, name)
    try:
        x = Preparation(space)(zeros(spec, (2,)))
        if not has_memory(network):
            return network(x, training=False)
        return one_step(network, x, zeros(state_spec(network), (2,)))[0]
    except (ValueError, TypeError, tf.errors.OpError) as error:
        shapes = tf.nest.map_structure(lambda s: "(N, " + ", ".join(map(str, s.shape[1:])) + ")", spec)
        raise ValueError(
            f"{name} does not take the environment's observations, shape {shapes}: {reason_of(error)}"
        ) from error
