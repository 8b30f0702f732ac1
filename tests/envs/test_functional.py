"""Every functional environment keeps its contract (`rlgrad.environments.functional`) alone, side by side, in a program."""

import warnings

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from helpers.slow import mostly_slow

import rlgrad
from rlgrad import random
from rlgrad.core import registry
from rlgrad.environments import ids
from rlgrad.environments.functional_vector import FunctionalVectorEnv

IDS = sorted(registry.envs())
CARTPOLE, CAR, PENDULUM = "rlgrad/CartPole-v1", "rlgrad/MountainCar-v0", "rlgrad/Pendulum-v1"
BREAKOUT, CORRIDOR = "rlgrad/Breakout-v1", "rlgrad/ShortCorridor-v0"
WHOLE_NUMBERS = (BREAKOUT, CORRIDOR)
ids.register()


def env_of(env_id):
    return gymnasium.make(env_id).unwrapped.functional


def actions_of(space, *batch):
    """Random actions (*batch, …) in the dtype of the space."""
    space.seed(0)
    drawn = np.array([space.sample() for _ in range(int(np.prod(batch)))])
    return tf.constant(drawn.reshape(*batch, *space.shape))


def everything(env, rng, action):
    """What all five functions return, one after another."""
    state = env.initial(rng)
    following = env.transition(state, action, rng)
    over, observation = env.terminal(following, rng), env.observation(following, rng)
    return state, following, observation, env.reward(state, action, following, rng), over


def same(one, other):
    """Rows may be rounded in another order, by a bit."""
    tf.nest.map_structure(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), one, other)


@pytest.mark.parametrize("env_id", IDS)
def test_rows_have_the_same_numbers_with_any_batch_axes(env_id):
    env = env_of(env_id)
    rng, actions = random.split(tf.constant([1, 2]), 6), actions_of(env.action_space, 6)
    rows = everything(env, rng, actions)
    square = everything(env, tf.reshape(rng, (2, 3, 2)), tf.reshape(actions, (2, 3, *env.action_space.shape)))
    same(tf.nest.map_structure(lambda x: tf.reshape(x, (6, *x.shape[2:])), square), rows)
    for row in (0, 5):
        same(everything(env, rng[row], actions[row]), tf.nest.map_structure(lambda x, row=row: x[row], rows))
    state, following, observation, reward, over = rows
    assert tf.nest.map_structure(lambda x: (x.shape, x.dtype), state) == tf.nest.map_structure(
        lambda x: (x.shape, x.dtype), following
    )
    assert (observation.shape[1:], observation.dtype) == (env.observation_space.shape, env.observation_space.dtype)
    assert (reward.shape, reward.dtype, over.shape, over.dtype) == ((6,), tf.float32, (6,), tf.bool)


@mostly_slow("env_id", IDS, quick=[CARTPOLE, CORRIDOR])
def test_a_hundred_steps_are_one_xla_loop(env_id):
    env = env_of(env_id)
    actions = actions_of(env.action_space, 100, 4)
    rng = random.split(tf.constant([3, 4]), 4)

    def play(rng, actions):
        def step(t, state, total, over):
            seeds = random.fold_in(rng, t)
            following = env.transition(state, actions[t], seeds)
            total += tf.where(over, 0.0, env.reward(state, actions[t], following, seeds))
            return t + 1, following, total, over | env.terminal(following, seeds)

        state = env.initial(rng)
        begun = (0, state, tf.zeros((4,)), tf.zeros((4,), tf.bool))
        _, state, total, over = tf.while_loop(lambda t, *_: t < 100, step, begun)
        return env.observation(state, rng), total, over

    compiled = tf.function(play, jit_compile=True, autograph=False)
    observation, total, over = (x.numpy() for x in compiled(rng, actions))
    assert np.isfinite(total).all()
    assert all(env.observation_space.contains(observation[row]) for row in np.flatnonzero(~over))
    if env_id in WHOLE_NUMBERS:
        tf.nest.map_structure(np.testing.assert_array_equal, (observation, total, over), play(rng, actions))
    if env_id == CARTPOLE:  # a random player lasts 10 to 100 steps
        assert over.all()
        assert total.min() >= 8


