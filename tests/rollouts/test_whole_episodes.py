"""Whole episodes cost what they are long, whatever their limit, and no step is taken that does not count."""

import logging
import tracemalloc

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers.functionals import Clock
from helpers.scripted import GO_ON, TERMINATE, RandomPolicy, RoundPolicy, ScriptedEnv
from numpy.testing import assert_array_equal

import rlgrad
from rlgrad.agents import Reinforce
from rlgrad.core.faults import EndlessEpisode
from rlgrad.envs import CartPole
from rlgrad.learning.learner import Learner
from rlgrad.rollouts import GymCollector, compiled, lengths, player
from rlgrad.rollouts.compiled import CompiledCollector
from rlgrad.rollouts.tape import lengthened

FIELDS = (
    "observations",
    "actions",
    "rewards",
    "terminations",
    "truncations",
    "final_observations",
    "log_probs",
    "mask",
)


class Walk(gymnasium.Env):
    """Episodes of a random length up to `longest`; what is seen is random too. No limit is known."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def __init__(self, longest=200):
        self._longest = longest

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._left = int(self.np_random.integers(2, self._longest))
        return self._seen(), {}

    def step(self, action):
        type(self).steps += 1
        assert self._left > 0, "stepped after its episode ended"
        self._left -= 1
        return self._seen(), float(action), self._left == 0, False, {}

    def _seen(self):
        return self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)


class Endless(Walk):
    def step(self, action):
        return self._seen(), 1.0, False, False, {}


def assert_equal_up_to_padding(short, long):
    rows = len(short.mask)
    for name in FIELDS:
        whole = getattr(long, name)
        assert_array_equal(getattr(short, name), whole[:rows], err_msg=name)
        assert not whole[rows:].any(), name


def test_short_limits_have_one_length_and_others_powers_of_two_up_to_the_first_that_holds_them():
    assert lengths.lengths(500, 100) == (500,)
    assert lengths.lengths(500, 10**6) == (64, 128, 256, 512)
    assert lengths.lengths(3000, 100) == (64, 128, 256, 512, 1024, 2048, 4096)
    assert lengths.lengths(None, 100)[-1] >= lengths.MOST_STEPS > lengths.lengths(None, 100)[-2]
    megabytes_16 = 16 * 2**20
    assert lengths.lengths(1024, megabytes_16 // 1024) == (1024,)
    assert lengths.lengths(1024, megabytes_16 // 1024 + 1) == (64, 128, 256, 512, 1024)
    assert lengths.lengths(1025, 1) == (64, 128, 256, 512, 1024, 2048)


def test_a_rollout_has_the_rows_of_its_longest_episode_and_is_the_same_whatever_the_limit():
    found = {}
    for limit in (None, 5000, 10**9, 999):
        with GymCollector(Walk, num_envs=3, max_episode_steps=limit) as collector:
            found[limit] = collector.collect(RandomPolicy())
    longest = int(found[None].mask.sum(axis=0).max())
    assert 64 < longest <= 256
    assert found[None].mask.shape == (128 if longest <= 128 else 256, 3)
    assert found[999].mask.shape == (999, 3)
    for limit in (5000, 10**9, 999):
        assert_equal_up_to_padding(found[None], found[limit])


def test_a_bound_costs_no_memory():
    tracemalloc.start()
    with GymCollector(lambda: Walk(20), num_envs=2, max_episode_steps=10_000_000) as collector:
        assert collector.collect(RandomPolicy()).mask.shape == (64, 2)
        collector.outcomes(RandomPolicy())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_several_episodes_of_a_slot_have_the_rows_of_the_longest():
    with GymCollector(Walk, num_envs=2, episodes_per_env=3) as collector:
        rollout = collector.collect(RandomPolicy())
        played = collector.drain_episodes()
    assert rollout.mask.shape[1] == 6
    assert rollout.mask.sum(axis=0).tolist() == [episode.length for episode in played]
    assert rollout.terminations.sum(axis=0).tolist() == [1] * 6


def test_a_long_limit_cuts_in_its_own_row():
    with GymCollector(Endless, num_envs=1, max_episode_steps=1030) as collector:
        rollout = collector.collect(RandomPolicy())
    assert rollout.mask.shape == (2048, 1)
    assert np.flatnonzero(rollout.truncations[:, 0]).tolist() == [1029]
    assert rollout.mask.sum() == 1030


def test_an_episode_that_never_ends_is_refused_after_a_fixed_number_of_steps(monkeypatch):
    for module in (lengths, player, compiled):
        monkeypatch.setattr(module, "MOST_STEPS", 150)
    with GymCollector(Endless, num_envs=2) as collector:
        with pytest.raises(EndlessEpisode, match=r"2 of 2 episodes had not ended after 150 steps.*--max-episode-steps"):
            collector.collect(RandomPolicy())
        with pytest.raises(EndlessEpisode):
            collector.outcomes(RandomPolicy())
    clock = CompiledCollector(Clock(length=10**6, max_episode_steps=None), num_envs=2)
    policy = rlgrad.make_policy(clock.observation_space, clock.action_space, value=False, seed=0)
    with pytest.raises(EndlessEpisode, match="2 of 2"):
        clock.collect(policy)


def test_observations_that_do_not_fit_into_memory_are_refused_with_their_size():
    with pytest.raises(ValueError, match=r"rows take [\d,]+ GiB.*max_episode_steps"):
        lengths.require_storage(10**9, 10**6)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_slots_that_are_done_rest(mode):
    policy = RoundPolicy([(2, TERMINATE)], [(6, TERMINATE)])
    with GymCollector(ScriptedEnv, num_envs=2, max_episode_steps=9, vectorization_mode=mode) as collector:
        rollouts = [collector.collect(policy) for _ in range(2)]
    for number, rollout in enumerate(rollouts):
        assert rollout.mask.sum(axis=0).tolist() == [2, 6]
        # An environment that had been reset to be stepped in vain would be in a later episode.
        assert_array_equal(rollout.observations[0, :, 0], [number, number])
        assert_array_equal(rollout.rewards[:2, 0], [10 * number + 1, 10 * number + 2])
    assert GO_ON in rollouts[0].actions[:5, 1]


def test_no_step_is_taken_that_does_not_count():
    Walk.steps = 0
    with GymCollector(Walk, num_envs=4) as collector:
        counted = sum(collector.collect(RandomPolicy()).mask.sum() for _ in range(2))
        counted += sum(episode.length for episode in collector.outcomes(RandomPolicy()))
    assert Walk.steps == counted


def test_steps_of_slots_that_cannot_rest_are_said_once(caplog):
    vector = SyncVectorEnv([lambda: Walk(40)] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)
    Walk.steps = 0
    with caplog.at_level(logging.INFO, "rlgrad"), GymCollector(vector, max_episode_steps=50) as collector:
        counted = int(collector.collect(RandomPolicy()).mask.sum())
        collector.collect(RandomPolicy())
    (said,) = [record.getMessage() for record in caplog.records if "steps all slots" in record.getMessage()]
    rows = max(int(word.replace(",", "")) for word in said.split() if word.replace(",", "").isdigit())
    assert rows > counted
    assert rows % 3 == 0


class Forbidding(Walk):
    """Forbids every action once its episode is over."""

    def _info(self):
        return {"action_mask": np.full(2, self._left > 0, np.int8)}

    def reset(self, *, seed=None, options=None):
        seen, _ = super().reset(seed=seed)
        return seen, self._info()

    def step(self, action):
        return *super().step(action)[:-1], self._info()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_mask_of_a_slot_that_rests_does_not_matter(mode):
    with GymCollector(lambda: Forbidding(20), num_envs=3, vectorization_mode=mode) as collector:
        rollout = collector.collect(RandomPolicy())
    assert len(set(rollout.mask.sum(axis=0).tolist())) > 1
    assert rollout.observations["action_mask"][rollout.mask > 0].all()


def test_a_learner_has_one_program_for_each_number_of_rows_and_learns_the_same_from_padding():
    with GymCollector(lambda: Walk(40), num_envs=3) as collector:
        spaces = collector.observation_space, collector.action_space
        policies = [rlgrad.make_policy(*spaces, value=True, seed=0, hidden_sizes=(4,)) for _ in range(2)]
        rollout = collector.collect(policies[0])
    padded = rollout._replace(**{name: lengthened(getattr(rollout, name), 128) for name in FIELDS})
    agent = Reinforce(update=rlgrad.Ascent(learning_rate=0.1))
    learners = [Learner(agent, policy, num_envs=3, xla=False) for policy in policies]
    seed = np.zeros(2, np.int32)
    for learner, first in zip(learners, (rollout, padded), strict=True):
        learner.learn(first, 0.0, seed)
    for a, b in zip(policies[0].variables, policies[1].variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)
    for other in (padded, rollout, padded):
        learners[0].learn(other, 0.0, seed)
    assert learners[0].traces == 2


def test_compiled_episodes_are_the_same_whether_their_limit_is_short_long_or_unknown():
    policy = None
    found = {}
    for limit in (500, 5000, None):
        functional = CartPole()
        functional.max_episode_steps = limit
        collector = CompiledCollector(functional, num_envs=3, seed=1)
        assert (collector.fusible is None) == (limit != 500)
        policy = policy or rlgrad.make_policy(collector.observation_space, collector.action_space, value=False, seed=0)
        found[limit] = collector.collect(policy), collector.drain_episodes(), collector.outcomes(policy, greedy=True)
    rollout, episodes, outcomes = found[None]
    assert len(rollout.mask) in (64, 128)
    for limit in (500, 5000):
        assert_equal_up_to_padding(rollout, found[limit][0])
        assert (episodes, outcomes) == found[limit][1:]
