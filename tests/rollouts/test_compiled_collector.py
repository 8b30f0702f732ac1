"""Rollouts of environments written in TensorFlow: every step obeys the environment, every episode is counted once."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.functionals import Clock, Everything

from rlgrad.envs import CartPole, Pendulum
from rlgrad.policies.build import make_policy
from rlgrad.rollouts.compiled import CompiledCollector
from rlgrad.rollouts.episodes import RunningEpisodes
from rlgrad.spaces.trees import arrays


def collector_and_policy(functional, seed=0, **options):
    collector = CompiledCollector(functional, seed=seed, **options)
    squash = options.pop("squash_actions", False)
    return collector, make_policy(
        collector.observation_space, collector.action_space, hidden_sizes=(8,), seed=1, squash_actions=squash
    )


@pytest.fixture(scope="module")
def cartpole():
    """Five rollouts by steps in a row, and what was drained after each."""
    collector, policy = collector_and_policy(CartPole(), num_envs=16, num_steps=32, max_episode_steps=40)
    played = [(collector.collect(policy), collector.drain_episodes()) for _ in range(5)]
    return policy, [rollout for rollout, _ in played], [episodes for _, episodes in played]


def test_every_step_is_a_step_of_the_environment(cartpole):
    _, rollouts, _ = cartpole
    functional = CartPole()
    for r in rollouts:
        states = tf.constant(r.observations)
        following = functional.transition(states, tf.constant(r.actions), None)
        np.testing.assert_allclose(following, r.final_observations, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(functional.terminal(tf.constant(r.final_observations), None), r.terminations)
        np.testing.assert_array_equal(r.rewards, 1.0)
        np.testing.assert_array_equal(r.mask, 1.0)


def test_an_episode_goes_on_until_it_ends_and_the_next_begins_at_a_start(cartpole):
    _, rollouts, _ = cartpole
    seen = np.concatenate([r.observations for r in rollouts])
    after = np.concatenate([r.final_observations for r in rollouts])
    ends = np.concatenate([r.terminations | r.truncations for r in rollouts])
    assert ends.any()
    np.testing.assert_array_equal(seen[1:][~ends[:-1]], after[:-1][~ends[:-1]])
    starts = seen[1:][ends[:-1]]
    assert np.abs(starts).max() <= 0.05
    assert len(np.unique(starts, axis=0)) == len(starts)


def test_the_time_limit_truncates_and_nothing_else_does(cartpole):
    _, rollouts, _ = cartpole
    ends = np.concatenate([r.terminations | r.truncations for r in rollouts])
    truncations = np.concatenate([r.truncations for r in rollouts])
    for slot in range(ends.shape[1]):
        rows = np.flatnonzero(ends[:, slot])
        lengths = np.diff(np.concatenate([[-1], rows]))
        np.testing.assert_array_equal(truncations[rows, slot], lengths == 40)
        assert lengths.max(initial=0) <= 40


def test_log_probs_are_those_of_the_policy_that_acted(cartpole):
    policy, rollouts, _ = cartpole
    parameters = policy(rollouts[0].observations)["policy"]
    expected = policy.distribution.log_prob(parameters, rollouts[0].actions)
    np.testing.assert_allclose(rollouts[0].log_probs, expected, atol=1e-5)


def test_actions_are_sampled_as_often_as_they_are_probable(cartpole):
    policy, rollouts, _ = cartpole
    p = np.concatenate([tf.nn.softmax(policy(r.observations)["policy"])[..., 1] for r in rollouts])
    chosen = np.concatenate([r.actions for r in rollouts])
    assert abs((chosen - p).sum()) < 5 * np.sqrt((p * (1 - p)).sum())


def test_episodes_are_those_of_the_rollouts(cartpole):
    _, rollouts, drained = cartpole
    running = RunningEpisodes(16)
    for r, episodes in zip(rollouts, drained, strict=True):
        ends = r.terminations | r.truncations
        assert episodes == running.advance(r.rewards.astype(np.float64), r.terminations, ends, r.mask > 0)


def test_the_same_seed_gives_the_same_rollouts_and_another_seed_others():
    def second_rollout(seed):
        collector, policy = collector_and_policy(CartPole(), seed=seed, num_envs=3, num_steps=5)
        collector.collect(policy)
        return collector.collect(policy)

    first, again, other = (second_rollout(seed) for seed in (5, 5, 6))
    tf.nest.map_structure(np.testing.assert_array_equal, first, again)
    assert (first.observations != other.observations).any()


def test_a_rollout_through_xla_is_that_of_the_plain_graph():
    """Which is why the other tests may run as plain graphs."""
    rollouts = []
    for xla in (True, False):
        collector, policy = collector_and_policy(CartPole(), seed=5, num_envs=3, num_steps=20, max_episode_steps=15)
        collector.xla = xla
        rollouts.append(collector.collect(policy))
    one, other = (
        {name: array for name, array in arrays(rollout._asdict(), "") if array is not None} for rollout in rollouts
    )
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert rollouts[0].truncations.any()


def test_slots_and_rollouts_have_random_numbers_of_their_own(cartpole):
    _, rollouts, _ = cartpole
    starts = rollouts[0].observations[0]
    assert len(np.unique(starts, axis=0)) == len(starts)
    assert len(np.unique([r.actions for r in rollouts], axis=0)) == 5
    assert len(np.unique(rollouts[0].actions, axis=1).T) > 8


def test_whole_episodes_are_one_a_column_and_end_with_it():
    collector, policy = collector_and_policy(CartPole(), num_envs=4, episodes_per_env=3, max_episode_steps=30)
    for _ in range(2):
        r, episodes = collector.collect(policy), collector.drain_episodes()
        ends = (r.terminations | r.truncations) & (r.mask > 0)
        assert r.mask.shape == (30, 12)
        np.testing.assert_array_equal(ends.sum(axis=0), 1)
        lengths = r.mask.sum(axis=0)
        np.testing.assert_array_equal(np.argmax(ends, axis=0) + 1, lengths)
        np.testing.assert_array_equal(r.mask, np.arange(30)[:, None] < lengths)
        assert sorted(e.length for e in episodes) == sorted(lengths)
        assert sorted(e.return_ for e in episodes) == sorted((r.rewards * r.mask).sum(axis=0))
        assert np.abs(r.observations[0]).max() <= 0.05
    assert collector.max_rollout_steps == 360


def test_greedy_takes_the_mode():
    collector, policy = collector_and_policy(Pendulum(), num_envs=2, num_steps=6)
    r = collector.collect(policy, greedy=True)
    np.testing.assert_allclose(r.actions, policy(r.observations)["policy"]["mean"], atol=1e-5)


def test_the_sampled_action_is_stored_and_the_clipped_one_is_taken():
    collector, policy = collector_and_policy(Pendulum(), num_envs=64, num_steps=8)
    policy.log_std.assign([3.0])
    r = collector.collect(policy)
    assert np.abs(r.actions).max() > 2.0
    states = Pendulum().initial(tf.zeros((1, 2), tf.int32))
    assert np.abs(r.rewards).max() < np.pi**2 + 0.1 * 8**2 + 0.001 * 2**2 + 1e-3, states


def test_trees_of_observations_and_of_actions():
    collector, policy = collector_and_policy(Everything(), num_envs=3, num_steps=7)
    r = collector.collect(policy)
    assert {name: x.dtype.name for name, x in r.observations.items()} == {"count": "int64", "picture": "uint8"}
    assert r.observations["picture"].shape == (7, 3, 6, 6, 1)
    # The reward is the number of parts of the action that reached the environment as its space has them.
    np.testing.assert_array_equal(r.rewards, 3.0)
    np.testing.assert_array_equal(r.final_observations["count"], r.observations["count"] + 1)


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_what_a_policy_remembers_goes_on_and_is_forgotten_at_an_episodes_end(memory):
    collector = CompiledCollector(Clock(length=3), num_envs=2, num_steps=5)
    policy = make_policy(
        collector.observation_space, collector.action_space, hidden_sizes=(4,), memory=memory, memory_size=3
    )
    first, second = collector.collect(policy), collector.collect(policy)
    at_rollout = policy(policy.inputs(second))["policy"]
    expected = policy.distribution.log_prob(at_rollout, policy.rows(second.actions))
    np.testing.assert_allclose(policy.rows(second.log_probs), expected, atol=1e-5)
    tf.nest.map_structure(lambda s: np.testing.assert_array_equal(s, 0.0), first.initial_states)
    assert all((np.abs(s) > 0).any() for s in tf.nest.flatten(second.initial_states))


def test_a_reward_that_is_not_finite_names_slot_and_step():
    collector, policy = collector_and_policy(Clock(length=9, bad_at=5), num_envs=2, num_steps=8)
    with pytest.raises(FloatingPointError, match="slot 0 gave a non-finite reward at step 4"):
        collector.collect(policy)


def test_whole_episodes_need_no_limit():
    collector, policy = collector_and_policy(Clock(length=3, max_episode_steps=None), num_envs=2)
    assert [episode.length for episode in collector.outcomes(policy)] == [3, 3]


def test_rollouts_are_by_steps_or_by_episodes():
    with pytest.raises(ValueError, match="one of them"):
        CompiledCollector(CartPole(), num_steps=3, episodes_per_env=2)


def test_what_is_kept_of_a_rollout_does_not_change():
    collector, policy = collector_and_policy(CartPole(), num_envs=2, num_steps=3)
    first = collector.collect(policy)
    copy = tf.nest.map_structure(np.copy, first)
    collector.collect(policy)
    tf.nest.map_structure(np.testing.assert_array_equal, first, copy)
