"""Every autoreset mode, against arrays worked out by hand."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from helpers.scripted import (
    GO_ON,
    TERMINATE,
    TRUNCATE,
    RandomPolicy,
    RoundPolicy,
    Scripted,
    ScriptedEnv,
    ScriptedPolicy,
)
from numpy.testing import assert_array_equal

from rlgrad.rollouts import Episode, GymCollector

T, F = True, False
SCRIPT = ([(2, TERMINATE), (3, TRUNCATE), (5, TERMINATE)], [(4, TRUNCATE), (1, TERMINATE), (9, TRUNCATE)])


def collector(mode, **options):
    if mode in ("sync", "async"):
        return GymCollector(ScriptedEnv, num_envs=2, vectorization_mode=mode, **options)
    kind, reset = mode.split()
    vector = {"Sync": SyncVectorEnv, "Async": AsyncVectorEnv}[kind](
        [ScriptedEnv] * 2, autoreset_mode=AutoresetMode[reset]
    )
    made = GymCollector(vector, **options)
    made.close = vector.close  # so that `with` closes what was passed as an instance
    return made


RESETS_AT_ONCE = ["sync", "async", "Sync DISABLED", "Async DISABLED", "Sync SAME_STEP", "Async SAME_STEP"]
NEXT_STEP = ["Sync NEXT_STEP", "Async NEXT_STEP"]


@pytest.mark.parametrize("mode", RESETS_AT_ONCE)
def test_by_steps_where_ended_environments_are_reset_at_once(mode):
    with collector(mode, num_steps=6) as c:
        rollout = c.collect(ScriptedPolicy(*SCRIPT))
        assert c.shape == (6, 2)
        assert c.max_rollout_steps == 12
    assert_array_equal(rollout.observations[:, 0], [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 0]])
    assert_array_equal(rollout.observations[:, 1], [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [2, 0]])
    assert_array_equal(rollout.final_observations[:, 0], [[0, 1], [0, 2], [1, 1], [1, 2], [1, 3], [2, 1]])
    assert_array_equal(rollout.final_observations[:, 1], [[0, 1], [0, 2], [0, 3], [0, 4], [1, 1], [2, 1]])
    assert_array_equal(rollout.rewards.T, [[1, 2, 11, 12, 13, 21], [1, 2, 3, 4, 11, 21]])
    assert_array_equal(rollout.terminations.T, [[F, T, F, F, F, F], [F, F, F, F, T, F]])
    assert_array_equal(rollout.truncations.T, [[F, F, F, F, T, F], [F, F, F, T, F, F]])
    assert_array_equal(rollout.actions.T, [[0, 1, 0, 0, 2, 0], [0, 0, 0, 2, 1, 0]])
    assert_array_equal(rollout.mask, np.ones((6, 2)))
    assert_array_equal(rollout.log_probs, [[0, -1]] * 6)


@pytest.mark.parametrize("mode", NEXT_STEP)
def test_by_steps_the_autoreset_step_is_masked(mode):
    with collector(mode, num_steps=6) as c:
        rollout = c.collect(ScriptedPolicy(*SCRIPT))
        following = c.collect(ScriptedPolicy(*SCRIPT))
    assert_array_equal(rollout.mask.T, [[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 0, 1]])
    assert_array_equal(rollout.observations[:, 0], [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])
    assert_array_equal(rollout.observations[:, 1], [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4], [1, 0]])
    assert_array_equal(rollout.final_observations[:, 0], [[0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [1, 3]])
    assert_array_equal(rollout.final_observations[:, 1], [[0, 1], [0, 2], [0, 3], [0, 4], [1, 0], [1, 1]])
    assert_array_equal(rollout.rewards.T, [[1, 2, 0, 11, 12, 13], [1, 2, 3, 4, 0, 11]])
    assert_array_equal(rollout.terminations.T, [[F, T, F, F, F, F], [F, F, F, F, F, T]])
    assert_array_equal(rollout.truncations.T, [[F, F, F, F, F, T], [F, F, F, T, F, F]])
    # Both slots ended in the last row, so the autoreset step is the first of the next rollout.
    assert_array_equal(following.mask.T, [[0, 1, 1, 1, 1, 1]] * 2)
    assert_array_equal(following.rewards.T, [[0, 21, 22, 23, 24, 25]] * 2)
    assert_array_equal(following.terminations.T, [[F, F, F, F, F, T], [F, F, F, F, F, F]])


@pytest.mark.parametrize("mode", RESETS_AT_ONCE)
def test_by_steps_an_episode_goes_on_in_the_next_rollout(mode):
    with collector(mode, num_steps=3) as c:
        first, second = (c.collect(ScriptedPolicy(*SCRIPT)) for _ in range(2))
    assert_array_equal(first.observations[:, 0], [[0, 0], [0, 1], [1, 0]])
    assert_array_equal(second.observations[:, 0], [[1, 1], [1, 2], [2, 0]])
    assert_array_equal(second.rewards.T, [[12, 13, 21], [4, 11, 21]])


@pytest.mark.parametrize("mode", [*RESETS_AT_ONCE, *NEXT_STEP])
def test_by_steps_episodes_are_drained_by_time_and_then_by_slot(mode):
    with collector(mode, num_steps=4) as c:
        assert c.drain_episodes() == []
        for _ in range(2):
            c.collect(ScriptedPolicy(*SCRIPT))
        first, second = Episode(1.0 + 2, 2, True), Episode(1.0 + 2 + 3 + 4, 4, False)
        third = {T: Episode(11.0, 1, True), F: Episode(11.0 + 12 + 13, 3, False)}
        # At once: slot 0 ends in rows 1 and 4, slot 1 in 3 and 4. Next step: slot 0 in 1 and 5, slot 1 in 3 and 5.
        assert c.drain_episodes() == [first, second, third[F], third[T]]
        assert c.drain_episodes() == []


@pytest.mark.parametrize("mode", [*RESETS_AT_ONCE, *NEXT_STEP])
def test_whole_episodes_are_padded_columns(mode):
    policy = RoundPolicy([(2, TERMINATE)], [(4, TRUNCATE)])
    with collector(mode, max_episode_steps=5) as c:
        rollout = c.collect(policy)
        assert c.shape == (5, 2)
        assert c.drain_episodes() == [Episode(3.0, 2, True), Episode(10.0, 4, False)]
        again = c.collect(policy)
        assert [(e.length, e.terminated) for e in c.drain_episodes()] == [(2, True), (4, False)]
    assert_array_equal(rollout.mask.T, [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
    assert_array_equal(rollout.observations[:, 0], [[0, 0], [0, 1], [0, 0], [0, 0], [0, 0]])
    assert_array_equal(rollout.observations[:, 1], [[0, 0], [0, 1], [0, 2], [0, 3], [0, 0]])
    assert_array_equal(rollout.final_observations[:, 0], [[0, 1], [0, 2], [0, 0], [0, 0], [0, 0]])
    assert_array_equal(rollout.final_observations[:, 1], [[0, 1], [0, 2], [0, 3], [0, 4], [0, 0]])
    assert_array_equal(rollout.rewards.T, [[1, 2, 0, 0, 0], [1, 2, 3, 4, 0]])
    assert_array_equal(rollout.terminations.T, [[F, T, F, F, F], [F, F, F, F, F]])
    assert_array_equal(rollout.truncations.T, [[F, F, F, F, F], [F, F, F, T, F]])
    assert_array_equal(rollout.actions.T, [[0, 1, 0, 0, 0], [0, 0, 0, 2, 0]])
    assert_array_equal(rollout.log_probs.T, [[0, 0, 0, 0, 0], [-1, -1, -1, -1, 0]])
    assert_array_equal(again.mask, rollout.mask)
    assert_array_equal(again.observations[0, :, 1], [0, 0])


@pytest.mark.parametrize("mode", [*RESETS_AT_ONCE, *NEXT_STEP])
def test_several_whole_episodes_a_slot_are_ordered_by_slot_and_cut_at_the_limit(mode):
    policy = RoundPolicy([(2, TERMINATE), (3, TRUNCATE)], [(4, TRUNCATE), (99, TERMINATE)])
    with collector(mode, max_episode_steps=4, episodes_per_env=2) as c:
        rollout = c.collect(policy)
        assert c.shape == (4, 4)
        assert c.max_rollout_steps == 16
        assert [(e.length, e.terminated) for e in c.drain_episodes()] == [(2, T), (3, F), (4, F), (4, F)]
    # Columns: slot 0's two episodes, then slot 1's two.
    assert_array_equal(rollout.mask.T, [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]])
    steps = [[0, 1, 0, 0], [0, 1, 2, 0], [0, 1, 2, 3], [0, 1, 2, 3]]
    successors = [[1, 2, 0, 0], [1, 2, 3, 0], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert_array_equal(rollout.observations[..., 1].T, steps)
    assert_array_equal(rollout.final_observations[..., 1].T, successors)
    assert_array_equal(rollout.terminations.T, [[F, T, F, F], [F, F, F, F], [F, F, F, F], [F, F, F, F]])
    assert_array_equal(rollout.truncations.T, [[F, F, F, F], [F, F, T, F], [F, F, F, T], [F, F, F, T]])
    # One column is one episode of the environment: its number is the same in every row that counts.
    numbers = rollout.observations[..., 0]
    assert_array_equal(numbers, rollout.mask * numbers[0])
    assert_array_equal(rollout.rewards, rollout.mask * (10 * numbers + rollout.final_observations[..., 1]))


def test_a_vector_environment_that_nothing_limits_is_cut_by_the_collector():
    class Endless(SyncVectorEnv):
        pass

    vector = Endless([ScriptedEnv] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    c = GymCollector(vector, max_episode_steps=3, episodes_per_env=2)
    rollout = c.collect(RoundPolicy([(99, TERMINATE)], [(3, TERMINATE)]))
    assert_array_equal(rollout.mask, np.ones((3, 4)))
    assert_array_equal(rollout.truncations[-1], [T, T, F, F])
    assert_array_equal(rollout.terminations[-1], [F, F, T, T])
    vector.close()


class Constant:
    """Pushes the cart in one direction: slot 0 to the left, slot 1 to the right."""

    class distribution(Scripted):
        def pick(self, parameters, noise):
            return np.array([0, 1])

    distribution = distribution()

    def actor(self):
        return lambda observations: observations


def test_cart_poles_vector_entry_point_masks_the_step_after_its_time_limit():
    options = {"num_envs": 2, "vectorization_mode": "vector_entry_point", "max_episode_steps": 5}
    with GymCollector("CartPole-v1", num_steps=13, **options) as c:
        rollout = c.collect(Constant())
        assert c.drain_episodes() == [Episode(5.0, 5, False)] * 4
    assert_array_equal(rollout.mask.T, [[1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1]] * 2)
    assert_array_equal(rollout.truncations.T, [[F, F, F, F, T, F, F, F, F, F, T, F, F]] * 2)
    assert_array_equal(rollout.rewards, rollout.mask)
    assert not rollout.terminations.any()
    starts = rollout.observations[[0, 6, 12]]
    assert (np.abs(starts) <= 0.05).all()
    assert (np.abs(rollout.final_observations[rollout.truncations]).max(axis=1) > 0.5).all()


def test_cart_poles_vector_entry_point_by_whole_episodes_equals_stepping_it_bare():
    options = {"num_envs": 2, "vectorization_mode": "vector_entry_point", "seed": 7}
    with GymCollector("CartPole-v1", episodes_per_env=2, **options) as c:
        rollout = c.collect(Constant())
    assert rollout.mask.shape == (500, 4)
    assert rollout.terminations.sum() == 4
    assert not rollout.truncations.any()
    for column, push in enumerate([0, 0, 1, 1]):
        length = int(rollout.mask[:, column].sum())
        # The vector environment integrates in float64; replay the episode from its first observation.
        env = gymnasium.make("CartPole-v1").unwrapped
        env.reset()
        env.state = rollout.observations[0, column].astype(np.float64)
        for row in range(length):
            np.testing.assert_allclose(rollout.observations[row, column], env.state, atol=1e-5)
            observation, _, terminated, _, _ = env.step(push)
            np.testing.assert_allclose(rollout.final_observations[row, column], observation, atol=1e-5)
            assert terminated == (row == length - 1) == rollout.terminations[row, column]


@pytest.mark.parametrize("mode", ["sync", *NEXT_STEP[:1], "Sync SAME_STEP"])
def test_no_transition_crosses_an_episode_border(mode):
    with collector(mode, num_steps=50) as c:
        rollout = c.collect(RandomPolicy(3))
    real = rollout.mask.astype(bool)
    before, after = rollout.observations[real], rollout.final_observations[real]
    assert_array_equal(before[:, 0], after[:, 0])
    assert_array_equal(before[:, 1] + 1, after[:, 1])
    assert (rollout.actions[real] != GO_ON).sum() == (rollout.terminations | rollout.truncations).sum()


def test_episodes_that_all_end_with_a_rollout_are_gone_on_with():
    script = [(3, TERMINATE)], [(3, TRUNCATE)]
    with collector("sync", num_steps=3) as whole, collector("sync", num_steps=3) as resumed:
        whole.collect(ScriptedPolicy(*script))
        resumed.restore(whole.state())
        policy = ScriptedPolicy(*script)
        first, second = whole.collect(policy), resumed.collect(policy)
    assert_array_equal(first.observations[:, :, 1], second.observations[:, :, 1])
    assert_array_equal(first.terminations, second.terminations)
