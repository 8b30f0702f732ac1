"""Classes of agents and updates by the names that a config has for them."""

from typing import TYPE_CHECKING, Any

from rlgrad.core import registry

if TYPE_CHECKING:  # the command line asks for its options before anything heavy is imported
    from rlgrad.agent import Agent
    from rlgrad.updates import Update

UPDATES = "rlgrad.updates"
"""The group of entry points that names updates."""


def update_class(name: Any) -> "type[Update]":
    """Return the update class of a name such as `per_head`, or of a place such as `my_update.py:MyUpdate`.

    Raises:
        ValueError: there is none; the message has the names that are near.
    """
    from rlgrad.updates import Update

    if not isinstance(name, str):
        known = ", ".join(sorted(registry.installed(UPDATES)))
        raise ValueError(f"The type of an update is one of {known}, or my_update.py:MyUpdate; got {name!r}.")
    try:
        cls = registry.find(UPDATES, name)
    except ValueError as error:
        raise ValueError(f"The type of an update is a name or a place. {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Update)):
        raise ValueError(f"{name} is no subclass of rlgrad.updates.Update.")
    return cls


def agent_class(name: str) -> "type[Agent]":
    """Return the agent class of a name such as `reinforce`, or of a place such as `my_agent.py:MyAgent`.

    Raises:
        ValueError: there is none; the message has the names that are near.
    """
    from rlgrad.agent import Agent

    cls = registry.find("rlgrad.agents", name)
    if not (isinstance(cls, type) and issubclass(cls, Agent)):
        raise ValueError(f"{name} is no subclass of rlgrad.Agent.")
    return cls


def agent_name(agent: "Agent") -> str:
    """Return the name by which `agent_class` finds this agent's class."""
    return registry.name_of("rlgrad.agents", type(agent))
