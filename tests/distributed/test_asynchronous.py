"""Asynchronous workers: the lag of each rollout is counted and bounded, deaths cost rollouts alone, and agents learn."""

import os
import signal
import time
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from helpers.scripted import RandomPolicy
from helpers.time_to_start import TIME

import rlgrad
from rlgrad.agents import A2C, IMPALA, PPO

pytest.importorskip("ray")

from rlgrad import distributed
from rlgrad.distributed.fleet import WorkerFault

AsynchronousCollector = partial(distributed.AsynchronousCollector, **TIME)
SMALL = {"hidden_sizes": (16,), "evaluation_episodes": 0, "seed": 3, "logs": ("csv",), "verbose": False, **TIME}


class Slow(gymnasium.Env):
    """Every other worker's environment takes its time. Observes its seed."""

    observation_space = spaces.Box(0, 2**31, (1,), np.int64)
    action_space = spaces.Discrete(2)

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = self.seed if seed is None else seed
        return np.array([self.seed]), {}

    def step(self, action):
        time.sleep(self.seconds * (self.seed % 2))
        return np.array([self.seed]), 1.0, False, bool(self.np_random.random() < 0.1), {}


class Deadly(Slow):
    def step(self, action):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_rollout_is_of_one_workers_slots_and_lags_as_many_updates_as_came_before_it(cluster):
    collector = AsynchronousCollector(Slow, num_envs=4, num_steps=6, workers=2, seed=1)
    assert (collector.num_envs, collector.shape, collector.max_lag) == (2, (6, 2), 8)
    lags = []
    for _ in range(8):
        rollout = collector.collect(RandomPolicy())
        assert rollout.rewards.shape == (6, 2)
        lags.append(collector.measures()["time/policy_lag"])
    assert lags[0] == 0
    assert max(lags) > 0
    assert all(lag <= 8 for lag in lags)
    rollout.rewards[:] = 0  # an array of its own
    collector.close()


@pytest.mark.slow
def test_rollouts_beyond_the_largest_lag_are_dropped_and_counted(cluster):
    collector = AsynchronousCollector(Slow, num_envs=2, num_steps=4, workers=2, max_lag=0, seed=1)
    for _ in range(6):
        collector.collect(RandomPolicy())
        assert collector.measures()["time/policy_lag"] == 0
    assert collector.measures()["time/dropped_rollouts"] > 0
    collector.close()


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_rollout_and_the_run_goes_on(cluster, caplog):
    collector = AsynchronousCollector(Slow, num_envs=2, num_steps=4, workers=2, seed=1)
    collector.collect(RandomPolicy())
    os.kill(collector.workers[0]["pid"], signal.SIGKILL)
    end, seen = time.monotonic() + 60, set()
    while collector.measures()["time/lost_rollouts"] == 0 and time.monotonic() < end:
        seen.add(collector.collect(RandomPolicy()).observations[0, 0, 0])
    assert collector.measures()["time/lost_rollouts"] == 1
    assert "was lost, with the rollout that it played: another one takes its place" in caplog.text
    for _ in range(4):
        collector.collect(RandomPolicy())
    collector.close()


@pytest.mark.slow
def test_environments_that_end_their_processes_again_and_again_are_given_up(cluster):
    collector = AsynchronousCollector(Deadly, num_envs=2, num_steps=4, workers=2, seed=1)
    with pytest.raises(WorkerFault, match="was lost 5 times in one rollout"):
        collector.collect(RandomPolicy())
    collector.close()


def test_a_run_logs_its_lag_and_is_resumed_with_episodes_that_were_not_begun_before(cluster, tmp_path):
    run = rlgrad.train(
        IMPALA(num_steps=5, num_envs=4),
        "CartPole-v1",
        total_timesteps=600,
        workers=2,
        asynchronous=True,
        max_lag=3,
        run_dir=tmp_path / "run",
        **SMALL,
    )
    lags = run.history["time/policy_lag"]
    assert max(lags) > 0
    assert max(lags) <= 3
    assert run.timesteps == 600
    begun = [state["episodes"] for state in run.collector.state()["asynchronous"]]
    run.close()
    again = rlgrad.load(tmp_path / "run", verbose=False)
    again.train(800)
    assert again.timesteps == 800
    after = [state["episodes"] for state in again.collector.state()["asynchronous"]]
    assert all(
        later > before for old, new in zip(begun, after, strict=True) for before, later in zip(old, new, strict=True)
    )
    again.close()


def test_what_cannot_be_asynchronous_is_refused(tmp_path):
    settings = {"total_timesteps": 100, "verbose": False, "run_dir": tmp_path / "run"}
    with pytest.raises(ValueError, match="which a2c takes for its own"):
        rlgrad.train(A2C(), "CartPole-v1", workers=2, asynchronous=True, **settings)
    with pytest.raises(ValueError, match="there are none: set workers"):
        rlgrad.train(IMPALA(), "CartPole-v1", asynchronous=True, **settings)
    with pytest.raises(ValueError, match="max_lag is of asynchronous workers"):
        rlgrad.train(IMPALA(), "CartPole-v1", workers=2, max_lag=3, **settings)
    with pytest.raises(ValueError, match="scale_rewards"):
        rlgrad.train(PPO(scale_rewards=True), "CartPole-v1", workers=2, asynchronous=True, **settings)
    with pytest.raises(ValueError, match="num_envs=5 is no multiple of workers=2"):
        AsynchronousCollector("CartPole-v1", num_envs=5, num_steps=4, workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("agent", [IMPALA(num_envs=16, num_steps=16), PPO(num_envs=16, num_steps=64)])
def test_agents_learn_cartpole_with_four_workers_and_lag(agent, cluster, tmp_path):
    run = rlgrad.train(
        agent,
        "CartPole-v1",
        total_timesteps=80_000,
        workers=4,
        asynchronous=True,
        run_dir=tmp_path / "run",
        **{**SMALL, "hidden_sizes": (64, 64)},
    )
    assert np.mean(run.history["time/policy_lag"]) > 0.5
    assert run.evaluate(20).mean_return > 150
    run.close()
