"""From the arguments of `rlgrad.train` to the config of a run: a config that ships, one given as an object, or an agent's."""

import contextvars
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from rlgrad import config as configs
from rlgrad.agent import Agent
from rlgrad.config import Config, agent_class
from rlgrad.core import registry

_P = ParamSpec("_P")
_R = TypeVar("_R")
_NAMED: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("named", default=frozenset())
_REQUIRED = ("env", "total_timesteps")  # `None` means that they are left out


def naming_arguments(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function ask `named()` which arguments its caller wrote, also those that equal their defaults."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        before = _NAMED.set(frozenset(kwargs))
        try:
            return function(*args, **kwargs)
        finally:
            _NAMED.reset(before)

    return call


def named() -> frozenset[str]:
    """Return the names of the keyword arguments that the current call of `naming_arguments` was given."""
    return _NAMED.get()


def config_of(agent: str | Agent | Config, env: Any, given: Mapping[str, Any], written: frozenset[str]) -> Config:
    """Return the config that the arguments of `rlgrad.train` ask for.

    Args:
        agent: a config, the name of one that ships, an agent, or an agent's name.
        env: the environment. `None`: the config's.
        given: the value of each setting, defaults included.
        written: the settings that the caller wrote. They alone replace those of a config.

    Raises:
        TypeError: the agent is none of these.
        ValueError: there is no such config or agent, or a setting without a default is missing; says what to give.
    """
    changes = {name: given[name] for name in written if given[name] is not None or name not in _REQUIRED}
    changes |= {} if env is None else {"env": env}
    if isinstance(agent, Config):
        return dataclasses.replace(agent, **changes)
    if isinstance(agent, str) and _names_config(agent, env):
        return configs.shipped(agent, **changes)
    if isinstance(agent, str):
        agent = agent_class(agent)() if env is not None or ":" in agent else _agent_alone(agent)
    if not isinstance(agent, Agent):
        made = f"the class {agent.__name__}: call it, {agent.__name__}()" if isinstance(agent, type) else repr(agent)
        raise TypeError(
            f"agent is an agent, an agent's name or a config, such as 'ppo', PPO() or 'cartpole-ppo'; got {made}."
        )
    for name, meaning, example in (
        ("env", "the environment", "'CartPole-v1'"),
        ("total_timesteps", "how many environment steps to take", "100_000"),
    ):
        if given[name] is None:
            raise ValueError(f"{name} is missing: {meaning}, such as {example}.")
    return Config(**{**given, "agent": agent})


def _names_config(name: str, env: Any) -> bool:
    """Return True if a text is a config's name rather than an agent's: alone always, if any config has it."""
    return name in registry.configs() and (env is None or name not in registry.agents())


def _agent_alone(name: str) -> Agent:
    """Raise a ValueError that says what a text is to be followed by, or which name was meant."""
    if name.endswith((".yaml", ".yml")):
        raise ValueError(f"A config of your own is trained by the command line: rlgrad train {name}.")
    known = registry.agents()
    if name not in known:
        near = registry.advice(name, [*registry.configs(), *known])
        raise ValueError(f"There is no config or agent {name!r}. {near} Your own agent: my_agent.py:Name.")
    raise ValueError(
        f"rlgrad.train({name!r}) needs an environment, as in rlgrad.train({name!r}, 'CartPole-v1', total_timesteps=100_000). "
        "Alone it takes a config that ships with rlgrad, such as 'cartpole' (`rlgrad configs` lists them)."
    )


def resolved(agent: Agent, env: Any, num_envs: int | None, num_steps: int | None, optimizer: Any) -> Agent:
    """Return the agent with the changes that arguments of `train` make to it."""
    changes: dict[str, Any] = {}
    if num_envs is None and hasattr(env, "step") and not isinstance(env, type):  # a class makes any number of them
        num_envs = getattr(env, "num_envs", 1)
    if num_envs is not None:
        changes["num_envs"] = num_envs
    if num_steps is not None:
        changes["num_steps"] = num_steps
    if optimizer is not None:
        changes["update"] = agent.update.with_optimizer(optimizer)
    return dataclasses.replace(agent, **changes)
