"""What a run was asked to do, and the config.yaml that says so."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium
import yaml
from gymnasium.experimental.functional import FuncEnv

from rlgrad.agent import Agent
from rlgrad.core import registry
from rlgrad.core.checks import check_keys, require
from rlgrad.core.settings import as_declared, mapping, require_finite
from rlgrad.hyperparameters import Record, fields
from rlgrad.logs import LOGS
from rlgrad.updates import Update

_UPDATES = "rlgrad.updates"
EnvLike = (
    str
    | gymnasium.Env[Any, Any]
    | gymnasium.vector.VectorEnv[Any, Any, Any]
    | FuncEnv[Any, Any, Any, Any, Any, Any, Any]
    | Callable[..., Any]
)
Memory = Literal["gru", "lstm"]
VectorizationMode = Literal["auto", "compiled", "sync", "async", "vector_entry_point"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides what a run does, but for objects that YAML cannot hold (models, environments)."""

    agent: Agent
    env: EnvLike
    total_timesteps: int
    seed: int = 0
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    max_episode_steps: int | None = None
    vectorization_mode: VectorizationMode = "auto"
    collector: str | Callable[..., Any] = "auto"
    step_timeout: float | None = None
    encoders: tuple[str, ...] = ()
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    shared_trunk: bool = False
    memory: Memory | None = None
    memory_size: int = 64
    squash_actions: bool = False
    initial_log_std: float = 0.0
    from_logits: bool = True
    evaluation_episodes: int = 100
    diagnose: bool = False
    evaluation_interval: int | None = None
    stop_at_return: float | None = None
    patience: int | None = None
    time_budget: float | None = None
    logs: tuple[str, ...] = ("csv", "tensorboard")
    histograms: bool = False
    videos: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        require_finite(self)
        require(self.total_timesteps >= 1, "total_timesteps", "at least 1", self.total_timesteps)
        require(self.evaluation_episodes >= 0, "evaluation_episodes", "at least 0", self.evaluation_episodes)
        for name in ("evaluation_interval", "patience", "time_budget"):
            value = getattr(self, name)
            require(value is None or value > 0, name, "above 0", value)
        own = isinstance(self.collector, str) or callable(self.collector)
        require(own, "collector", "auto, the name of a collector, file.py:Name or a class", self.collector)
        require(self.memory_size >= 1, "memory_size", "at least 1", self.memory_size)
        require(self.memory in (None, *get_args(Memory)), "memory", "gru, lstm or none", self.memory)
        require(all(size >= 1 for size in self.hidden_sizes), "hidden_sizes", "widths ≥ 1", self.hidden_sizes)
        check_keys(dict.fromkeys(self.logs), LOGS, "name in logs")
        require(self.videos >= 0, "videos", "at least 0", self.videos)
        if (self.histograms or self.videos) and "tensorboard" not in self.logs:
            raise ValueError("histograms and videos go to TensorBoard: add tensorboard to logs, or leave them out.")

    @property
    def env_name(self) -> str:
        """The environment's id, or the nearest thing to one."""
        if isinstance(self.env, str):
            return self.env
        name = getattr(getattr(self.env, "spec", None), "id", None)
        return str(name or getattr(self.env, "__name__", type(self.env).__name__))


def to_yaml(config: Config, resolved: Mapping[str, Any]) -> str:
    """The config as YAML, with what was resolved from it."""
    plain = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    plain["agent"] = {"name": agent_name(config.agent)} | _plain(config.agent)
    plain["env"] = _place(config.env) if isinstance(config.env, str) else f"({config.env_name}, given as an object)"
    plain["collector"] = _collector_name(config.collector)
    plain["env_kwargs"], plain["wrappers"] = dict(config.env_kwargs), list(config.wrappers)
    plain["hidden_sizes"], plain["logs"] = list(config.hidden_sizes), list(config.logs)
    plain["encoders"] = list(config.encoders)
    if not config.encoders:
        del plain["encoders"]
    if config.from_logits:  # only a model that was given can differ, and the command line takes none
        del plain["from_logits"]
    plain["resolved"] = dict(resolved)
    return yaml.safe_dump(plain, sort_keys=False)


def _place(name: str) -> str:
    """An id or a name as it is; `file.py:Name` with the file's whole path."""
    file, colon, attribute = name.rpartition(":")
    return f"{Path(file).resolve()}:{attribute}" if colon and file.endswith(".py") else name


