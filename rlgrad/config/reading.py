"""Configs from settings, such as YAML files hold, and those that ship."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlgrad.config.names import agent_class, update_class
from rlgrad.config.settings_record import Config
from rlgrad.config.written import NOTES
from rlgrad.core import registry
from rlgrad.core.checks import check_keys, close_names
from rlgrad.core.settings import alternatives, as_declared, hints, mapping, read, record_type
from rlgrad.hyperparameters import Record

if TYPE_CHECKING:
    from rlgrad.agent import Agent


def from_mapping(content: Mapping[str, Any], agent: "Agent | None" = None, **overrides: Any) -> Config:
    """Build a config from settings, such as a YAML file holds. What they leave out has its default.

    Args:
        content: settings by name; those of the agent under `agent`, with its `name`. `resolved` and `changed` are left out.
        agent: an agent to take instead of the one that is named, which is then not imported.
        overrides: settings to put in the place of those in `content`.

    Raises:
        ValueError: a setting is missing, unknown, or of a type that its field does not take; the message names it.
    """
    settings = {name: value for name, value in content.items() if name not in NOTES} | overrides
    check_keys(settings, (f.name for f in dataclasses.fields(Config)), "setting")
    for name in ("agent", "env", "total_timesteps"):
        if name not in settings:
            raise ValueError(f"The setting {name!r} is missing.")
    if "env" not in overrides and not isinstance(settings["env"], str):
        raise ValueError(f"env is a string, got {settings['env']!r}.")
    options = mapping(settings.pop("agent"), "agent")
    return Config(agent=_agent_from(options) if agent is None else agent, **as_declared(settings, Config))


def shipped(name: str, **changes: Any) -> Config:
    """Return a config that ships with rlgrad, as an object to read, to change and to train.

    Args:
        name: of the config; `rlgrad configs` lists them.
        changes: settings to put in the place of its own.

    Raises:
        ValueError: there is no config of this name, with the names that are near; or a setting is wrong.

    Example:
        >>> config = rlgrad.config.shipped("cartpole", seed=3)
        >>> agent = dataclasses.replace(config.agent, gamma=0.99)
        >>> run = rlgrad.train(dataclasses.replace(config, agent=agent))
    """
    known = registry.configs()
    if name not in known:
        raise ValueError(f"There is no config {name!r}. {close_names(name, known)} `rlgrad configs` lists them.")
    agent = changes.pop("agent", None)
    return from_mapping(read(known[name]), agent, **changes)


def _agent_from(options: dict[str, Any]) -> "Agent":
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"agent has a name, such as `agent: {{name: reinforce}}`; got name: {name!r}.")
    agent: Agent = _record(agent_class(name), options, "agent.")
    return agent


def _record(cls: type[Any], options: Mapping[str, Any], prefix: str, base: Any = None) -> Any:
    """Return a record of class `cls` from field values, in which mappings stand for the records inside it.

    Args:
        cls: the class.
        options: values by field.
        prefix: of the names in messages, such as `agent.`.
        base: a record of that class with the values of the fields that are left out. `None`: they have their defaults.

    Raises:
        ValueError: a key that is no field, with the field that was probably meant; or a value that its field does not take.
    """
    known: dict[str, Any] = {
        f.name: f.default if base is None else getattr(base, f.name) for f in dataclasses.fields(cls)
    }
    check_keys(options, known, f"option of {prefix.rstrip('.')} ({cls.__name__})")
    kind: Any = cls  # one that mypy can hash
    declared = hints(kind)
    inner = {
        name: _inner_record(known[name], declared.get(name, type(known[name])), value, f"{prefix}{name}")
        for name, value in options.items()
    }
    values = as_declared(inner, cls, prefix)
    return cls(**values) if base is None else dataclasses.replace(base, **values)


def _inner_record(default: Any, hint: Any, value: Any, name: str) -> Any:
    """Return the record that settings of a field stand for; or the value as it is, if the field takes none, or others too."""
    kind = record_type(hint)
    if kind is None or isinstance(value, Record) or (len(alternatives(hint)) > 1 and not isinstance(value, Mapping)):
        return value
    from rlgrad.updates import Update

    options = mapping(value, name)
    if isinstance(default, Update):
        return _update(default, options, f"{name}.")
    base = default if isinstance(default, kind) else None
    return _record(kind if base is None else type(base), options, f"{name}.", base)


def _update(default: Record, options: dict[str, Any], prefix: str) -> Any:
    """Return an update from its options: of the type that they name, else the default with other values."""
    kind = update_class(options.pop("type")) if "type" in options else type(default)
    own_rate = not isinstance(
        options.get("optimizer", ""), str
    )  # an optimizer with options has its learning rate among them
    if own_rate and "learning_rate" in kind.__dataclass_fields__:
        options.setdefault("learning_rate", None)
    # A file that names an optimizer says all of it, as those of before there were options did.
    if "optimizer" in options and "optimizer_options" in kind.__dataclass_fields__:
        options.setdefault("optimizer_options", None)
    return _record(kind, options, prefix, default if type(default) is kind else None)
