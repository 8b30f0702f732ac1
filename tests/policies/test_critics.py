"""Critics of continuous actions: what they are told, which networks they are, and which settings do not go with them."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.continuous import ACTION, OBSERVATION

import rlgrad
from rlgrad.agents import PPO
from rlgrad.gradients import Each, per_sample_gradient, per_sample_norm
from rlgrad.policies import CriticNetwork
from rlgrad.policies.actions import ActorCritic

ACTORS = ("gaussian", "reparameterized", "deterministic")
X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def policy_of(actor="reparameterized", observation=OBSERVATION, action=ACTION, count=2, quantiles=0, **options):
    heads = ActorCritic(count, actor, quantiles)
    options = {"value": False, "hidden_sizes": (6,), "seed": 3} | options
    return rlgrad.make_policy(observation, action, actor_critic=heads, **options)


def stored_at_the_bounds(policy, actor):
    """Stored actions that the environment gets as its bounds and their middle, by kind of policy."""
    low, high = ACTION.low, ACTION.high
    rows = {"gaussian": (low, (low + high) / 2, high), "reparameterized": (-9.0, 0.0, 9.0), "deterministic": (-1, 0, 1)}
    return np.stack([np.broadcast_to(np.float32(row), (2,)) for row in rows[actor]])


@pytest.mark.parametrize("actor", ACTORS)
def test_a_critic_is_told_the_action_of_the_environment_in_half_widths(actor):
    policy = policy_of(actor)
    stored = stored_at_the_bounds(policy, actor)
    given = policy.distribution.to_environment(stored)
    np.testing.assert_allclose(given, np.stack([ACTION.low, (ACTION.low + ACTION.high) / 2, ACTION.high]), atol=1e-5)
    told = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]], np.float32)
    np.testing.assert_allclose(policy.distribution.told(tf.constant(stored)), told, atol=1e-6)
    expected = [critic([X[:3], told]).numpy()[:, 0] for critic in policy.critics]
    np.testing.assert_allclose(policy.critic_values(X[:3], stored), np.stack(expected, axis=1), rtol=1e-5)


def test_without_bounds_a_critic_is_told_the_action_as_it_is():
    space = spaces.Box(np.array([-np.inf, -1.0], np.float32), np.array([np.inf, 3.0], np.float32))
    policy = policy_of("gaussian", action=space)
    told = policy.distribution.told(tf.constant([[7.0, 5.0], [-7.0, 1.0]])).numpy()
    np.testing.assert_allclose(told, [[7.0, 1.0], [-7.0, 0.0]])


@pytest.mark.parametrize("kind", ["picture", "dict"])
def test_other_observations_are_encoded_and_the_action_comes_beside_them(kind):
    kinds = {
        "picture": (spaces.Box(0, 255, (36, 36, 3), np.uint8), np.full((4, 36, 36, 3), 9, np.uint8)),
        "dict": (spaces.Dict(a=OBSERVATION, b=spaces.Discrete(4)), {"a": X[:4], "b": np.arange(4)}),
    }
    space, x = kinds[kind]
    policy = policy_of(observation=space)
    actions = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    q = policy.critic_values(x, actions).numpy()
    assert q.shape == (4, 2)
    moved = policy.critic_values(x, actions + 0.5).numpy()
    assert (np.abs(moved - q) > 1e-6).all()


def test_quantiles_are_a_last_axis_and_rollouts_have_two_leading_ones():
    policy = policy_of(count=3, quantiles=4)
    actions = np.zeros((5, 2), np.float32)
    assert policy.critic_values(X, actions).shape == (5, 3, 4)
    both = policy.critic_values(np.stack([X, X]), np.stack([actions, actions]))
    assert both.shape == (2, 5, 3, 4)
    np.testing.assert_array_equal(both[0], policy.critic_values(X, actions))


def test_critics_begin_apart_and_a_copy_of_the_policy_has_the_same_ones():
    policy = policy_of()
    first, second = (critic.get_weights() for critic in policy.critics)
    assert all(not np.array_equal(a, b) for a, b in zip(first, second, strict=True) if a.ndim == 2)
    twin = copy.deepcopy(policy)
    actions = np.zeros((5, 2), np.float32)
    np.testing.assert_array_equal(twin.critic_values(X, actions), policy.critic_values(X, actions))
    policy.critics[0].set_weights([w + 1.0 for w in first])
    assert not np.array_equal(twin.critic_values(X, actions), policy.critic_values(X, actions))


def test_per_sample_functions_see_through_the_policy_and_its_critics():
    policy = policy_of()
    inputs = {"observations": X, "actions": np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)}
    each = per_sample_gradient(policy.with_critics, inputs, output=Each("q"))
    assert all("critic" in key for key in each)
    squares = sum(np.square(g).reshape(5, -1).sum(1) for g in map(np.asarray, each.values()))
    norm = per_sample_norm(policy.with_critics, inputs, output=Each("q"))
    np.testing.assert_allclose(norm, np.sqrt(squares), rtol=1e-4)


def test_in_training_mode_the_critics_run_so_and_the_policy_runs_as_it_acts():
    def drops():
        layers = keras.layers
        return keras.Sequential([keras.Input((3,)), layers.Dense(8), layers.Dropout(0.5), layers.Dense(4)])

    heads = ActorCritic(2, "reparameterized", critic=CriticNetwork(dropout=0.5), training=True)
    policy = rlgrad.make_policy(OBSERVATION, ACTION, actor_critic=heads, value=False, hidden_sizes=(6,), model=drops())
    inputs = {"observations": X, "actions": np.zeros((5, 2), np.float32)}
    acting, training = (policy.with_critics(inputs, training=mode) for mode in (False, True))
    for name, numbers in policy(X)["policy"].items():
        np.testing.assert_array_equal(training["policy"][name], numbers)
    np.testing.assert_array_equal(acting["q"], policy.critic_values(X, inputs["actions"], False))
    assert not np.allclose(training["q"], acting["q"]), "units are dropped"


def test_a_critic_of_the_users_own_is_built_once_for_each():
    built = []

    def build():
        x, a = keras.Input((3,)), keras.Input((2,))
        built.append(1)
        y = keras.layers.Dense(7, "relu")(keras.layers.Concatenate()([x, a]))
        return keras.Model([x, a], keras.layers.Dense(1)(y))

    policy = policy_of(count=3, critic_model=build)
    assert len(built) == len(policy.critics) == 3
    assert len({critic.get_weights()[0].tobytes() for critic in policy.critics}) == 3


def wrong_inputs():
    x = keras.Input((9,))
    return keras.Model(x, keras.layers.Dense(1)(x))


def wrong_output():
    x, a = keras.Input((3,)), keras.Input((2,))
    return keras.Model([x, a], keras.layers.Dense(4)(keras.layers.Concatenate()([x, a])))


def ends_in_tanh():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "tanh")])


NO_BOUNDS = spaces.Box(-np.inf, np.inf, (2,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic_model": wrong_output}, r"gives shape \('N', 4\), not \(N, 1\): end it in keras.layers.Dense\(1\)"),
        ({"critic_model": wrong_inputs}, r"does not take \[observation, action\], the action a vector of 2"),
        ({"critic_model": wrong_output()}, "a function that builds a model, since it is called once for each critic"),
        ({"count": 0, "critic_model": wrong_output}, "critic_model is for agents that credit q of continuous actions"),
        ({"memory": "gru"}, "memory is not there for agents with critics of actions"),
        ({"squash_actions": True}, "squash_actions has no meaning here"),
        ({"initial_log_std": -1.0}, "initial_log_std has no meaning here"),
        ({"actor": "deterministic", "model": ends_in_tanh}, "model ends in a tanh"),
        ({"action": NO_BOUNDS}, "to be finite.*TransformAction"),
        ({"actor": "deterministic", "action": NO_BOUNDS}, "to be finite.*TransformAction"),
        ({"action": spaces.Discrete(3)}, "Critics of actions are of a Box of numbers, and this is Discrete"),
        ({"model": ends_in_tanh}, "actions of 2 numbers: first the means, then the logs"),
    ],
)
def test_what_does_not_go_with_critics_is_refused_with_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        policy_of(**options)


def test_a_policy_with_a_variable_deviation_may_have_critics_and_squash():
    policy = policy_of("gaussian", squash_actions=True)
    assert policy.log_std is not None
    assert policy.distribution.squash
    assert policy_of("reparameterized").log_std is None


@pytest.mark.parametrize("actor", ACTORS)
def test_numpy_acts_as_the_keras_model_does(actor):
    policy = policy_of(actor)
    assert policy.acts_in == "numpy"
    numpy, keras_own = policy.actor()(X), policy(X)["policy"]
    for a, b in zip(tf.nest.flatten(numpy), tf.nest.flatten(keras_own), strict=True):
        np.testing.assert_allclose(np.broadcast_to(a, b.shape), b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("actor", ["reparameterized", "deterministic"])
@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_actions_may_have_any_number_of_axes(actor, shape):
    policy = policy_of(actor, action=spaces.Box(-1.0, 1.0, shape))
    assert policy.act(X).shape == (5, *shape)
    assert policy.critic_values(X, np.zeros((5, *shape), np.float32)).shape == (5, 2)
    parameters = policy(X)["policy"]
    assert policy.distribution.batch_rank(parameters) == 1


@pytest.mark.parametrize("actor", ["reparameterized", "deterministic"])
def test_an_exported_policy_acts_as_the_policy_does(actor, tmp_path):
    policy = policy_of(actor)
    model = keras.saving.load_model(rlgrad.export(policy, tmp_path / "policy.keras"))
    np.testing.assert_allclose(model({"observation": X})["action"], policy.act(X, greedy=True), rtol=1e-4, atol=1e-5)


SPACES = {"box": ACTION, "matrix": spaces.Box(-1.0, 1.0, (2, 3))}


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("action", SPACES.values(), ids=SPACES)
def test_a_network_may_say_the_deviation_of_any_gaussian(action, squash):
    options = {"hidden_sizes": (6,), "squash_actions": squash, "seed": 3, "initial_log_std": -0.7}
    policy = rlgrad.make_policy(OBSERVATION, action, state_dependent_std=True, **options)
    assert policy.log_std is None
    size = int(np.prod(action.shape))
    parameters = policy(X)["policy"]
    raw = policy.network(X).numpy()
    assert raw.shape == (5, 2 * size)
    np.testing.assert_allclose(parameters["mean"], raw[:, :size].reshape(5, *action.shape), rtol=1e-6)
    np.testing.assert_allclose(
        parameters["log_std"], raw[:, size:].reshape(5, *action.shape) - 0.7, rtol=1e-5, atol=1e-6
    )
    assert np.abs(np.asarray(parameters["log_std"]) + 0.7).max() < 0.2  # it begins near what was set
    actions = policy.distribution.draw(parameters, rlgrad.random.split(tf.constant([1, 2]), 5))
    assert policy.distribution.log_prob(parameters, actions).shape == (5,)
    assert policy.actor()(X)["log_std"].shape == parameters["log_std"].shape


def test_a_deviation_of_the_network_is_for_a_box_and_for_agents_that_credit_log_prob():
    with pytest.raises(ValueError, match="state_dependent_std is of continuous actions that are one Box"):
        rlgrad.make_policy(OBSERVATION, spaces.Discrete(3), state_dependent_std=True)
    with pytest.raises(ValueError, match="state_dependent_std has no meaning here"):
        policy_of("reparameterized", state_dependent_std=True)


def test_ppo_learns_with_a_deviation_of_the_network(tmp_path):
    run = rlgrad.train(
        PPO(num_envs=2, num_steps=16),
        "Pendulum-v1",
        total_timesteps=64,
        state_dependent_std=True,
        hidden_sizes=(4,),
        run_dir=tmp_path / "run",
        verbose=False,
        evaluation_episodes=0,
    )
    again = rlgrad.load(run.path, verbose=False)
    for mine, theirs in zip(again.policy.variables, run.policy.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.policy.network.output_shape == (None, 2)