def _collector_name(collector: str | Callable[..., Any]) -> str:
    """The name by which a collector is found again."""
    return _place(collector) if isinstance(collector, str) else registry.name_of("rlgrad.collectors", collector)


def from_mapping(content: Mapping[str, Any], agent: Agent | None = None, **overrides: Any) -> Config:
    """The config that a run's config.yaml holds.

    Args:
        content: as `read` gives it.
        agent: taken instead of the one that is named.
        overrides: other settings to replace.

    Raises:
        ValueError: a setting that is missing, unknown, or of a type that its field does not take; names it.
    """
    plain = {key: value for key, value in content.items() if key != "resolved"} | overrides
    check_keys(plain, (f.name for f in dataclasses.fields(Config)), "setting")
    for name in ("agent", "env", "total_timesteps"):
        if name not in plain:
            raise ValueError(f"The setting {name!r} is missing.")
    if "env" not in overrides and not isinstance(plain["env"], str):
        raise ValueError(f"env is a text, got {plain['env']!r}.")
    options = mapping(plain.pop("agent"), "agent")
    plain = as_declared(plain, Config)
    plain |= {key: tuple(plain[key]) for key in ("hidden_sizes", "wrappers", "encoders", "logs") if key in plain}
    if agent is None:  # else nothing is imported that might not be there, or be somebody else's
        cls = agent_class(name_of(options))
        del options["name"]
        agent = record_from(cls, options, "agent.")
    return Config(agent=agent, **plain)


def name_of(options: Mapping[str, Any]) -> str:
    """The name of the agent that settings are for.

    Raises:
        ValueError: there is none.
    """
    name = options.get("name")
    if not isinstance(name, str):
        raise ValueError(f"agent has a name, such as `agent: {{name: reinforce}}`; got name: {name!r}.")
    return name


def record_from(cls: type[Any], options: Mapping[str, Any], prefix: str = "") -> Any:
    """A record of class `cls` from a mapping, the records inside it included.

    Args:
        cls: the class.
        options: field by name.
        prefix: of the names in messages, such as `agent.`.

    Raises:
        ValueError: a key that is no field, and says what was meant; or a value of a type that the field does not take.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    check_keys(options, known, f"option of {cls.__name__}")
    built = as_declared(options, cls, prefix=prefix)
    for name, value in options.items():
        default = known[name].default
        if isinstance(default, Record) and not isinstance(value, Record):
            rest = mapping(value, f"{prefix}{name}")
            kind = update_class(rest.pop("type")) if "type" in rest else type(default)
            built[name] = record_from(kind, rest, f"{prefix}{name}.")
    return cls(**built)


def update_class(name: Any) -> type[Update]:
    """Return the update class of a name such as `per_head`, or of a place such as `my_update.py:MyUpdate`.

    Raises:
        ValueError: there is none; says what was meant.
    """
    if not isinstance(name, str):
        known = ", ".join(sorted(registry.installed(_UPDATES)))
        raise ValueError(f"The type of an update is one of {known}, or my_update.py:MyUpdate; got {name!r}.")
    cls = registry.find(_UPDATES, name)
    if not (isinstance(cls, type) and issubclass(cls, Update)):
        raise ValueError(f"{name} is no subclass of rlgrad.updates.Update.")
    return cls


def _plain(value: Any) -> Any:
    """Records as mappings, Keras optimizers as their configs, tuples as lists."""
    if isinstance(value, Record):
        kind = {"type": registry.name_of(_UPDATES, type(value))} if isinstance(value, Update) else {}
        return kind | {name: _plain(v) for name, v in fields(value).items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "get_config"):
        import keras

        return keras.optimizers.serialize(value)
    return value


def agent_class(name: str) -> type[Agent]:
    """Return the agent class of a name such as `reinforce`, or of a place such as `my_agent.py:MyAgent`.

    Raises:
        ValueError: there is none; says what was meant.
    """
    found = registry.find("rlgrad.agents", name)
    if not (isinstance(found, type) and issubclass(found, Agent)):
        raise ValueError(f"{name} is no subclass of rlgrad.Agent.")
    return found


def agent_name(agent: Agent) -> str:
    """Return the name by which `agent_class` finds this agent's class."""
    return registry.name_of("rlgrad.agents", type(agent))
