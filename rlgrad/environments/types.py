"""The types that stand for an environment where one is given, and the settings that say which one it is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import gymnasium
from gymnasium.experimental.functional import FuncEnv

EnvLike: TypeAlias = (
    str
    | gymnasium.Env[Any, Any]
    | gymnasium.vector.VectorEnv[Any, Any, Any]
    | FuncEnv[Any, Any, Any, Any, Any, Any, Any]
    | Callable[..., Any]
)
"""An environment as `rlgrad.train` takes it: an id, an instance, a vector environment, one in TensorFlow, or a function."""


class EnvironmentSettings(Protocol):
    """The settings of a run that say which environment it is. `rlgrad.config.Config` has them."""

    @property
    def env(self) -> Any:
        """An id, or an environment that was given as an object."""

    @property
    def env_kwargs(self) -> Mapping[str, Any]:
        """Arguments of its constructor."""

    @property
    def wrappers(self) -> Sequence[str]:
        """Wrappers around it, the first one innermost."""

    @property
    def max_episode_steps(self) -> int | None:
        """Its time limit; `None`: its own."""
