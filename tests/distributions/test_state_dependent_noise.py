"""Noise that is a function of the state: of one step a Gaussian, over several the same function."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

import rlgrad
from rlgrad.agents import DQN, PPO, SAC, TD3
from rlgrad.distributions import StateDependentNoise
from rlgrad.replay import Replay

BOX = spaces.Box(np.float32([-1, -2]), np.float32([1, 2]))
OBSERVATIONS = spaces.Box(-1, 1, (3,))
QUICK = {"hidden_sizes": (4,), "evaluation_episodes": 0, "verbose": False, "vectorization_mode": "sync"}
SMALL = Replay(capacity=64, batch_size=8, warmup=8)


def policy_of(**options):
    made = rlgrad.make_policy(
        OBSERVATIONS, BOX, value=False, hidden_sizes=(4,), state_dependent_noise=3, seed=0, **options
    )
    rng = np.random.default_rng(0)
    for variable in made.trainable_variables:
        variable.assign(rng.normal(scale=0.6, size=variable.shape))
    return made


def observations(rows):
    return np.random.default_rng(1).uniform(-1, 1, (rows, 3)).astype(np.float32)


def log_density(z, std):
    """Of a normal number of mean 0."""
    return -0.5 * (z / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


def parameters_of(policy, x):
    return {name: value.numpy() for name, value in policy(x)["policy"].items()}


def test_of_one_step_it_is_the_gaussian_that_its_variance_says():
    policy = policy_of()
    x = np.repeat(observations(2), 20_000, axis=0)
    theta = parameters_of(policy, x)
    actions, log_probs = policy.distribution.sample(theta, np.random.default_rng(3))
    std = np.exp(theta["log_std"])
    features = np.tanh(x[::20_000] @ policy.network.get_weights()[0] + policy.network.get_weights()[1])
    np.testing.assert_allclose(std[::20_000] ** 2, features**2 @ np.exp(2 * policy.log_std.numpy()), rtol=1e-4)
    densities = log_density(actions - theta["mean"], std).sum(axis=-1)
    np.testing.assert_allclose(log_probs, densities, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(policy.distribution.log_prob(theta, actions), log_probs, rtol=1e-3, atol=1e-3)
    for half in (slice(0, 20_000), slice(20_000, None)):
        for k in range(2):
            z = (actions[half, k] - theta["mean"][half, k]) / std[half, k]
            assert abs(z.mean()) < 0.03
            for limit, share in ((0.5, 0.3829), (1.0, 0.6827), (2.0, 0.9545)):  # of a normal number within the limit
                assert abs(np.mean(np.abs(z) < limit) - share) < 0.015


def test_the_function_stays_for_its_steps_and_differs_between_slots():
    policy, rng = policy_of(), np.random.default_rng(0)
    x = np.repeat(observations(1), 2, axis=0)  # two slots in one state
    theta = parameters_of(policy, x)
    noise = policy.distribution.noise(theta, rng, 7)
    picked = np.stack([policy.distribution.pick(theta, noise[step]) for step in range(7)])
    np.testing.assert_array_equal(picked[[0, 1, 3, 4]], picked[[1, 2, 4, 5]])
    assert (picked[2] != picked[3]).all()
    assert (picked[5] != picked[6]).all()
    assert (picked[:, 0] != picked[:, 1]).all()
    other = parameters_of(policy, x + 0.1)
    moved = policy.distribution.pick(other, noise[0]) - other["mean"]
    np.testing.assert_allclose(moved, np.sum(other["basis"] * noise[0], axis=-2), rtol=1e-6)


@pytest.mark.parametrize("squash", [False, True])
def test_no_gradient_of_the_noise_flows_through_the_features(squash):
    policy, x = policy_of(squash_actions=squash), observations(5)
    with tf.GradientTape() as tape:
        spread = tf.reduce_sum(policy(x)["policy"]["log_std"])
    kernel, *_ = policy.network.trainable_variables
    of_kernel, of_scale = tape.gradient(spread, [kernel.value, policy.log_std.value])
    assert of_kernel is None or not np.any(of_kernel)
    assert np.all(of_scale.numpy() > 0.0)


def test_features_of_size_one_begin_with_the_deviation_that_is_asked_for():
    policy = rlgrad.make_policy(
        OBSERVATIONS, BOX, value=False, hidden_sizes=(50,), state_dependent_noise=2, initial_log_std=-1.5
    )
    ones = policy.distribution.assemble(tf.ones((1, 52)), policy.log_std.value[None])
    np.testing.assert_allclose(ones["log_std"], -1.5, atol=1e-4)


RUNS = [
    PPO(num_envs=2, num_steps=8, update=rlgrad.Ascent(num_epochs=2, num_minibatches=2)),
    SAC(num_steps=4, replay=SMALL),
]


@pytest.mark.parametrize("agent", RUNS, ids=["ppo", "sac"])
def test_a_run_acts_with_it_and_one_that_was_stopped_ends_with_the_same_weights(agent, tmp_path):
    class Stop(rlgrad.Callback):
        def on_update(self, run, metrics):
            run.stop |= run.timesteps >= 32

    options = {"total_timesteps": 64, "state_dependent_noise": 4, "initial_log_std": -0.5, **QUICK}
    whole = rlgrad.train(agent, "Pendulum-v1", run_dir=tmp_path / "a", **options)
    assert isinstance(whole.policy.distribution, StateDependentNoise)
    before = whole.policy.log_std.numpy()
    assert not np.allclose(before, -0.5 - 0.5 * np.log(4.0))  # it has learned
    stopped = rlgrad.train(agent, "Pendulum-v1", run_dir=tmp_path / "b", callbacks=Stop(), **options)
    assert stopped.timesteps < 64
    resumed = rlgrad.load(tmp_path / "b").train(64)
    for a, b in zip(whole.policy.get_weights(), resumed.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_agent_with_a_gaussian_policy_can_have_it_and_steps_of_a_rollout_share_it():
    collector = rlgrad.GymCollector("Pendulum-v1", num_envs=1, num_steps=6, seed=0, vectorization_mode="sync")
    policy = rlgrad.make_policy(
        collector.observation_space, collector.action_space, value=True, hidden_sizes=(4,), state_dependent_noise=3
    )
    policy.log_std.assign(np.zeros_like(policy.log_std))
    rollout = collector.collect(policy)
    collector.close()
    theta = parameters_of(policy, rollout.observations[:, 0])
    noise = (rollout.actions[:, 0] - theta["mean"])[:, 0]
    basis = theta["basis"][:, :, 0]  # 3 steps: one function of 4 features, so 3 equations are always soluble
    for steps in (slice(0, 3), slice(3, 6)):
        found, *_ = np.linalg.lstsq(basis[steps], noise[steps], rcond=None)
        np.testing.assert_allclose(basis[steps] @ found, noise[steps], rtol=1e-3, atol=1e-4)
    densities = log_density(noise, np.exp(theta["log_std"][:, 0]))
    np.testing.assert_allclose(rollout.log_probs[:, 0], densities, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("agent", "env", "options", "message"),
    [
        (SAC(replay=SMALL), "Pendulum-v1", {}, "stays for several steps of a rollout, and num_steps is 1"),
        (TD3(replay=SMALL), "Pendulum-v1", {}, "state_dependent_noise has no meaning here"),
        (DQN(replay=SMALL), "CartPole-v1", {}, "state_dependent_noise has no meaning here"),
        (PPO(), "CartPole-v1", {}, "state_dependent_noise is of continuous actions that are one Box"),
        (PPO(), "Pendulum-v1", {"state_dependent_std": True}, "leave state_dependent_std out"),
        (
            PPO(),
            "rlgrad/Pendulum-v1",
            {"vectorization_mode": "auto"},
            "environments written in TensorFlow draw noise for each",
        ),
    ],
)
def test_what_cannot_have_it_is_told_why(agent, env, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        rlgrad.train(
            agent, env, total_timesteps=4096, state_dependent_noise=4, run_dir=tmp_path / "a", **{**QUICK, **options}
        )
