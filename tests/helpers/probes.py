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


class Recall(gymnasium.Env[Any, Any]):
    """The first of four observations says which action the last one asks for. Unsolved where nothing is remembered, or where
    what is remembered is lost on its way: at the border of a rollout, in a minibatch, in evaluation."""

    observation_space, action_space = spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time, self._cue = 0, int(self.np_random.integers(2))
        return np.array([2 * self._cue - 1, 0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._time += 1
        over = self._time == 4
        return np.array([0, self._time == 3], np.float32), float(over and action == self._cue), over, False, {}


class Forbidden(gymnasium.Env[Any, Any]):
    """One step, nothing to see: the higher the action, the more it pays, and the highest two of five are forbidden in turn.

    Unsolved where the mask is forgotten in the score or in evaluation; playing what is forbidden is an error.
    """

    observation_space, action_space = spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(5)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._mask = np.ones(5, np.int8)
        self._mask[3 + int(self.np_random.integers(2))] = 0
        return np.zeros(1, np.float32), {"action_mask": self._mask}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self._mask[action]:
            raise ValueError(f"Action {action} is forbidden.")
        best = int(np.flatnonzero(self._mask).max())
        return np.zeros(1, np.float32), 1.0 - 0.25 * (best - int(action)), True, False, {"action_mask": self._mask}


class Cut(gymnasium.Env[Any, Any]):
    """Two states: action 1 moves on and pays 0, action 0 stays and pays 0.2; who has moved on is paid 1 for each step after.

    A time limit of 3 cuts it. Unsolved where a cut episode leaks into the next one, or counts as the end of the task.
    """

    observation_space, action_space = spaces.Box(0.0, 1.0, (1,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._moved = False
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = 1.0 if self._moved else 0.2 * float(action == 0)
        self._moved |= action == 1
        return np.full(1, float(self._moved), np.float32), reward, False, False, {}
