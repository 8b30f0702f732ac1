"""What others met with in whole runs: steps that were asked for, seeds, normalizers, schedules, what is saved and loaded."""

import gymnasium
import keras
import numpy as np
import pytest
from helpers.counting import QUICK, Count

import rlgrad
from rlgrad import estimators
from rlgrad.agents import A2C, PPO
from rlgrad.callbacks import Callback
from rlgrad.updates import Ascent

LINEAR = Ascent(learning_rate=0.1, learning_rate_schedule="linear")


def same(mine, theirs):
    return all(np.array_equal(a, b) for a, b in zip(mine.get_weights(), theirs.get_weights(), strict=True))


def test_training_takes_no_more_steps_than_were_asked_for():
    """100 steps asked for, 2048 taken: https://github.com/DLR-RM/stable-baselines3/issues/366"""
    env = Count(ends=9)
    run = rlgrad.train("a2c", env, total_timesteps=38, **QUICK | {"num_envs": 1})
    assert run.timesteps == len(env.taken) == 30  # what is left does not fill a rollout


def test_fewer_steps_than_a_rollout_has_are_refused():
    """`total_timesteps=4` that became 500: https://github.com/DLR-RM/stable-baselines3/issues/1744"""
    with pytest.raises(ValueError, match="total_timesteps=4 leaves no room for a rollout of 20 steps"):
        rlgrad.train("a2c", Count, total_timesteps=4, **QUICK)


def test_a_run_that_is_continued_counts_on():
    """Counters that begin again with each call: https://github.com/DLR-RM/stable-baselines3/issues/785"""
    run = rlgrad.train("a2c", lambda: Count(ends=9), total_timesteps=40, **QUICK)
    run.train(80)
    assert run.history["time/timesteps"] == [20, 40, 60, 80]
    assert run.history["time/updates"] == [1, 2, 3, 4]


def test_a_schedule_goes_over_the_whole_run_however_often_it_is_stopped():
    """A schedule that is gone through in each of many short trainings: https://github.com/HumanCompatibleAI/imitation/issues/262"""
    settings = QUICK | {"run_dir": "whole", "vectorization_mode": "sync"}  # in which every step counts
    whole = rlgrad.train(A2C(update=LINEAR), "CartPole-v1", total_timesteps=80, **settings)

    class Stop(Callback):
        def on_update(self, run, metrics):
            run.stop = run.timesteps == 40

    rlgrad.train(
        A2C(update=LINEAR), "CartPole-v1", total_timesteps=80, callbacks=Stop(), **settings | {"run_dir": "cut"}
    )
    again = rlgrad.load("cut", verbose=False).train(80)
    np.testing.assert_allclose(whole.history["train/learning_rate"], [0.1, 0.075, 0.05, 0.025], rtol=1e-5)
    np.testing.assert_allclose(again.history["train/learning_rate"], whole.history["train/learning_rate"], rtol=1e-5)
    assert same(whole.policy, again.policy)


def test_a_schedule_of_keras_gives_the_rate_that_is_logged():
    """Rates that fall in steps or exponentially: https://github.com/DLR-RM/stable-baselines3/issues/246"""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=2, decay_rate=0.5)
    run = rlgrad.train("a2c", "CartPole-v1", optimizer=keras.optimizers.SGD(schedule), total_timesteps=80, **QUICK)
    expected = 0.1 * 0.5 ** (np.arange(4) / 2)
    np.testing.assert_allclose(run.history["train/learning_rate"], expected, rtol=1e-5)


def test_the_statistics_of_observations_are_saved_with_the_run():
    """Statistics that are not saved, and a policy that acts on others: https://github.com/isaac-sim/IsaacLab/issues/2635"""
    agent = A2C(normalize_observations=True)
    run = rlgrad.train(agent, "CartPole-v1", total_timesteps=200, run_dir="run", **QUICK)
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    before = run.policy(observations)["policy"].numpy()
    again = rlgrad.load("run", verbose=False).policy(observations)["policy"].numpy()
    np.testing.assert_array_equal(before, again)


def test_an_evaluation_during_training_moves_no_statistics():
    """An environment for evaluation with a normalizer of its own: https://github.com/DLR-RM/stable-baselines3/issues/870"""
    agent = A2C(normalize_observations=True)
    run = rlgrad.train(agent, "CartPole-v1", total_timesteps=200, run_dir="a", **QUICK)
    evaluated = rlgrad.train(agent, "CartPole-v1", total_timesteps=200, run_dir="b", evaluation_interval=100, **QUICK)
    assert not np.isnan(evaluated.history["eval/return_greedy"]).all()
    assert same(run.policy, evaluated.policy)


