"""What a rollout holds, what goes on from one to the next, and what a collector closes."""

from copy import deepcopy

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers.scripted import (
    BY_EPISODES,
    BY_STEPS,
    RandomPolicy,
    ScriptedEnv,
    ScriptedPolicy,
    TreeEnv,
    assert_same,
    rollouts,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from rlgrad.rollouts import Episode, GymCollector
from rlgrad.rollouts.episodes import RunningEpisodes


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_episodes_that_go_on_in_the_next_rollout_are_summed_over_both(mode):
    whole, episodes = rollouts(1, num_steps=120, vectorization_mode=mode)
    parts, again = rollouts(24, num_steps=5, vectorization_mode=mode)
    assert_array_equal(np.concatenate([part.rewards for part in parts]), whole[0].rewards)
    assert len(episodes) > 9
    assert sorted(episodes) == sorted(again)


@pytest.mark.parametrize("options", [BY_STEPS, BY_EPISODES])
@pytest.mark.parametrize("mode", ["sync", "async", "vector_entry_point"])
def test_a_kept_rollout_does_not_change(mode, options):
    with GymCollector("CartPole-v1", num_envs=2, vectorization_mode=mode, **options) as c:
        kept = c.collect(RandomPolicy())
        copy = deepcopy(kept)
        for _ in range(3):
            c.collect(RandomPolicy())
        assert_same(kept, copy)


def test_fields_have_their_types_and_shapes():
    rollout = rollouts(1, num_steps=7)[0][0]
    assert rollout.observations.dtype == rollout.final_observations.dtype == np.float32
    assert rollout.observations.shape == rollout.final_observations.shape == (7, 3, 4)
    assert rollout.actions.dtype == np.int64
    for field in (rollout.rewards, rollout.log_probs, rollout.mask):
        assert field.dtype == np.float32
        assert field.shape == (7, 3)
    assert rollout.terminations.dtype == rollout.truncations.dtype == np.bool_
    assert rollout.values is rollout.next_values is None  # a learner fills them


def test_greedy_takes_the_mode():
    with GymCollector("CartPole-v1", num_envs=2, num_steps=20) as c:
        assert c.collect(RandomPolicy(), greedy=False).actions.any()
        assert not c.collect(RandomPolicy(), greedy=True).actions.any()


def test_the_actor_is_taken_once_a_rollout_and_sees_what_is_stored():
    seen, taken = [], 0

    class Watching(RandomPolicy):
        def actor(self):
            nonlocal taken
            taken += 1
            act = super().actor()

            def watched(observations):
                seen.append(observations.copy())
                return act(observations)

            return watched

    with GymCollector(ScriptedEnv, num_envs=2, num_steps=5) as c:  # it observes float64
        rollout = c.collect(Watching(1))
    assert taken == 1
    assert_array_equal(seen, rollout.observations)
    assert seen[0].dtype == np.float32


def test_the_environment_gets_what_the_distribution_makes_of_the_stored_action():
    class Clipped:
        def noise(self, parameters, generator, count):
            return generator.normal(0, 9, (count, len(parameters), 1)).astype(np.float32)

        def pick(self, parameters, noise):
            return noise

        def numpy_log_prob(self, parameters, actions):
            return np.zeros(actions.shape[:-1], np.float32)

        def to_environment(self, actions):
            return np.clip(actions, -1, 1)

    class Mirror(gymnasium.Env):
        observation_space = action_space = spaces.Box(-1, 1, (1,))

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return action, 0.0, False, False, {}

    policy = RandomPolicy()
    policy.distribution = Clipped()
    with GymCollector(Mirror, num_envs=2, num_steps=30) as c:
        rollout = c.collect(policy)
    assert np.abs(rollout.actions).max() > 1
    assert rollout.actions.shape == (30, 2, 1)
    assert_array_equal(rollout.final_observations, np.clip(rollout.actions, -1, 1))


@pytest.mark.parametrize("mode", ["sync", "async", "NEXT_STEP", "SAME_STEP"])
def test_observations_may_be_trees(mode):
    made = mode in ("sync", "async")
    vector = None if made else SyncVectorEnv([TreeEnv] * 2, autoreset_mode=AutoresetMode[mode])
    steps = {"num_envs": 2, "num_steps": 5}
    with GymCollector(TreeEnv, vectorization_mode=mode, **steps) if made else GymCollector(vector, **steps) as c:
        rollout = c.collect(RandomPolicy())
    before, after = ([0, 1, 2, 3, 0], [1, 2, 3, 0, 1]) if mode == "NEXT_STEP" else ([0, 1, 2, 0, 1], [1, 2, 3, 1, 2])
    for tree, counts in ((rollout.observations, before), (rollout.final_observations, after)):
        assert list(tree) == list(TreeEnv.observation_space.spaces)
        number, half = tree["pair"]
        assert [tree["image"].dtype, number.dtype, half.dtype, tree["flags"].dtype] == [
            np.uint8,
            np.int64,
            np.float32,
            np.int8,
        ]
        assert_array_equal(tree["image"], np.broadcast_to(np.reshape(counts, (5, 1, 1, 1)), (5, 2, 2, 3)))
        assert_array_equal(number.T, [counts] * 2)
        assert_array_equal(half[..., 0].T, [np.divide(counts, 2)] * 2)


def test_trees_are_padded_and_ordered_like_arrays():
    with GymCollector(TreeEnv, num_envs=2, episodes_per_env=2, max_episode_steps=4) as c:
        rollout = c.collect(RandomPolicy())
    assert_array_equal(rollout.observations["pair"][0].T, [[0, 1, 2, 0]] * 4)
    assert_array_equal(rollout.final_observations["image"][:, :, 0, 0].T, [[1, 2, 3, 0]] * 4)
    assert_array_equal(rollout.observations["flags"][..., 0].T, [[1, 1, 1, 0]] * 4)


def test_a_batched_final_observation_is_read_too():
    class Batched(gymnasium.vector.VectorEnv):
        """Two slots counting to 2; resets in the same step and gives the final observations as one array."""

        metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        num_envs = 2
        single_observation_space, single_action_space = spaces.Box(0, 9, (1,)), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.count = np.array([[0.0], [1.0]], np.float32)
            return self.count, {}

        def step(self, actions):
            self.count += 1
            over = self.count[:, 0] == 2
            final = self.count.copy()
            self.count[over] = 0  # in the array that it handed out before
            return self.count, np.ones(2), over, np.zeros(2, bool), {"final_obs": final} if over.any() else {}

    rollout = GymCollector(Batched(), num_steps=3).collect(RandomPolicy())
    assert_array_equal(rollout.observations[..., 0].T, [[0, 1, 0], [1, 0, 1]])
    assert_array_equal(rollout.final_observations[..., 0].T, [[1, 2, 1], [2, 1, 2]])


def test_after_an_interrupted_rollout_the_next_one_starts_afresh():
    class Interrupted(ScriptedPolicy):
        def actor(self):
            act, calls = super().actor(), 0

            def interrupted(observations):
                nonlocal calls
                calls += 1
                if calls == 3:
                    raise KeyboardInterrupt
                return act(observations)

            return interrupted

    script = [(9, 1)]
    with GymCollector(ScriptedEnv, num_envs=1, num_steps=4) as c:
        c.collect(ScriptedPolicy(script))
        with pytest.raises(KeyboardInterrupt):
            c.collect(Interrupted(script))
        rollout = c.collect(ScriptedPolicy(script))
        assert_array_equal(rollout.observations[:, 0], [[1, 0], [1, 1], [1, 2], [1, 3]])
        for _ in range(2):
            c.collect(ScriptedPolicy(script))
        assert c.drain_episodes() == [Episode(9 * 10.0 + 45, 9, True)]


def test_after_an_interrupted_rollout_no_autoreset_step_is_left_over():
    class Failing:
        distribution = RandomPolicy().distribution

        def actor(self):
            raise KeyboardInterrupt

    vector = SyncVectorEnv([ScriptedEnv], autoreset_mode=AutoresetMode.NEXT_STEP)
    c = GymCollector(vector, num_steps=3)
    script = [(3, 1)]
    c.collect(ScriptedPolicy(script))
    with pytest.raises(KeyboardInterrupt):
        c.collect(Failing())
    rollout = c.collect(ScriptedPolicy(script))
    assert_array_equal(rollout.mask[:, 0], [1, 1, 1])
    assert_array_equal(rollout.observations[:, 0], [[1, 0], [1, 1], [1, 2]])


def test_a_reward_in_an_autoreset_step_does_not_count():
    class Paying(SyncVectorEnv):
        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            return observations, rewards + 100, *rest

    c = GymCollector(Paying([ScriptedEnv], autoreset_mode=AutoresetMode.NEXT_STEP), num_steps=7)
    rollout = c.collect(ScriptedPolicy([(2, 1)]))
    assert_array_equal(rollout.mask[:, 0], [1, 1, 0, 1, 1, 0, 1])
    assert_array_equal(rollout.rewards[:, 0], [101, 102, 0, 111, 112, 0, 121])
    assert c.drain_episodes() == [Episode(203.0, 2, True), Episode(223.0, 2, True)]


def test_closing_leaves_an_instance_open_and_closes_what_the_collector_made():
    closed = []

    class Closing(ScriptedEnv):
        def close(self):
            closed.append(self)

    env = Closing()
    with GymCollector(env, num_steps=2) as c:
        c.collect(ScriptedPolicy([(9, 1)]))
    assert closed == []
    with GymCollector(Closing, num_envs=2, num_steps=2) as c:
        c.collect(ScriptedPolicy([(9, 1)], [(9, 1)]))
    assert len(closed) == 3  # and the one that was looked at first
    c.close()
    assert len(closed) == 3
    with pytest.raises(RuntimeError, match="closed"):
        c.collect(ScriptedPolicy([(9, 1)]))


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.integers(-9, 9)), min_size=2, max_size=40),
    st.integers(1, 40),
)
@settings(deadline=None, max_examples=50)
def test_episodes_do_not_depend_on_where_rollouts_are_cut(steps, cut):
    ends, terminations, mask, rewards = (np.reshape(column, (-1, 1)) for column in zip(*steps, strict=True))
    terminations = terminations & ends
    mask = mask | ends
    rewards = rewards * mask.astype(float)

    def advance(running, part):
        return running.advance(rewards[part], terminations[part], ends[part], mask[part])

    running = RunningEpisodes(1)
    in_two = advance(running, slice(cut)) + advance(running, slice(cut, None))
    assert in_two == advance(RunningEpisodes(1), slice(None))
    assert sum(e.length for e in in_two) == mask[: np.flatnonzero(ends).max(initial=-1) + 1].sum()
