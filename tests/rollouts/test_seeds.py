"""What is drawn follows from the seed alone: environments' starts and actions, slot by slot and episode by episode."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers.scripted import BY_EPISODES, BY_STEPS, RandomPolicy, assert_same, rollouts
from numpy.testing import assert_array_equal

from rlgrad.random import child, integer_seed, stream
from rlgrad.rollouts import GymCollector


class SeedEnv(gymnasium.Env):
    """Observes the seed of its last reset (−1: none). Ends after 1 or 9 steps, as its seed has it; 9 steps pay 1."""

    observation_space = spaces.Box(-1, 2**31 - 1, (1,), np.int64)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.left = -1 if seed is None else seed, 1 if self.np_random.random() < 0.5 else 9
        self.long = self.left == 9
        return np.array([self.seed]), {}

    def step(self, action):
        self.left -= 1
        over = self.left == 0
        return np.array([self.seed]), float(over and self.long), over, False, {}


@pytest.mark.parametrize("options", [BY_STEPS, BY_EPISODES])
def test_sync_and_async_are_the_same_to_the_bit(options):
    (sync, sync_episodes), (parallel, parallel_episodes) = (
        rollouts(vectorization_mode=mode, **options) for mode in ("sync", "async")
    )
    for first, second in zip(sync, parallel, strict=True):
        assert_same(first, second)
    assert sync_episodes == parallel_episodes


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
@pytest.mark.parametrize("options", [BY_STEPS, BY_EPISODES])
def test_the_same_seed_gives_the_same_rollouts_and_another_seed_others(mode, options):
    first, again, other = (rollouts(vectorization_mode=mode, seed=seed, **options)[0] for seed in (5, 5, 6))
    for one, two in zip(first, again, strict=True):
        assert_same(one, two)
    assert not np.array_equal(first[0].observations[0], other[0].observations[0])
    assert not np.array_equal(first[0].actions, other[0].actions)


def test_the_two_streams_are_chosen_apart():
    def start_and_actions(*streams):
        rollout = rollouts(1, num_steps=30, streams=streams)[0][0]
        return rollout.observations[0].tobytes(), rollout.actions.tobytes()

    usual = start_and_actions("environment", "action")
    assert start_and_actions("environment", "evaluation")[0] == usual[0]
    assert start_and_actions("environment", "evaluation")[1] != usual[1]
    assert start_and_actions("evaluation", "action")[0] != usual[0]
    assert start_and_actions("evaluation", "action")[1] == usual[1]
    evaluation = start_and_actions("evaluation", "evaluation")
    assert evaluation[0] != usual[0]
    assert evaluation[1] != usual[1]


def expected_seed(seed, slot, episode):
    return integer_seed(child(stream(seed, "environment"), slot, episode))


@pytest.mark.parametrize("instance", [False, True])
def test_an_episodes_seed_is_a_function_of_seed_slot_and_number(instance):
    env = SyncVectorEnv([SeedEnv] * 2, autoreset_mode=AutoresetMode.DISABLED) if instance else SeedEnv
    c = GymCollector(env, num_envs=2, num_steps=200, seed=3)
    observed = c.collect(RandomPolicy()).observations[..., 0]
    for slot in range(2):
        seeds = list(dict.fromkeys(observed[:, slot].tolist()))
        assert len(seeds) > 10
        assert seeds == [expected_seed(3, slot, number) for number in range(len(seeds))]


def test_an_environment_that_resets_itself_is_seeded_once():
    first = integer_seed(child(stream(3, "environment"), 0))
    vector = SyncVectorEnv([SeedEnv] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    observed = GymCollector(vector, num_steps=50, seed=3).collect(RandomPolicy()).observations[..., 0]
    assert_array_equal(observed[0], [first, first + 1])  # what Gymnasium makes of one seed
    assert set(observed.flat) == {first, first + 1, -1}


def test_whole_episodes_of_an_environment_that_resets_itself_differ_from_rollout_to_rollout():
    first, second = rollouts(2, vectorization_mode="vector_entry_point", **BY_EPISODES)[0]
    assert len(np.unique(np.concatenate([first.observations[0], second.observations[0]]), axis=0)) == 12


def test_idling_uses_up_no_seed_of_a_later_episode():
    with GymCollector(SeedEnv, num_envs=3, episodes_per_env=2, max_episode_steps=9, seed=4) as c:
        played = [c.collect(RandomPolicy()).observations[0, :, 0].tolist() for _ in range(3)]
    for rollout, seeds in enumerate(played):
        assert seeds == [expected_seed(4, slot, 2 * rollout + number) for slot in range(3) for number in range(2)]


def test_whole_episodes_have_no_length_bias():
    with GymCollector(SeedEnv, num_envs=8, max_episode_steps=9) as c:
        for _ in range(50):
            c.collect(RandomPolicy())
        episodes = c.drain_episodes()
    long = [
        np.random.default_rng(expected_seed(0, slot, number)).random() >= 0.5
        for number in range(50)
        for slot in range(8)
    ]
    assert [e.length for e in episodes] == [9 if is_long else 1 for is_long in long]
    # Both lengths are equally likely and only the long one pays: 0.5, standard error 0.025. Taking the first 400 to
    # finish would give about 0.1, a tenth of the environment's steps being spent in short episodes.
    assert np.mean([e.return_ for e in episodes]) == pytest.approx(0.5, abs=0.06)
