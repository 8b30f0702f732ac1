"""Which configs that ship with rlgrad are for the environment of a run that is trained with an agent's defaults."""

import dataclasses
from typing import Any

from rlgrad.agent import Agent
from rlgrad.config import Config, agent_name, from_mapping
from rlgrad.core import registry, settings


def shipped_configs(config: Config) -> list[str]:
    """Return the names of the configs that ship for a run's environment, if its agent has the defaults of its class.

    Returns:
        Those of the same agent; if there are none, those of other agents; the best ones first. None for an agent whose fields
        were chosen: whoever chose them needs no others. None where a config that ships has these defaults itself.
    """
    if not isinstance(config.env, str) or not _by_default(config.agent):
        return []
    best, configs = registry.configs_for(config.env), registry.configs()
    contents = {name: settings.read(configs[name]) for name in best}
    agents = {name: settings.mapping(content.get("agent"), name).get("name") for name, content in contents.items()}
    own = [name for name in best if agents[name] == agent_name(config.agent)]
    if any(config.agent == from_mapping(contents[name]).agent for name in own):
        return []
    return own or best


def advice(config: Config, *, from_python: bool) -> str | None:
    """Return a line that names the config to train instead; `None` if there is none."""
    names = shipped_configs(config)
    if not names:
        return None
    result: dict[str, Any] = registry.config_results()[names[0]]
    train = f"rlgrad.train({names[0]!r})" if from_python else f"rlgrad train {names[0]}"
    reached = f"{result['greedy']['mean']:.1f} after {result['timesteps']:,} steps"
    return f"These are the agent's defaults. A config for {config.env} ships, and reaches {reached}: {train}"


def _by_default(agent: Agent) -> bool:
    """Return True if nothing but the size of its rollouts distinguishes an agent from its class's defaults."""
    default = type(agent)()
    return agent == dataclasses.replace(default, num_envs=agent.num_envs, num_steps=agent.num_steps)
