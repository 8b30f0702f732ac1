"""The options of a vector environment: everything that its maker needs besides the environment itself."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gymnasium import Env
from gymnasium.vector import VectorEnv

MOST_ENVS = {"sync": 2**14, "async": 2**10}  # async has a process for each
MODES = ("auto", "sync", "async", "vector_entry_point")


@dataclass(frozen=True, kw_only=True)
class EnvironmentOptions:
    """How environments are made and stepped. `GymCollector` documents each of them."""

    num_envs: int | None = None
    max_episode_steps: int | None = None
    vectorization_mode: str = "auto"
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Sequence[str] = ()
    step_timeout: float | None = None

    @property
    def slots(self) -> int:
        """The number of environments to make, where the environment itself does not fix it."""
        return 8 if self.num_envs is None else self.num_envs

    def require_possible(self, env: Any) -> None:
        """Raise a ValueError for options that contradict each other, or the environment that they are for."""
        mode, timeout = self.vectorization_mode, self.step_timeout
        if timeout is not None and not 0.0 < timeout < math.inf:
            raise ValueError(f"step_timeout is a number of seconds above 0, got {timeout!r}.")
        if timeout is not None and mode != "async":
            raise ValueError(
                "step_timeout needs environments in processes of their own, since nothing else can be stopped in the middle of "
                f'a step: set vectorization_mode="async", or leave step_timeout out; got {mode!r}.'
            )
        if mode not in MODES:
            raise ValueError(f"vectorization_mode is one of {', '.join(MODES)}; got {mode!r}.")
        made = isinstance(env, Env | VectorEnv)
        if self.env_kwargs and made:
            raise ValueError("env_kwargs are for an environment that is still to be made: leave them out for this one.")
        if "max_episode_steps" in self.env_kwargs:
            raise ValueError("Give max_episode_steps to the collector itself, not in env_kwargs.")
        if self.wrappers and (made or mode == "vector_entry_point"):
            raise ValueError("wrappers are for single environments that are still to be made: wrap this one yourself.")

    def require_few_enough(self) -> None:
        """Raise a ValueError for more environments side by side than a computer can step, once it is known how."""
        most = MOST_ENVS.get(self.vectorization_mode)
        if most is not None and self.slots > most:
            raise ValueError(
                f"num_envs is at most {most:,} where environments are stepped {self.vectorization_mode}, got {self.slots:,}: "
                "lower it, or use an environment that is stepped as a whole."
            )
