"""Each way in which workers fail ends as docs/many-machines.md says: the same numbers, or one sentence."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from helpers.scripted import RandomPolicy, assert_same
from helpers.time_to_start import TIME

import rlgrad
from rlgrad.cli import main
from rlgrad.random import child, integer_seed, stream
from rlgrad.rollouts import GymCollector

pytest.importorskip("ray")

from rlgrad import distributed
from rlgrad.distributed import fleet
from rlgrad.distributed.fleet import WorkerFault

RemoteCollector = partial(distributed.RemoteCollector, **TIME)


class Walk(gymnasium.Env):
    """Pays the number of its step, and observes its seed."""

    observation_space = spaces.Box(0, 2**31, (1,), np.int64)
    action_space = spaces.Discrete(2)

    def __init__(self, trap="", bad_seed=-1, mark=""):
        self.trap, self.bad_seed, self.mark = trap, bad_seed, mark

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = self.seed if seed is None else seed
        self.steps = 0
        return np.array([self.seed]), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 5 and self.trap and self.bad_seed in (-1, self.seed):
            self.fall()
        return np.array([self.seed]), float(self.steps), self.steps == 9, False, {"steps": self.steps}

    def fall(self):
        if self.trap == "raise":
            raise KeyError("a hole")
        if self.trap == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if not os.path.exists(self.mark):  # only once
            Path(self.mark).touch()
            time.sleep(1000)

    def level(self, number):
        self.trap = ""
        return number


def rollouts(make, count=3):
    collector = make()
    played = [collector.collect(RandomPolicy()) for _ in range(count)], collector.drain_episodes()
    collector.close()
    return played


def test_a_fault_names_slot_and_step_of_the_run_and_its_cause(cluster):
    bad = integer_seed(child(stream(0, "environment"), 3, 0))
    kwargs = {"trap": "raise", "bad_seed": bad}
    collector = RemoteCollector(Walk, num_envs=4, num_steps=8, workers=2, env_kwargs=kwargs)
    with pytest.raises(rlgrad.EnvironmentFault, match="slot 3 raised KeyError in step 4: 'a hole'") as found:
        collector.collect(RandomPolicy())
    collector.close()
    assert "in fall" in found.value.trace
    assert "a hole" in str(found.value.__cause__)


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced_and_its_rollout_is_the_same(cluster, tmp_path, caplog):
    kwargs = {"trap": "hang", "mark": str(tmp_path / "fell")}
    options = {"num_envs": 2, "num_steps": 7, "seed": 4}
    played, episodes = rollouts(
        lambda: RemoteCollector(Walk, workers=1, step_timeout=0.5, env_kwargs=kwargs, **options)
    )
    expected, same_episodes = rollouts(lambda: GymCollector(Walk, vectorization_mode="sync", **options))
    for one, two in zip(played, expected, strict=True):
        assert_same(one, two)
    assert episodes == same_episodes
    assert "Worker 1 of 1 (slots 0 to 1) did not answer within 4 s" in caplog.text


@pytest.mark.slow
def test_workers_that_find_no_place_are_named_with_what_is_free(cluster):
    collector = RemoteCollector(Walk, num_envs=20, num_steps=4, workers=10, worker_timeout=8.0)
    said = r"\d+ of 10 workers were not ready within 8 s: number .*\(slots \d+ to \d+\)\. Each needs one CPU, and 0 of 9 CPUs"
    with pytest.raises(WorkerFault, match=said):
        collector.collect(RandomPolicy())
    collector.close()


@pytest.mark.slow
def test_an_environment_that_ends_its_process_each_time_is_given_up(cluster):
    collector = RemoteCollector(Walk, num_envs=2, num_steps=7, workers=1, env_kwargs={"trap": "die"})
    with pytest.raises(WorkerFault, match=r"Worker 1 of 1 was lost 5 times in one rollout, with slots 0 to 1"):
        collector.collect(RandomPolicy())
    collector.close()


def test_rollouts_that_the_object_store_cannot_hold_are_refused_before_anything_is_played(cluster):
    collector = RemoteCollector("CartPole-v1", num_envs=8, num_steps=200_000, workers=2)
    with pytest.raises(ValueError, match=r"under way take 195 MiB of Ray's object store, which has 95"):
        collector.collect(RandomPolicy())
    assert collector.workers == []


def test_calls_reach_all_environments_and_those_of_a_worker_that_takes_anothers_place(cluster):
    collector = RemoteCollector(Walk, num_envs=3, num_steps=7, workers=2, env_kwargs={"trap": "raise"})
    assert collector.call_envs("level", [7], {}, False) == [7, 7, 7]
    os.kill(collector.workers[0]["pid"], signal.SIGKILL)
    assert collector.collect(RandomPolicy()).rewards.shape == (7, 3)  # no one falls
    with pytest.raises(ValueError, match="slot 0 was not reached"):
        collector.call_envs("no_such_method", [], {}, False)
    collector.close()


@pytest.mark.slow
def test_another_kind_of_cpu_is_said_once(cluster, monkeypatch, caplog):
    monkeypatch.setattr(fleet, "cpu", lambda: "Another 9000")
    collector = RemoteCollector(Walk, num_envs=2, num_steps=7, workers=2)
    collector.collect(RandomPolicy())
    collector.close()
    assert caplog.text.count("have another kind of CPU") == 1
    assert "than this machine (Another 9000)" in caplog.text


def test_an_environment_of_a_file_is_found_by_its_workers(cluster, tmp_path):
    file = tmp_path / "my_walk.py"
    file.write_text(
        "import gymnasium, numpy as np\n"
        "class MyWalk(gymnasium.Env):\n"
        "    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        return np.zeros(1, np.float32), {}\n"
        "    def step(self, action):\n"
        "        return np.zeros(1, np.float32), 2.0, False, False, {}\n"
    )
    collector = RemoteCollector(f"{file}:MyWalk", num_envs=2, num_steps=3, workers=1)
    np.testing.assert_array_equal(collector.collect(RandomPolicy()).rewards, 2.0)
    collector.close()


def test_infos_are_added_up_over_all_workers(cluster):
    collector = RemoteCollector(Walk, num_envs=4, num_steps=9, workers=2)
    collector.log_infos(["steps"])
    collector.collect(RandomPolicy())
    assert collector.drain_infos() == {"steps": (4 * 45.0, 36)}
    assert collector.drain_infos() == {}
    collector.close()


def test_what_workers_cannot_play_is_refused():
    wrong = {
        "workers is from 1 to the number of environments, num_envs=2": {"workers": 3, "num_envs": 2},
        "no seeds of their own": {"vectorization_mode": "vector_entry_point"},
        "compiled together with its policy": {"env": "rlgrad/CartPole-v1"},
        "not an instance": {"env": Walk()},
    }
    for text, options in wrong.items():
        with pytest.raises(ValueError, match=text):
            RemoteCollector(**{"env": "CartPole-v1", "num_steps": 4, "workers": 1, **options})
    with pytest.raises(ValueError, match="another one is named"):
        rlgrad.train("a2c", "CartPole-v1", total_timesteps=100, workers=2, collector=GymCollector, verbose=False)
    with pytest.raises(ValueError, match="there are none: set workers"):
        rlgrad.train("a2c", "CartPole-v1", total_timesteps=100, ray_address="auto", verbose=False)


def test_a_cluster_that_does_not_answer_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # by a test before this one
    options = {"total_timesteps": 80, "workers": 2, "ray_address": "127.0.0.1:9", "verbose": False}
    with pytest.raises(ValueError, match=r"No Ray cluster answers at ray_address='127\.0\.0\.1:9': start"):
        rlgrad.train("a2c", "CartPole-v1", run_dir=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_without_ray_a_sentence_has_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    words = ["a2c", "CartPole-v1", "--total-timesteps", "80", "--workers", "2", "--run-dir", str(tmp_path / "run")]
    assert main(["train", *words]) == 2
    assert "pip install 'rlgrad[ray]'" in capsys.readouterr().err


PROGRAM = """
import sys, rlgrad
from rlgrad.agents import A2C
from helpers import xla
xla.choose(by_rule=False)

class Say(rlgrad.Callback):
    def on_update(self, run, metrics):
        run.save()
        print(run.updates, flush=True)

rlgrad.train(A2C(num_steps=8), "CartPole-v1", num_envs=4, hidden_sizes=(8,), total_timesteps=3200, seed=1, logs=(),
    evaluation_episodes=0, verbose=False, vectorization_mode="sync", run_dir=sys.argv[1], workers=2, callbacks=[Say()])
"""


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_process_and_its_run_is_resumed_to_the_bit(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        for line in process.stdout:
            if line.strip() == "7":
                break
        process.kill()
        said = process.stderr.read().splitlines()
    assert [line for line in said if "absl" not in line and "oneDNN" not in line] == []  # nothing of Ray's own
    run = rlgrad.load(tmp_path / "run", workers=0, verbose=False).train()
    whole = rlgrad.train(
        rlgrad.agents.a2c.A2C(num_steps=8),
        "CartPole-v1",
        num_envs=4,
        hidden_sizes=(8,),
        total_timesteps=3200,
        seed=1,
        logs=(),
        evaluation_episodes=0,
        verbose=False,
        vectorization_mode="sync",
        run_dir=tmp_path / "whole",
    )
    for mine, theirs in zip(run.policy.variables, whole.policy.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
