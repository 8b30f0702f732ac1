"""What an environment may not give: numbers that are not finite, and observations of another shape."""

import re

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from helpers.scripted import RandomPolicy, RoundPolicy, ScriptedEnv, ScriptedPolicy, TreeEnv
from numpy.testing import assert_array_equal

from rlgrad.rollouts import GymCollector


def test_a_reward_that_is_not_finite_names_slot_and_step():
    _assert_not_finite("slot 0 gave a non-finite reward at step 2: nan", rewards={2: np.nan})


@pytest.mark.parametrize("reward", [1e39, -1e300])
def test_a_reward_beyond_float32_is_said_to_be_that(reward):
    said = f"slot 0 gave a reward at step 1 that is too large for float32, in which learning computes: {reward}. Its largest"
    _assert_not_finite(re.escape(said), rewards={1: reward})
    _assert_not_finite("slot 0 gave a non-finite reward at step 1: inf", rewards={1: np.inf})


def test_an_observation_beyond_float32_may_be_what_is_infinite():
    """It is stored as float32 where it is seen, so what it was is not known any more; the sentence is true of both."""
    said = r"observation after step 1: \[inf\]\. Stored as float32, what is too large for it is infinite"
    with pytest.warns(RuntimeWarning, match="overflow"):
        _assert_not_finite(said, observations={2: 1e39}, dtype=np.float64)
    _assert_not_finite(said, observations={2: np.inf})


@pytest.mark.parametrize("large", [{"rewards": {1: 1e30}}, {"observations": {1: 1e30}}])
def test_a_number_whose_square_is_too_large_is_fine(large, recwarn):
    with GymCollector(_broken(**large), num_envs=2, num_steps=5) as c:
        c.collect(RandomPolicy())
    assert [str(each.message) for each in recwarn if "overflow" in str(each.message)] == []


def test_an_observation_that_is_not_finite_names_slot_and_step():
    _assert_not_finite(r"slot 0 gave a non-finite observation after step 1: \[nan\]", observations={2: np.nan})
    _assert_not_finite(r"slot 0 gave a non-finite observation before step 0: \[inf\]", observations={0: np.inf})


def _broken(rewards=None, observations=None, dtype=np.float32):
    """An environment that gives these rewards and observations at these steps, and zeros at all others."""

    class Broken(gymnasium.Env):
        observation_space, action_space = spaces.Box(-np.inf, np.inf, (1,), dtype), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.count = 0
            return self._observation(), {}

        def step(self, action):
            reward = (rewards or {}).get(self.count, 0.0)
            self.count += 1
            return self._observation(), reward, False, False, {}

        def _observation(self):
            return np.array([(observations or {}).get(self.count, 0.0)], dtype)

    return Broken


def _assert_not_finite(message, **numbers):
    for options in ({"num_steps": 5}, {"max_episode_steps": 5, "episodes_per_env": 2}):
        with (
            GymCollector(_broken(**numbers), num_envs=2, **options) as c,
            pytest.raises(FloatingPointError, match=message),
        ):
            c.collect(RandomPolicy())


def test_the_array_of_a_tree_that_is_not_finite_is_named():
    class Broken(TreeEnv):
        def _observation(self):
            return {**super()._observation(), "pair": (0, np.array([np.nan if self.count == 2 else 0.0]))}

    message = r"slot 0 gave a non-finite observation\['pair'\]\[1\] after step 1: \[nan\]"
    with GymCollector(Broken, num_envs=2, num_steps=3) as c, pytest.raises(FloatingPointError, match=message):
        c.collect(RandomPolicy())


def test_the_slot_is_named_where_columns_are_episodes():
    class BrokenLater(ScriptedEnv):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            return observation, np.nan if self.count == 3 else reward, terminated, truncated, info

    policy = RoundPolicy([(2, 1)], [(1, 1), (4, 1)])
    with (
        GymCollector(BrokenLater, num_envs=2, max_episode_steps=6, episodes_per_env=2) as c,
        pytest.raises(FloatingPointError, match="slot 1 gave a non-finite reward at step 2"),
    ):
        c.collect(policy)


def test_what_an_idle_slot_gives_need_not_be_finite():
    class BrokenLater(ScriptedEnv):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            return observation, np.nan if self.episode > 0 else reward, terminated, truncated, info

    with GymCollector(BrokenLater, num_envs=2, max_episode_steps=6) as c:
        rollout = c.collect(ScriptedPolicy([(2, 1)], [(5, 1)]))
    assert_array_equal(rollout.rewards.T, [[1, 2, 0, 0, 0, 0], [1, 2, 3, 4, 5, 0]])


@pytest.mark.filterwarnings("ignore:.*ERROR")  # Gymnasium logs what a process raised
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("late", [False, True])
def test_an_observation_of_another_shape_is_refused(mode, late):
    class Misshapen(ScriptedEnv):
        def _observation(self):
            return np.zeros(3 if self.count >= late else 2)

    with (
        GymCollector(Misshapen, num_envs=2, num_steps=5, vectorization_mode=mode) as c,
        pytest.raises(ValueError, match=r"wrong observation in .*: expected float64 \(2,\), came float64 \(3,\)"),
    ):
        c.collect(RandomPolicy(1))


def test_a_vector_environment_with_observations_of_another_shape_is_refused():
    class Misshapen(gymnasium.vector.VectorEnv):
        metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        num_envs = 2
        single_observation_space, single_action_space = spaces.Box(0, 9, (3,)), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros((2, 1), np.float32), {}  # would broadcast

    with pytest.raises(ValueError, match=r"expected float32 \(2, 3\), came float32 \(2, 1\)"):
        GymCollector(Misshapen(), num_steps=2).collect(RandomPolicy())
