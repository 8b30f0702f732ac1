"""Settings of a policy, and which of them contradict each other, the models that are given, or what the agent learns."""

from dataclasses import dataclass
from typing import Any

import keras

from rlgrad.core.checks import close_names, require
from rlgrad.policies.actions import ActorCritic
from rlgrad.policies.networks import NetworkOptions, slope_of


@dataclass(frozen=True, kw_only=True)
class PolicyOptions(NetworkOptions):
    """Settings of a policy, besides its spaces and models.

    Attributes:
        shared_trunk: let the default policy and value networks share their hidden layers.
        squash_actions: bring continuous actions into their bounds by a tanh, instead of clipping them.
        initial_log_std: start of the Gaussian's log standard deviation.
        state_dependent_std: the network says the log standard deviations beside the means; else they are a variable.
        state_dependent_noise: draw the noise of continuous actions as a function of the state, anew after so many steps; 0: for
            each step by itself.
        normalize_observations: put a `RunningNormalizer` before floating-point observations.
        from_logits: `False` declares that `model` ends in probabilities.
    """

    shared_trunk: bool = False
    squash_actions: bool = False
    initial_log_std: float = 0.0
    state_dependent_std: bool = False
    state_dependent_noise: int = 0
    normalize_observations: bool = False
    from_logits: bool = True

    @property
    def network(self) -> NetworkOptions:
        """The part that the default networks need."""
        return NetworkOptions(
            hidden_sizes=self.hidden_sizes,
            activation=self.activation,
            layer_norm=self.layer_norm,
            fixed_layer_norm=self.fixed_layer_norm,
            sparsity=self.sparsity,
            memory=self.memory,
            memory_size=self.memory_size,
        )


def check_actor_critic(options: PolicyOptions, actor_critic: ActorCritic) -> None:
    """Raise a ValueError for settings that contradict the networks of an agent with critics."""
    if options.memory is not None:
        raise ValueError(
            "memory is not there for agents with critics of actions: they learn from single steps, and a memory needs "
            "sequences. Leave it out, or take an agent that learns from rollouts, such as ppo."
        )
    if actor_critic.actor in ("gaussian", "categorical"):
        return
    given = {
        "shared_trunk": options.shared_trunk,
        "squash_actions": options.squash_actions,
        "from_logits=False": not options.from_logits,
        "initial_log_std": options.initial_log_std != 0.0 and not options.state_dependent_noise,
        "state_dependent_std": options.state_dependent_std,
        "state_dependent_noise": bool(options.state_dependent_noise) and actor_critic.actor == "deterministic",
    }
    for name in (name for name, is_given in given.items() if is_given):
        raise ValueError(
            f"This agent's network says its actions squashed into their bounds: {name} has no meaning here, leave it out."
        )


def check_options(options: PolicyOptions, model: Any, value_model: Any, value: bool) -> None:
    """Raise a ValueError for settings of the default networks that contradict the models."""
    require_activation(options.activation)
    if not options.layer_norm and options.fixed_layer_norm:
        raise ValueError("fixed_layer_norm=True is about layer_norm, which is off: turn it on, or leave this out.")
    require(options.state_dependent_noise >= 0, "state_dependent_noise", "at least 0", options.state_dependent_noise)
    if options.state_dependent_noise and options.state_dependent_std:
        raise ValueError("state_dependent_noise says the deviation in each state: leave state_dependent_std out.")
    if options.state_dependent_noise and model is not None:
        raise ValueError(
            "state_dependent_noise is a function of the last hidden layer of the default networks, and a model was given: "
            "leave it out."
        )
    require(0.0 <= options.sparsity < 1.0, "sparsity", "at least 0, below 1", options.sparsity)
    if options.memory is not None and model is not None:
        raise ValueError(
            "memory is a setting of the default networks, and a model was given: leave it out, and give a model of one step, "
            'from {"observation": …, "state": …} to {"policy": …, "state": …}.'
        )
    if not options.from_logits and model is None:
        raise ValueError(
            "from_logits=False declares that a model ends in probabilities, and none was given: leave it out."
        )
    if not options.shared_trunk:
        return
    given = [name for name, thing in (("model", model), ("value_model", value_model)) if thing is not None]
    if given or not value:
        why = f"{given[0]} was given" if given else "no value is needed"
        raise ValueError(f"shared_trunk is a setting of the default networks, and {why}: leave it out.")


def check_action_values(options: PolicyOptions, value_model: Any) -> None:
    """Raise a ValueError for settings of policies that say how likely actions are."""
    given = {
        "value_model": value_model is not None,
        "shared_trunk": options.shared_trunk,
        "squash_actions": options.squash_actions,
        "state_dependent_std": options.state_dependent_std,
        "state_dependent_noise": bool(options.state_dependent_noise),
        "from_logits=False": not options.from_logits,
    }
    for name in (name for name, is_given in given.items() if is_given):
        raise ValueError(
            f"This agent credits q, so its one network says how good each action is, and the value of a state is the best of "
            f"them: {name} has no meaning here, leave it out."
        )


def require_activation(name: Any) -> None:
    """Raise a ValueError for a name that is no activation of Keras, and no leaky one with a slope."""
    if isinstance(name, str) and slope_of(name) is not None:
        return
    try:
        keras.activations.get(name)
    except ValueError:
        known = [n for n in dir(keras.activations) if n.islower() and n not in ("get", "serialize", "deserialize")]
        raise ValueError(f"activation is one that Keras knows, got {name!r}. {close_names(str(name), known)}") from None