@mostly_slow("env_id", IDS, quick=[CARTPOLE, CORRIDOR])
def test_gymnasium_finds_nothing_wrong_with_it(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on spaces without bounds, as the originals' are
        check_env(gymnasium.make(env_id).unwrapped, skip_render_check=True)


@mostly_slow("env_id", IDS, quick=[CARTPOLE, CORRIDOR])
def test_one_environment_and_many_make_the_same_steps_from_the_same_states(env_id):
    arguments = {"sticky_action_prob": 0.0} if env_id == BREAKOUT else {}
    single, many = gymnasium.make(env_id, **arguments), gymnasium.make_vec(env_id, num_envs=4, **arguments)
    assert isinstance(many.unwrapped, FunctionalVectorEnv)
    single.reset(seed=0)
    observations, _ = many.reset(seed=0)
    assert many.observation_space.contains(observations)
    many.action_space.seed(0)
    for _ in range(5):
        states = many.unwrapped._carry[0]
        actions = many.action_space.sample()
        observations, rewards, terminated, truncated, infos = many.step(actions)
        assert many.observation_space.contains(observations)
        assert (rewards.dtype, terminated.dtype, truncated.dtype) == (np.float32, bool, bool)
        for row in range(4):
            single.unwrapped._state = tf.nest.map_structure(lambda x, row=row: x[row], states)
            observation, reward, over, _, _ = single.unwrapped.step(actions[row])
            seen = infos["final_obs"][row] if over else observations[row]
            np.testing.assert_allclose(observation, seen, rtol=1e-6, atol=1e-6)
            assert (reward, over) == (pytest.approx(float(rewards[row])), bool(terminated[row]))


def test_environments_side_by_side_by_gymnasium_share_one_program():
    many = gymnasium.make_vec(PENDULUM, num_envs=3, vectorization_mode="sync")
    assert len({env.unwrapped.functional for env in many.envs}) == 1
    observations, _ = many.reset(seed=0)
    assert len(np.unique(observations, axis=0)) == 3
    assert many.step(many.action_space.sample())[0].shape == (3, 3)
    other = gymnasium.make_vec(PENDULUM, num_envs=1, vectorization_mode="sync", g=9.0)
    assert other.envs[0].unwrapped.functional is not many.envs[0].unwrapped.functional


def trajectory(env, seed, steps=12):
    """Observations of an environment, or of many."""
    env.action_space.seed(1)
    seen = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observation, _, over, cut, _ = env.step(env.action_space.sample())
        if not isinstance(env, VectorEnv) and (over or cut):
            observation, _ = env.reset()
        seen.append(observation)
    return np.array(seen)


@pytest.mark.parametrize(
    "make", [gymnasium.make, lambda env_id: gymnasium.make_vec(env_id, num_envs=4)], ids=["one", "many"]
)
@mostly_slow("env_id", [CARTPOLE, BREAKOUT])
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(env_id, make):
    env, again = make(env_id), make(env_id)
    first = trajectory(env, 5)
    np.testing.assert_array_equal(trajectory(again, 5), first)
    np.testing.assert_array_equal(trajectory(env, 5), first)
    assert not np.array_equal(trajectory(env, 6), first)


def test_many_environments_start_apart_and_go_on_apart():
    env = gymnasium.make_vec(CARTPOLE, num_envs=4, max_episode_steps=1)
    starts = [env.reset(seed=0)[0], env.step(np.zeros(4, int))[0], env.step(np.zeros(4, int))[0]]
    assert len(np.unique(np.concatenate(starts), axis=0)) == 12


def test_a_time_limit_cuts_every_episode_and_the_last_observation_is_kept():
    limited, free = (gymnasium.make_vec(CAR, num_envs=4, max_episode_steps=limit) for limit in (5, 200))
    np.testing.assert_array_equal(limited.reset(seed=0)[0], free.reset(seed=0)[0])
    actions = np.array([0, 1, 2, 2])
    for step in range(1, 11):
        observations, _, terminated, truncated, infos = limited.step(actions)
        unlimited = free.step(actions)[0]
        assert not terminated.any()
        assert truncated.tolist() == [step % 5 == 0] * 4
        if step < 5:
            np.testing.assert_array_equal(observations, unlimited)
            assert infos == {}
        if step == 5:
            np.testing.assert_array_equal(np.stack(infos["final_obs"]), unlimited)
            np.testing.assert_array_equal(observations[:, 1], np.zeros(4))  # at rest: another episode
            assert (np.abs(observations[:, 0] + 0.5) <= 0.1).all()


def test_an_episode_that_ends_leaves_the_others_alone():
    env = gymnasium.make_vec(CORRIDOR, num_envs=2)
    env.reset(seed=0)
    env.step(np.array([1, 1]))
    env.step(np.array([0, 0]))
    observations, rewards, terminated, truncated, infos = env.step(np.array([1, 0]))
    assert (terminated.tolist(), truncated.tolist(), rewards.tolist()) == ([True, False], [False, False], [-1.0, -1.0])
    assert infos["_final_obs"].tolist() == [True, False]
    assert infos["final_obs"][1] is None
    np.testing.assert_array_equal(infos["final_obs"][0], [1.0])
    assert observations.shape == (2, 1)
    # The first is at the start again, three steps from the goal; the second went back to where one more step is none.
    assert [env.step(np.array(a))[2].tolist() for a in ([1, 0], [0, 1], [1, 1])] == [
        [False] * 2,
        [False, True],
        [True, False],
    ]


def test_what_it_tells_of_the_end_of_an_episode_is_what_gymnasiums_own_tell():
    ours = gymnasium.make_vec(CARTPOLE, num_envs=2)
    theirs = gymnasium.make_vec(
        "CartPole-v1", num_envs=2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}
    )
    assert ours.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    infos = []
    for env in (ours, theirs):
        env.reset(seed=0)
        *_, info = env.step(np.array([1, 1]))
        while not info:
            *_, info = env.step(np.array([1, 1]))
        infos.append(info)
    assert set(infos[0]) == set(infos[1])
    for key in ("final_obs", "_final_obs", "_final_info"):
        assert infos[0][key].dtype == infos[1][key].dtype
    ended = infos[0]["_final_obs"]
    for observation in infos[0]["final_obs"][ended]:
        assert abs(observation[2]) > np.radians(12)
        assert observation.dtype == np.float32


