"""A run's policy without its environment: spaces.json, in the run's folder, says what it observes and does."""

import dataclasses
import inspect
import json
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import gymnasium

from rlgrad.agent import Agent
from rlgrad.config import from_mapping
from rlgrad.core import capacity, plain_files, settings
from rlgrad.core.keras_configs import weights_within
from rlgrad.distributions import Deterministic
from rlgrad.policies.actions import ActionValues, ActorCritic
from rlgrad.policies.build import make_policy
from rlgrad.policies.critic_options import CriticNetwork
from rlgrad.policies.policy import Policy
from rlgrad.runs import checkpoints
from rlgrad.runs.folders import saved_model
from rlgrad.runs.trust import require_trust
from rlgrad.spaces.descriptions import describe, described
from rlgrad.spaces.table import use_encoders

FILE = "spaces.json"
_MOST_WIDTH = 2**16


def write_spaces(
    path: Path,
    observation: gymnasium.Space[Any],
    action: gymnasium.Space[Any],
    models: Collection[str],
    heads: Mapping[str, Any],
) -> None:
    """Write spaces.json into a run's folder, unless the spaces are of a kind that is not Gymnasium's own.

    Args:
        path: the run's folder.
        observation: the space of observations, with the mask if there is one.
        action: the space of actions.
        models: the models that were given: of `"model"`, `"value_model"` and `"critic_model"`.
        heads: from `heads_of`.
    """
    content: dict[str, Any] = {"observation": describe(observation), "action": describe(action)}
    if None in content.values():
        return
    content["models"] = sorted(models)
    content |= {name: head if isinstance(head, dict) else dataclasses.asdict(head) for name, head in heads.items()}
    checkpoints.write_text(path / FILE, json.dumps(content) + "\n")


def heads_of(agent: Agent, policy: Policy) -> dict[str, Any]:
    """Return what a policy's networks say besides probabilities of actions and a value: arguments of `make_policy`, by name."""
    heads: dict[str, Any] = {}
    if policy.says_action_values:
        heads["action_values"] = agent.action_values
    distribution: Any = policy.distribution
    actor: Any = "deterministic" if isinstance(distribution, Deterministic) else "gaussian"
    if getattr(distribution, "unit", None) == "half-width":
        actor = "reparameterized"
    if policy.critics_of_actions:
        actor = "categorical"
    if policy.critics or actor != "gaussian":
        heads["actor_critic"] = ActorCritic(
            len(policy.critics), actor, agent.quantiles or 0, agent.critic, agent.training_mode
        )
    if agent.scalars:
        heads["scalars"] = dict(agent.scalars)
    return heads


def load_policy(path: Path, *, trust: bool = False) -> Policy | None:
    """Return a run's policy at its newest checkpoint. Neither its environment nor its agent is made.

    Args:
        path: the run's folder.
        trust: permit what another person's folder asks for; see `rlgrad.load`.

    Returns:
        The policy. `None`: the folder does not say what the spaces are, as one of before spaces.json.

    Raises:
        ValueError: the folder is damaged, or a model of it cannot be built again.
    """
    plain_files.require_plain(path)
    if not (path / FILE).is_file():
        return None
    content = settings.read(path / "config.yaml", follow=False)
    encoders = {name: content[name] for name in ("encoders",) if name in content}
    require_trust(path, encoders, trust=trust, training=False)
    options = _options(content)
    use_encoders(tuple(encoders.get("encoders", ())))
    spaces = plain_files.read_json(path / FILE)
    if not isinstance(spaces, dict):
        raise ValueError(f"{path / FILE} holds no spaces.")
    observation, action = described(spaces.get("observation")), described(spaces.get("action"))
    heads: dict[str, Any] = {
        "action_values": _action_values(path, spaces.get("action_values")),
        "actor_critic": _actor_critic(path, spaces.get("actor_critic")),
        "scalars": _scalars(path, spaces.get("scalars")),
    }
    models = {name: saved_model(path, name) for name in ("model", "value_model", "critic_model")}
    for name, found in models.items():
        if name in spaces.get("models", ()) and found is None:  # a default network may have just its shapes
            raise ValueError(
                f"Keras could not describe this run's {name}: use rlgrad.load in Python, and pass it as {name}=."
            )

    def loaded(value: bool) -> Policy:
        with weights_within(capacity.memory() // 4):
            policy = make_policy(observation, action, value=value, **(heads | options | models))
        checkpoints.load_newest(path / "checkpoints", {"policy": policy.variables})
        return policy

    try:
        return loaded(value=True)
    except checkpoints.DamagedError:
        raise
    except ValueError:  # its agent trains no value
        return loaded(value=False)


def _action_values(path: Path, content: Any) -> ActionValues | None:
    """Return what a network says of each action, from the content of a file.

    Raises:
        ValueError: the content is no such thing.
    """
    if content is None:
        return None
    support = content.get("support") if isinstance(content, dict) else None
    try:
        low, high = (0.0, 1.0) if support is None else map(float, support)
        width, dueling = content["width"], content["dueling"]
        if type(width) is not int or not 0 <= width <= _MOST_WIDTH or not low < high or type(dueling) is not bool:
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path / FILE} does not say what the network says of each action: {content!r}.") from error
    return ActionValues(width, None if support is None else (low, high), dueling)


def _actor_critic(path: Path, content: Any) -> ActorCritic | None:
    """Return what a policy's critics are, from the content of a file. Raise a ValueError for what says no such thing."""
    if content is None:
        return None
    known = typing.get_args(typing.get_type_hints(ActorCritic)["actor"])
    counts: list[Any] = [content.get(n) if isinstance(content, dict) else None for n in ("num_critics", "quantiles")]
    fit = all(type(count) is int and 0 <= count <= _MOST_WIDTH for count in counts)
    if not fit or content.get("actor") not in known:
        raise ValueError(f"{path / FILE} does not say how critics and the policy are built: {content!r}.")
    try:
        critic = CriticNetwork(**settings.as_declared(content.get("critic", {}), CriticNetwork))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path / FILE} does not say how critics are built: {error}") from error
    return ActorCritic(counts[0], content["actor"], counts[1], critic, content.get("training") is True)


def _scalars(path: Path, content: Any) -> dict[str, float]:
    """Return numbers by name, from the content of a file. Raise a ValueError for what holds others."""
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(type(number) in (int, float) for number in content.values()):
        raise ValueError(f"{path / FILE} does not say which numbers are learned beside the networks: {content!r}.")
    return {str(name): float(number) for name, number in content.items()}


def _options(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a config's content that are arguments of `make_policy`, each checked as in any config."""
    taken = inspect.signature(make_policy).parameters
    of_agent = settings.mapping(content.get("agent"), "agent")
    agent = Agent(**settings.as_declared({name: each for name, each in of_agent.items() if name in taken}, Agent))
    asked = {name: value for name, value in content.items() if name in taken}
    config = from_mapping(asked | {"agent": {}, "env": "", "total_timesteps": 1}, agent)
    fields = ((part, each.name) for part in (agent, config) for each in dataclasses.fields(part) if each.name in taken)
    return {name: getattr(part, name) for part, name in fields}
