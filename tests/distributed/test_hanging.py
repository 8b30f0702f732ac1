"""Workers and learners that hang are ended and replaced, as those that die are: a process that stands still answers nothing."""

import os
import signal
import time
from pathlib import Path

import pytest
from helpers.scripted import RandomPolicy, assert_same
from helpers.time_to_start import TIME

from rlgrad.rollouts import GymCollector

pytest.importorskip("ray")

from rlgrad.distributed import AsynchronousCollector, RemoteCollector
from rlgrad.distributed.patience import Pace, patience

OPTIONS = {"env": "CartPole-v1", "num_envs": 2, "num_steps": 7, "seed": 4, "vectorization_mode": "sync"}


def stop(worker):
    os.kill(worker["pid"], signal.SIGSTOP)


def test_a_rollout_may_take_ten_times_as_long_as_the_slowest_so_far():
    pace = Pace(steps=99, step_timeout=None, least=60.0)
    assert pace.limit(0, 0) == 60.0 * 100 * 1  # nothing is known: each step may take that long
    pace.note(seconds=10.0, steps=100)  # 0.1 s a step
    pace.note(seconds=1.0, steps=100)
    assert pace.limit(replayed=0, hung=0) == pytest.approx(10 * 0.1 * 100)
    assert pace.limit(replayed=100, hung=0) == pytest.approx(10 * 0.1 * 200)
    assert pace.limit(replayed=100, hung=2) == pytest.approx(4 * 10 * 0.1 * 200)
    assert patience(expected=0.1, least=60.0, hung=0) == 60.0
    assert patience(expected=0.1, least=60.0, hung=1) == 120.0


def test_a_step_timeout_counts_the_steps_that_are_played_again():
    pace = Pace(steps=7, step_timeout=0.5, least=60.0)
    assert pace.limit(0, 0) == pace.limit(0, 3) == 4.0
    assert pace.limit(replayed=100, hung=0) == 54.0


def test_a_worker_that_stands_still_is_replaced_and_its_rollout_is_the_same(cluster, caplog):
    collector, alone = RemoteCollector(workers=1, **OPTIONS, **TIME), GymCollector(**OPTIONS)
    assert_same(collector.collect(RandomPolicy()), alone.collect(RandomPolicy()))
    collector._fleet.pace.least = 0.5
    stop(collector.workers[0])
    assert_same(collector.collect(RandomPolicy()), alone.collect(RandomPolicy()))
    assert "Worker 1 of 1 (slots 0 to 1) did not answer within" in caplog.text
    assert "was lost: its rollout is played again elsewhere, with the same numbers" in caplog.text
    stop(collector.workers[0])  # between rollouts
    collector._fleet._timeout = 0.05
    assert collector.call_envs("get_wrapper_attr", ["spec"], {}, False) == []
    collector._fleet._timeout = 300.0
    assert_same(collector.collect(RandomPolicy()), alone.collect(RandomPolicy()))
    collector.close()


@pytest.mark.slow
def test_a_worker_that_stands_still_costs_its_rollout_where_none_is_waited_for(cluster, caplog):
    collector = AsynchronousCollector(workers=2, step_timeout=0.1, **OPTIONS, **TIME)
    collector.collect(RandomPolicy())
    before = collector.workers[0]
    stop(before)
    end = time.monotonic() + 60
    while not collector.measures()["time/lost_rollouts"] and time.monotonic() < end:
        collector.collect(RandomPolicy())
        time.sleep(0.01)
    assert collector.measures()["time/lost_rollouts"] == 1
    assert "Worker 1 of 2 (slot 0) did not answer within 0.8 s, and is ended" in caplog.text
    while Path(f"/proc/{before['pid']}").exists():  # Ray gives it five seconds to end by itself
        assert time.monotonic() < end
        time.sleep(0.2)
    collector.close()
