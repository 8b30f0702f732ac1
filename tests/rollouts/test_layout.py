"""How many rows a rollout has, and which limits of an episode's length can be kept."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv

import rlgrad


class Endless(VectorEnv):
    """A vector environment whose episodes have no limit, and which resets its slots itself."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    single_observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    single_action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, num_envs=2):
        self.num_envs = num_envs
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        return np.zeros((self.num_envs, 2), np.float32), {}

    def step(self, actions):
        ended = np.zeros(self.num_envs, bool)
        return np.zeros((self.num_envs, 2), np.float32), np.ones(self.num_envs), ended, ended, {}


@pytest.fixture
def endless_id():
    """An id with a vector entry point, and without a limit that it could hand to it."""
    gymnasium.register("test/Endless-v0", vector_entry_point=Endless)
    yield "test/Endless-v0"
    del gymnasium.registry["test/Endless-v0"]


def test_rollouts_by_steps_need_no_limit_of_episodes(endless_id):
    for env in (Endless(), endless_id):
        with rlgrad.GymCollector(env, num_envs=2, num_steps=3) as collector:
            assert collector.max_rollout_steps == 6
            assert collector.vectorization_mode == ("vector_entry_point" if env is endless_id else "given")


def test_a_limit_that_rollouts_by_steps_of_a_vector_environment_cannot_keep_is_refused(endless_id):
    for env, mode in ((Endless(), "auto"), (endless_id, "vector_entry_point")):
        with pytest.raises(ValueError, match="cannot cut the episodes of a vector environment"):
            rlgrad.GymCollector(env, num_envs=2, num_steps=3, max_episode_steps=10, vectorization_mode=mode)


def test_rollouts_of_whole_episodes_have_as_many_rows_as_an_episode_may_have_steps():
    for episodes, steps in ((1, 2 * 10), (3, 2 * 3 * 10)):
        with rlgrad.GymCollector(Endless(), episodes_per_env=episodes, max_episode_steps=10) as collector:
            assert collector.max_rollout_steps == steps, f"{episodes} episodes in each of two slots"


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"num_steps": 0}, "num_steps is an integer ≥ 1, got 0"),
        ({"num_steps": True}, "num_steps is an integer ≥ 1, got True"),
        ({"num_steps": 2.0}, "num_steps is an integer ≥ 1, got 2.0"),
        ({"num_steps": 2, "episodes_per_env": 2}, "give one of them"),
    ],
)
def test_counts_that_are_none_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        rlgrad.GymCollector("CartPole-v1", num_envs=1, vectorization_mode="sync", **counts)
