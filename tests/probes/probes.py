"""Environments that a correct agent solves in seconds and a wrong one cannot, each because of one named mistake."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


def score(space: spaces.Space[Any], action: Any, target: Any) -> float:
    """How right an action is, at most 1: the share of equal choices, or 1 less the mean distance to the target's numbers."""
    if isinstance(space, spaces.Dict):
        return float(np.mean([score(inner, action[key], target[key]) for key, inner in space.items()]))
    if isinstance(space, spaces.Tuple):
        return float(np.mean([score(inner, a, t) for inner, a, t in zip(space, action, target, strict=True)]))
    if isinstance(space, spaces.Box):
        width = np.asarray(space.high, np.float64) - space.low
        width = np.where(np.isfinite(width), width, 2.0)
        return 1.0 - float(np.mean(np.abs((np.asarray(action, np.float64) - target) / width)))
    return float(np.mean(np.asarray(action) == np.asarray(target)))


class Identity(gymnasium.Env[Any, Any]):
    """One step: give back what is shown. Unsolved where observation or action are mixed up on their way.

    Args:
        space: of actions and of observations.
        seed: of the two targets that are shown.
    """

    def __init__(self, space: spaces.Space[Any], seed: int = 0) -> None:
        self.action_space = self.observation_space = space
        space.seed(seed)
        self._targets = [space.sample() for _ in range(2)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._target = self._targets[int(self.np_random.integers(2))]
        return self._target, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._target, score(self.action_space, action, self._target), True, False, {}


class Constant(gymnasium.Env[Any, Any]):
    """One step, nothing to see: action 1 of 2 pays 1. Unsolved where a credit has the wrong sign."""

    observation_space, action_space = spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), float(action == 1), True, False, {}


class Delayed(gymnasium.Env[Any, Any]):
    """Three steps; the first action decides what the last one pays. Unsolved where a reward counts for its own step alone."""

    observation_space, action_space = spaces.Box(0.0, 2.0, (1,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time, self._first = 0, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._time == 0:
            self._first = int(action)
        self._time += 1
        over = self._time == 3
        return np.full(1, self._time, np.float32), float(over and self._first == 1), over, False, {}


class Endless(gymnasium.Env[Any, Any]):
    """Every step pays 1, and only time limits end it: v = 1 / (1 − γ). Missed where a limit counts as an end of the task."""

    observation_space, action_space = spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0, False, False, {}
