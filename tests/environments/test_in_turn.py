"""Environments of this process, stepped in turn: the same as Gymnasium's own, with infos on demand."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import rlgrad
from rlgrad.environments.in_turn import InTurn


class Counting(gymnasium.Env):
    """Tells how often it was stepped, in an observation of one of three kinds, and in its info."""

    action_space = spaces.Discrete(3)

    def __init__(self, kind):
        one = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.kind, self.observation_space = kind, spaces.Dict(a=one) if kind == "dict" else one

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return self._seen(), {"count": 0}

    def step(self, action):
        self.count += 1
        return self._seen(), float(action), self.count == 4, False, {"count": self.count}

    def _seen(self):
        numbers = np.full(2, self.count + 0.5, np.float64 if self.kind == "float64" else np.float32)
        return {"a": numbers} if self.kind == "dict" else numbers


@pytest.mark.parametrize("kind", ["float32", "float64", "dict"])
@pytest.mark.parametrize("count", [1, 3])
def test_steps_are_those_of_gymnasium(kind, count):
    made = [
        vector([lambda: Counting(kind)] * count, copy=False, autoreset_mode=AutoresetMode.DISABLED)
        for vector in (InTurn, SyncVectorEnv)
    ]
    made[0].merges_infos = True
    actions = np.arange(count) % 3
    for _ in range(2):
        for vector in made:
            vector.reset(seed=0)
        for _ in range(4):
            mine, theirs = (vector.step(actions) for vector in made)
            for a, b in zip(mine[:4], theirs[:4], strict=True):
                np.testing.assert_equal(a, b)
            np.testing.assert_equal(mine[4], theirs[4])
        for vector in made:
            with pytest.raises(AssertionError):
                vector.step(actions)


def test_infos_are_merged_if_they_are_logged():
    with rlgrad.GymCollector(lambda: Counting("float32"), num_envs=2, num_steps=3) as collector:
        vector = collector._environment.vector
        vector.reset(seed=0)
        assert vector.step(np.zeros(2, int))[4] == {}
        collector.log_infos(("count",))
        assert vector.step(np.zeros(2, int))[4]["count"].tolist() == [2, 2]
