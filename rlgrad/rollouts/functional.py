"""A TensorFlow `FuncEnv` as an ordinary Gymnasium environment, and the ids of those that are installed."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from rlgrad import registry


class FunctionalEnv(gymnasium.Env[Any, Any]):
    """Steps a functional environment: it keeps the state and hands out a seed a call.

    Args:
        functional: pure functions `initial, transition, observation, reward, terminal` of TensorFlow tensors.
    """

    def __init__(self, functional: FuncEnv[Any, Any, Any, Any, Any, Any, Any]) -> None:
        self.functional = functional
        self.observation_space, self.action_space = functional.observation_space, functional.action_space
        self._state: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._state = self.functional.initial(self._seed())
        return np.asarray(self.functional.observation(self._state, self._seed())), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One transition."""
        functional, state = self.functional, self._state
        self._state = functional.transition(state, action, self._seed())
        reward = float(functional.reward(state, action, self._state, self._seed()))
        over = bool(functional.terminal(self._state, self._seed()))
        return np.asarray(functional.observation(self._state, self._seed())), reward, over, False, {}

    def _seed(self) -> np.ndarray:
        return self.np_random.integers(-(2**31), 2**31, size=2, dtype=np.int64).astype(np.int32)


def register() -> None:
    """Give Gymnasium the ids of all installed functional environments that it does not know yet."""
    for name, point in registry.envs().items():
        # Loading may import `rlgrad.envs`, which registers: look only afterwards.
        cls = point.load() if name not in gymnasium.registry else None
        if cls is not None and name not in gymnasium.registry:
            limit = getattr(cls, "max_episode_steps", None)
            gymnasium.register(name, entry_point=_maker(cls), max_episode_steps=limit)


def _maker(cls: Any) -> Any:
    return lambda **kwargs: FunctionalEnv(cls(**kwargs))
