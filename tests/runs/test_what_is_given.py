"""Environments, models and optimizers that are given to a run, each in every form."""

import gymnasium
import keras
import numpy as np
import pytest
from helpers.quick import QUICK
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.agents import A2C, Reinforce

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def cart(**kwargs):
    return gymnasium.make("CartPole-v1", **kwargs)


@mostly_slow(
    "env, options",
    [
        (cart, {"env_kwargs": {"sutton_barto_reward": True}}),
        ("CartPole-v1", {"vectorization_mode": "vector_entry_point"}),
        (lambda: gymnasium.make("CartPole-v1", max_episode_steps=30), {}),
    ],
    quick=2,
)
def test_an_environment_may_be_an_id_or_a_function(env, options):
    run = rlgrad.train("reinforce", env, **QUICK | options)
    assert run.timesteps == 1024 or options.get("vectorization_mode")
    assert run.evaluate(episodes=2).episodes == 2


def test_an_environment_that_is_given_is_the_only_one_and_is_left_to_training():
    env = cart()
    run = rlgrad.train("reinforce", env, total_timesteps=256, num_steps=32, evaluation_episodes=2, verbose=False)
    assert run.collector.num_envs == 1
    steps = env.unwrapped.state
    run.evaluate(episodes=2)
    np.testing.assert_array_equal(env.unwrapped.state, steps)


def test_a_vector_environment_that_is_given_is_used_as_it_is():
    vector = gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
    run = rlgrad.train("reinforce", vector, total_timesteps=960, num_steps=32, evaluation_episodes=4, verbose=False)
    assert run.collector.num_envs == 3
    assert run.evaluate(episodes=4).episodes == 4


def test_the_class_of_an_environment_makes_as_many_as_the_agent_wants(tmp_path):
    from gymnasium.envs.classic_control import CartPoleEnv

    agent = A2C(num_envs=3, num_steps=8)
    run = rlgrad.train(
        agent,
        CartPoleEnv,
        total_timesteps=48,
        max_episode_steps=20,
        run_dir=tmp_path / "run",
        evaluation_episodes=0,
        verbose=False,
    )
    assert run.collector.num_envs == 3
    assert run.evaluate(4).episodes == 4


def test_continuous_actions_and_whole_episodes_train_too():
    run = rlgrad.train(
        Reinforce(num_envs=2, normalize_observations=True),
        "Pendulum-v1",
        total_timesteps=800,
        evaluation_episodes=2,
        verbose=False,
    )
    assert run.updates == 2
    assert run.policy.act(np.zeros(3)).shape == (1,)
    assert -2.0 <= run.policy.act(np.zeros(3))[0] <= 2.0


def test_one_model_with_two_heads_trains_on_one_trunk():
    x = keras.Input((4,))
    h = keras.layers.Dense(8, "tanh", name="trunk")(x)
    model = keras.Model(x, {"policy": keras.layers.Dense(2)(h), "value": keras.layers.Dense(1)(h)})
    run = rlgrad.train("reinforce", "CartPole-v1", model=model, **QUICK)
    assert [v.path for v in run.learner.variables][:2] == ["trunk/kernel", "trunk/bias"]
    assert len(run.learner.variables) == 6


def test_a_user_model_is_rebuilt_when_the_run_is_loaded(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "elu"), keras.layers.Dense(2)])
    run = rlgrad.train("reinforce", "CartPole-v1", model=model, run_dir=tmp_path / "a", **QUICK)
    loaded = rlgrad.load(tmp_path / "a", verbose=False)
    for a, b in zip(run.policy.get_weights(), loaded.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_default_network_gives_way_to_a_function_that_builds_one_reproducibly():
    def build():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(2)])

    first, second = (rlgrad.train("reinforce", "CartPole-v1", model=build, **QUICK) for _ in range(2))
    for a, b in zip(first.policy.get_weights(), second.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_optimizer_may_be_given_by_name_or_as_an_object_and_is_kept_in_the_config():
    run = rlgrad.train("reinforce", "CartPole-v1", optimizer=keras.optimizers.RMSprop(1e-4, rho=0.95), **QUICK)
    loaded = rlgrad.load(run.path, verbose=False)
    assert loaded.config.agent.update.optimizer.rho == 0.95
    assert float(loaded.learner.state.optimizer.learning_rate) == pytest.approx(1e-4)
    named = rlgrad.train("reinforce", "CartPole-v1", optimizer="sgd", **QUICK)
    assert isinstance(named.learner.state.optimizer, keras.optimizers.SGD)
