"""Rewards in units of their discounted sum's deviation."""

import numpy as np
import pytest
import tensorflow as tf

import rlgrad
from rlgrad.agents import PPO
from rlgrad.learning.reward_scale import RewardScale, StreamRewardScale

RNG = np.random.default_rng(0)


def discounted(rewards, ends, gamma):
    """u_t = r_t + γ u_t−1, from 0 at an episode's first step: by a plain loop."""
    u, sums = np.zeros(rewards.shape[1]), np.zeros_like(rewards)
    for t in range(len(rewards)):
        u = rewards[t] + gamma * u
        sums[t] = u
        u = u * ~ends[t]
    return sums


@pytest.mark.parametrize("cuts", [(20,), (7, 13), (1, 2, 17)])
def test_the_scale_is_that_of_all_steps_however_they_were_cut_into_rollouts(cuts):
    rewards, ends = RNG.normal(size=(20, 3)), RNG.random((20, 3)) < 0.2
    scale, start = RewardScale(3, 0.9, whole_episodes=False), 0
    for length in cuts:
        rows = slice(start, start + length)
        scale.update(tf.constant(rewards[rows]), tf.constant(ends[rows]), tf.ones((length, 3)))
        start += length
    expected = rewards / np.sqrt(discounted(rewards, ends, 0.9).var())
    np.testing.assert_allclose(scale.scale(tf.constant(rewards)), expected, rtol=1e-7)


def test_the_sum_of_a_stream_begins_anew_at_the_last_step_and_goes_on_from_it():
    """u is 1, then 2 where the episode ends, then 3 + ½ 2 = 4; the step that only resets leaves it; then 0 + ½ 4 = 2."""
    scale, sums = StreamRewardScale(1, 0.5), [1.0, 2.0, 4.0, 2.0]
    for reward, ends, counts in [(1.0, False, 1), (2.0, True, 1), (3.0, False, 1), (9.0, False, 0), (0.0, False, 1)]:
        scale.update(tf.constant([[reward]]), tf.constant([[ends]]), tf.fill((1, 1), float(counts)))
    assert float(scale.scale(tf.constant(3.0, tf.float64))) == pytest.approx(3.0 / np.std(sums), rel=1e-6)


@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1e-6, 1e-3, 1e3, 1e9, 1e15])
@pytest.mark.parametrize("gamma", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["random", "constant", "zero"])
def test_the_scaled_rewards_do_not_depend_on_the_unit(kind, gamma, unit):
    rewards = {"random": RNG.normal(size=(50, 3)), "constant": np.full((50, 3), 0.7), "zero": np.zeros((50, 3))}[kind]
    ends, scaled = RNG.random((50, 3)) < 0.1, []
    for factor in (1.0, unit):
        scale = RewardScale(3, gamma, whole_episodes=False)
        for rows in (slice(0, 20), slice(20, 50)):
            scale.update(tf.constant(factor * rewards[rows]), tf.constant(ends[rows]), tf.ones((len(ends[rows]), 3)))
        scaled.append(np.asarray(scale.scale(tf.constant(factor * rewards))))
    np.testing.assert_allclose(scaled[1], scaled[0], rtol=1e-7)
    if kind == "constant" and gamma == 0.0:
        np.testing.assert_allclose(scaled[0], 1.0, rtol=1e-6)


def test_padding_does_not_count_and_no_episode_goes_on_where_columns_are_episodes():
    rewards, ends = RNG.normal(size=(4, 2)), np.zeros((4, 2), bool)
    mask = np.array([[1, 1], [1, 1], [1, 0], [1, 0]], np.float32)
    scale = RewardScale(2, 0.5, whole_episodes=True)
    for _ in range(2):
        scale.update(tf.constant(rewards), tf.constant(ends), tf.constant(mask))
    counted = discounted(rewards, ends, 0.5)[mask > 0]
    np.testing.assert_allclose(scale.scale(tf.constant(1.0)), 1.0 / np.sqrt(counted.var() + 1e-8), rtol=1e-6)


def test_the_columns_of_whole_episodes_are_more_than_the_environments():
    """Two episodes of each of two environments are four columns, which begin anew in each rollout."""
    rewards, mask = np.array([[1.0, -2.0, 0.5, 3.0], [2.0, 1.0, -1.0, 0.0]]), np.ones((2, 4), np.float32)
    scale = RewardScale(2, 0.5, whole_episodes=True)
    for _ in range(2):
        scale.update(tf.constant(rewards), tf.constant(np.zeros((2, 4), bool)), tf.constant(mask))
    sums = [1.0, -2.0, 0.5, 3.0, 2.5, 0.0, -0.75, 1.5]  # the second row is r + 0.5 · the first
    np.testing.assert_allclose(scale.scale(tf.constant(1.0)), 1.0 / np.sqrt(np.var(sums) + 1e-8), rtol=1e-6)


def test_what_is_logged_and_evaluated_stays_raw_and_the_scale_is_saved(tmp_path):
    agent = PPO(num_envs=2, num_steps=64, scale_rewards=True, update=rlgrad.Ascent(num_epochs=2, num_minibatches=2))
    run = rlgrad.train(
        agent, "CartPole-v1", total_timesteps=1024, run_dir=tmp_path / "run", evaluation_episodes=2, verbose=False
    )
    assert run.history["train/return"][-1] == run.history["train/length"][-1]  # CartPole pays 1 a step
    kept = [v.numpy() for v in run.learner.reward_scale.variables]
    assert kept[2] == run.timesteps > 900  # steps that only reset do not count
    again = rlgrad.load(tmp_path / "run", verbose=False)
    for one, other in zip(again.learner.reward_scale.variables, kept, strict=True):
        np.testing.assert_array_equal(one, other)