def test_a_saved_run_is_evaluated_as_it_was():
    """Evaluations of saved models that differ from those in training: https://github.com/DLR-RM/stable-baselines3/issues/1556"""
    agent = A2C(normalize_observations=True, scale_rewards=True)
    run = rlgrad.train(agent, "CartPole-v1", total_timesteps=200, run_dir="run", **QUICK)
    mine, again = run.evaluate(5), rlgrad.load("run", verbose=False).evaluate(5)
    np.testing.assert_array_equal(mine.returns, again.returns)


def test_a_loaded_policy_is_the_one_that_was_saved():
    """A model that differs once it was saved and loaded: https://github.com/AI4Finance-Foundation/FinRL/issues/230"""
    run = rlgrad.train("ppo", "Pendulum-v1", total_timesteps=64, run_dir="run", **QUICK | {"num_steps": 32})
    again = rlgrad.load("run", verbose=False)
    assert same(run.policy, again.policy)
    observations = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    mine, theirs = (policy.act(observations, greedy=True) for policy in (run.policy, again.policy))
    np.testing.assert_array_equal(mine, theirs)


def test_greedy_actions_are_the_same_each_time_and_sampled_ones_are_not():
    """Whether the flag for deterministic actions does anything: https://github.com/DLR-RM/stable-baselines3/issues/557"""
    env = gymnasium.make("CartPole-v1")
    policy = rlgrad.make_policy(env.observation_space, env.action_space, seed=0)
    observation = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    assert len({int(policy.act(observation, greedy=True)) for _ in range(30)}) == 1
    assert len({int(policy.act(observation)) for _ in range(30)}) == 2


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    """Graphs that differ from one training to the next: https://github.com/DLR-RM/stable-baselines3/issues/292"""
    one, other, third = (rlgrad.train("a2c", "CartPole-v1", total_timesteps=60, seed=s, **QUICK) for s in (3, 3, 4))
    assert same(one.policy, other.policy)
    assert one.history["train/entropy"] == other.history["train/entropy"]
    assert not same(one.policy, third.policy)


def test_episodes_of_one_evaluation_begin_differently():
    """Different results, or the same ones, each time a loaded model is run: https://github.com/AminHP/gym-mtsim/issues/3"""
    run = rlgrad.train("a2c", "Pendulum-v1", total_timesteps=20, max_episode_steps=20, **QUICK)
    first, again = run.evaluate(6), run.evaluate(6)
    assert len(set(first.returns.tolist())) == 6
    np.testing.assert_array_equal(first.returns, again.returns)


def test_one_row_in_a_minibatch_does_not_divide_by_zero():
    """Advantages of one row that are standardized: https://github.com/DLR-RM/stable-baselines3/issues/325"""
    assert float(estimators.standardize(np.array([3.0], np.float32), np.array([1.0], np.float32))[0]) == 0.0
    agent = PPO(num_steps=4, update=Ascent(num_epochs=2, num_minibatches=4))
    run = rlgrad.train(
        agent,
        "CartPole-v1",
        total_timesteps=12,
        **{k: v for k, v in QUICK.items() if k != "num_steps"} | {"num_envs": 1},
    )
    assert all(np.isfinite(weight).all() for weight in run.policy.get_weights())


def test_a_memory_begins_anew_with_each_episode():
    """Whether an LSTM's state is reset at the end of an episode: https://github.com/Stable-Baselines-Team/stable-baselines3-contrib/issues/169"""
    collector = rlgrad.GymCollector(lambda: Count(ends=4), num_envs=1, num_steps=8, seed=0)
    policy = rlgrad.make_policy(
        collector.observation_space, collector.action_space, memory="lstm", memory_size=3, seed=0
    )
    rollout = collector.collect(policy)
    outputs = policy(policy.inputs(rollout))["policy"].numpy().reshape(8, -1)
    np.testing.assert_allclose(outputs[4:], outputs[:4], rtol=1e-5, atol=1e-6)  # the second episode is as the first


def test_a_callback_of_ones_own_stops_training():
    """Stopping early by a criterion of one's own: https://github.com/hill-a/stable-baselines/issues/97"""

    class Enough(Callback):
        def on_update(self, run, metrics):
            run.stop = metrics["train/return"] >= 5

    run = rlgrad.train("a2c", lambda: Count(ends=5), total_timesteps=1000, callbacks=Enough(), **QUICK)
    assert run.timesteps == 20
    assert run.ended
