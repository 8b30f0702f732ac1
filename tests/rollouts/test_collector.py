from copy import deepcopy

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scripted import RandomPolicy, RoundPolicy, ScriptedEnv, ScriptedPolicy

from rlgrad.random import child, integer_seed, stream
from rlgrad.rollouts import Episode, GymCollector, Rollout
from rlgrad.rollouts.episodes import RunningEpisodes

SAME_STEP, NEXT_STEP = ({"autoreset_mode": mode} for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP))


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


def assert_same(first, second):
    assert (first.initial_states, second.initial_states) == ((), ())
    for name, a, b in list(zip(Rollout._fields, first, second, strict=True))[:-1]:
        assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype


def rollouts(count=3, policy=None, **options):
    with GymCollector("CartPole-v1", **{"num_envs": 3, **options}) as c:
        return [c.collect(policy or RandomPolicy()) for _ in range(count)], c.drain_episodes()


BY_STEPS, BY_EPISODES = {"num_steps": 40}, {"episodes_per_env": 2, "max_episode_steps": 60}


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


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_episodes_that_go_on_in_the_next_rollout_are_summed_over_both(mode):
    whole, episodes = rollouts(1, num_steps=120, vectorization_mode=mode)
    parts, again = rollouts(24, num_steps=5, vectorization_mode=mode)
    assert_array_equal(np.concatenate([part.rewards for part in parts]), whole[0].rewards)
    assert len(episodes) > 9
    assert sorted(episodes) == sorted(again)


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
    for field in (rollout.rewards, rollout.log_probs, rollout.mask, rollout.values, rollout.next_values):
        assert field.dtype == np.float32
        assert field.shape == (7, 3)
    assert rollout.terminations.dtype == rollout.truncations.dtype == np.bool_


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


class TreeEnv(gymnasium.Env):
    observation_space = spaces.Dict(
        image=spaces.Box(0, 255, (2, 3), np.uint8),
        pair=spaces.Tuple([spaces.Discrete(50), spaces.Box(-np.inf, np.inf, (1,), np.float64)]),
        flags=spaces.MultiBinary(2),
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return self._observation(), {}

    def step(self, action):
        self.count += 1
        return self._observation(), 1.0, self.count == 3, False, {}

    def _observation(self):
        image = np.full((2, 3), self.count, np.uint8)
        return {"image": image, "pair": (self.count, np.array([self.count / 2])), "flags": np.array([1, 0], np.int8)}


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

        metadata = SAME_STEP
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


def test_a_reward_that_is_not_finite_names_slot_and_step():
    _assert_not_finite("slot 0 gave a non-finite reward at step 2: nan", rewards={2: np.nan})


@pytest.mark.parametrize("reward", [np.inf, 1e39])
def test_a_reward_beyond_float32_is_not_finite(reward):
    _assert_not_finite("slot 0 gave a non-finite reward at step 1: inf", rewards={1: reward})


def test_an_observation_that_is_not_finite_names_slot_and_step():
    _assert_not_finite(r"slot 0 gave a non-finite observation after step 1: \[nan\]", observations={2: np.nan})
    _assert_not_finite(r"slot 0 gave a non-finite observation before step 0: \[inf\]", observations={0: np.inf})


def _assert_not_finite(message, rewards=None, observations=None):
    class Broken(gymnasium.Env):
        observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.count = 0
            return self._observation(), {}

        def step(self, action):
            reward = (rewards or {}).get(self.count, 0.0)
            self.count += 1
            return self._observation(), reward, False, False, {}

        def _observation(self):
            return np.array([(observations or {}).get(self.count, 0.0)], np.float32)

    for options in ({"num_steps": 5}, {"max_episode_steps": 5, "episodes_per_env": 2}):
        with (
            GymCollector(Broken, num_envs=2, **options) as c,
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
        metadata = NEXT_STEP
        num_envs = 2
        single_observation_space, single_action_space = spaces.Box(0, 9, (3,)), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros((2, 1), np.float32), {}  # would broadcast

    with pytest.raises(ValueError, match=r"expected float32 \(2, 3\), came float32 \(2, 1\)"):
        GymCollector(Misshapen(), num_steps=2).collect(RandomPolicy())


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
