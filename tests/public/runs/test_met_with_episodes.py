"""What others met with where episodes end: time limits, successors, the metrics of unfinished episodes."""

import math

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers.counting import QUICK, Count

import rlgrad
from rlgrad.agents import A2C
from rlgrad.rollouts import lengths, player


def collected(env, num_steps=8, num_envs=1):
    collector = rlgrad.GymCollector(env, num_envs=num_envs, num_steps=num_steps, seed=0)
    policy = rlgrad.make_policy(collector.observation_space, collector.action_space, hidden_sizes=(4,), seed=0)
    return collector.collect(policy)


def returns_of(rollout, value=100.0, **fields):
    """λ-returns where every state is worth the same."""
    constant = np.full(rollout.rewards.shape, value, np.float32)
    agent = A2C(gamma=0.5, gae_lambda=1.0, **fields)
    return np.asarray(agent.estimate(rollout._replace(values=constant, next_values=constant)).returns)[:, 0]


def test_a_time_limit_bootstraps_and_the_end_of_a_task_does_not():
    """Truncations and terminations or'd together: https://github.com/vwxyzjn/cleanrl/issues/457"""
    cut, ended = returns_of(collected(lambda: Count(cut=4))), returns_of(collected(lambda: Count(ends=4)))
    np.testing.assert_allclose(ended[:4], [1.875, 1.75, 1.5, 1.0])
    np.testing.assert_allclose(cut[:4], [1.875 + 6.25, 1.75 + 12.5, 1.5 + 25, 1 + 50])


def test_no_return_leaks_from_one_episode_into_the_one_before():
    """A truncation that was no boundary of the advantages: https://github.com/Toni-SM/skrl/issues/224"""
    pay = lambda count: 1000.0 if count == 1 else 0.0  # of the first step of each episode alone
    after_cut = returns_of(collected(lambda: Count(cut=4, pay=pay)), value=0.0)
    np.testing.assert_allclose(after_cut, 2 * [1000.0, 0.0, 0.0, 0.0])


def test_a_task_that_ends_in_its_last_step_of_time_has_ended():
    """`truncated` that is True beside `terminated`: https://github.com/openai/gym/issues/3102"""
    rollout = collected(lambda: Count(cut=4, ends=4))
    np.testing.assert_array_equal(rollout.terminations[:, 0], 2 * [False, False, False, True])
    np.testing.assert_allclose(returns_of(rollout)[3], 1.0)


def test_the_successor_of_an_episodes_last_step_is_its_own_last_observation():
    """A crash that is never observed, since the vector environment resets first: https://github.com/hill-a/stable-baselines/issues/245"""
    rollout = collected(lambda: Count(ends=4))
    np.testing.assert_array_equal(rollout.observations[:, 0, 0], 2 * [0, 1, 2, 3])
    np.testing.assert_array_equal(rollout.final_observations[:, 0, 0], 2 * [1, 2, 3, 4])


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_vector_environment_of_ones_own_loses_no_last_observation(mode):
    """Final observations that are not returned on a reset: https://github.com/isaac-sim/IsaacLab/issues/4369"""
    vector = SyncVectorEnv([lambda: Count(cut=4)] * 2, autoreset_mode=mode)
    rollout = collected(vector, num_steps=12, num_envs=None)
    real = np.asarray(rollout.mask) > 0
    step = rollout.final_observations[..., 0] - rollout.observations[..., 0]
    np.testing.assert_array_equal(step[real], 1.0)
    assert (rollout.final_observations[..., 0][np.asarray(rollout.truncations) & real] == 4).all()


def test_the_step_that_only_resets_does_not_count():
    """A vector environment that resets one step late, or too early: https://github.com/Farama-Foundation/Gymnasium/issues/914"""
    vector = SyncVectorEnv([lambda: Count(ends=4)], autoreset_mode=AutoresetMode.NEXT_STEP)
    rollout = collected(vector, num_steps=10, num_envs=None)
    np.testing.assert_array_equal(rollout.mask[:, 0], [1, 1, 1, 1, 0, 1, 1, 1, 1, 0])
    assert rollout.rewards.sum() == 8


def test_returns_are_nan_until_an_episode_ends_and_no_error():
    """A mean reward that is NaN in every row: https://github.com/hill-a/stable-baselines/issues/178"""
    run = rlgrad.train("a2c", lambda: Count(ends=25), total_timesteps=80, **QUICK)
    returns = run.history["train/return"]
    assert [math.isnan(each) for each in returns] == [True, True, False, False]
    assert returns[-1] == 25.0


def test_an_environment_that_never_ends_trains_and_says_why_it_is_not_evaluated(monkeypatch):
    """Returns that stay NaN since no episode ends: https://github.com/ray-project/ray/issues/10416"""
    for module in (lengths, player):
        monkeypatch.setattr(module, "MOST_STEPS", 200)
    run = rlgrad.train("a2c", Count, total_timesteps=40, **QUICK)
    assert all(math.isnan(each) for each in run.history["train/return"])
    with pytest.raises(ValueError, match=r"had not ended after 200 steps, .* give max_episode_steps"):
        run.evaluate(episodes=1)
    assert run.evaluate(episodes=2, max_episode_steps=7).lengths.tolist() == [7, 7]


def test_episodes_are_shorter_or_longer_than_a_rollout_as_they_like():
    """365 samples an episode and 2048 steps a rollout: https://github.com/DLR-RM/stable-baselines3/issues/560"""
    short, long = collected(lambda: Count(ends=3), num_steps=8), collected(lambda: Count(ends=30), num_steps=8)
    assert np.flatnonzero(short.terminations[:, 0]).tolist() == [2, 5]
    assert not (long.terminations | long.truncations).any()


def test_a_limit_of_ones_own_wrapper_is_a_truncation():
    """Setting the number of steps of an episode: https://github.com/araffin/rl-baselines-zoo/issues/63"""
    rollout = collected(lambda: gymnasium.wrappers.TimeLimit(Count(), 4))
    assert np.flatnonzero(rollout.truncations[:, 0]).tolist() == [3, 7]
    assert not rollout.terminations.any()