def test_gymnasiums_statistics_count_its_episodes():
    env = RecordEpisodeStatistics(gymnasium.make_vec(CORRIDOR, num_envs=3))
    env.reset(seed=0)
    for action in (1, 0):
        env.step(np.full(3, action))
    *_, infos = env.step(np.ones(3, int))
    assert infos["episode"]["r"].tolist() == [-3.0] * 3
    assert infos["episode"]["l"].tolist() == [3] * 3


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_a_collector_gets_the_true_successors(mode):
    collector = rlgrad.GymCollector(CARTPOLE, num_envs=3, num_steps=60, vectorization_mode=mode, seed=0)
    policy = rlgrad.make_policy(collector.observation_space, collector.action_space, seed=0)
    rollout = collector.collect(policy)
    env = env_of(CARTPOLE)
    following = env.transition(tf.constant(rollout.observations), tf.constant(rollout.actions), None)
    assert rollout.terminations.any()
    np.testing.assert_allclose(rollout.final_observations, following, atol=1e-5)
    np.testing.assert_array_equal(rollout.terminations, env.terminal(following, None))
    starts = rollout.observations[1:][rollout.terminations[:-1]]
    assert (np.abs(starts) <= 0.05).all()
    assert rollout.mask.all()  # no step is lost to a reset


@pytest.mark.parametrize(
    "make", [gymnasium.make, lambda env_id: gymnasium.make_vec(env_id, num_envs=1)], ids=["one", "many"]
)
def test_what_is_no_action_is_refused(make):
    env = make(CARTPOLE).unwrapped
    env.reset(seed=0)
    wrap = (lambda x: x) if env.action_space.shape == () else lambda x: np.array([x])
    for action in (wrap(2), wrap(-1), np.zeros(3, int)):
        with pytest.raises(ValueError, match=r"An action is a value of"):
            env.step(action)
    env = make(PENDULUM).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"An action is a value of Box"):
        env.step(np.zeros(3, np.float32))


@pytest.mark.parametrize(
    "make", [gymnasium.make, lambda env_id: gymnasium.make_vec(env_id, num_envs=1)], ids=["one", "many"]
)
def test_a_step_before_the_first_reset_is_refused(make):
    env = make(CARTPOLE).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(env.action_space.sample())


def test_many_are_not_reset_one_by_one():
    env = gymnasium.make_vec(CARTPOLE, num_envs=2)
    with pytest.raises(ValueError, match="reset_mask"):
        env.reset(options={"reset_mask": np.array([True, False])})


def test_an_argument_that_the_environment_does_not_take_is_named():
    with pytest.raises(TypeError, match="lenght"):
        gymnasium.make_vec(CARTPOLE, num_envs=2, lenght=1)
