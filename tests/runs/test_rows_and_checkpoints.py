"""What a run does at each of its updates: progress, and when checkpoints are written."""

import time

import pytest

import rlgrad
from rlgrad.agents import A2C
from rlgrad.updates import Ascent

# Ten steps an update, of which each is a row.
QUICK = {"num_envs": 2, "vectorization_mode": "sync", "hidden_sizes": (4,), "evaluation_episodes": 0, "verbose": False}
QUICK |= {"logs": ("csv",)}


class Saves(rlgrad.Callback):
    """Counts checkpoints, and lets `seconds` pass with each update."""

    def __init__(self, seconds=0.0):
        self.seconds, self.passed, self.count = seconds, 0.0, 0

    def on_start(self, run):
        save = run.save

        def counted(*arguments, **options):
            self.count += 1
            return save(*arguments, **options)

        run.save = counted

    def on_update(self, run, metrics):
        self.passed += self.seconds


def test_each_update_has_the_progress_made_before_it_and_ten_checkpoints_are_written(tmp_path):
    """A rate that falls linearly is 0.5 (1 − steps before the update / 300). The last checkpoint is that of the end."""
    agent, saves = A2C(update=Ascent(optimizer="sgd", learning_rate=0.5, learning_rate_schedule="linear")), Saves()
    run = rlgrad.train(agent, "CartPole-v1", total_timesteps=300, run_dir=tmp_path / "run", callbacks=[saves], **QUICK)
    expected = [0.5 * (1.0 - 10 * update / 300) for update in range(30)]
    assert run.history["train/learning_rate"] == pytest.approx(expected, rel=1e-6)
    assert saves.count == 10 + 1, "checkpoints written"


def test_updates_that_are_fused_have_the_progress_made_before_each_of_them(tmp_path):
    """Two updates make a row of the compiled environment, which shows the mean of their rates."""
    agent, saves = A2C(update=Ascent(optimizer="sgd", learning_rate=0.5, learning_rate_schedule="linear")), Saves()
    settings = QUICK | {"vectorization_mode": "auto"}
    run = rlgrad.train(
        agent, "rlgrad/CartPole-v1", total_timesteps=1000, run_dir=tmp_path / "run", callbacks=[saves], **settings
    )
    rates = [0.5 * (1.0 - 10 * update / 1000) for update in range(100)]
    expected = [(one + other) / 2 for one, other in zip(rates[::2], rates[1::2], strict=True)]
    assert run.history["time/timesteps"] == list(range(20, 1001, 20))
    assert run.history["train/learning_rate"] == pytest.approx(expected, abs=1e-6)
    assert saves.count == 10 + 1, "checkpoints written"


def test_an_update_that_ends_a_minute_after_the_last_checkpoint_is_saved(tmp_path, monkeypatch):
    clock, saves = time.perf_counter, Saves(seconds=25.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + saves.passed)
    rlgrad.train(A2C(), "CartPole-v1", total_timesteps=1000, run_dir=tmp_path / "run", callbacks=[saves], **QUICK)
    # Each tenth of the run is ten updates: saved after the third, sixth and ninth, and at its end.
    assert saves.count == 10 * 4 + 1, "checkpoints written"


class Scripted(rlgrad.Callback):
    """Evaluations whose results stand here, by the steps of the run."""

    metrics = ("eval/return_greedy",)
    only_looks = True
    results = {10: 1.0, 20: 9.0, 30: 2.0, 40: 2.0, 50: 5.0, 60: 5.0, 70: 10.0, 80: 3.0}

    def on_update(self, run, metrics):
        metrics["eval/return_greedy"] = self.results[run.timesteps]


def test_the_best_checkpoint_stays_the_best_when_the_run_is_resumed(tmp_path):
    settings = {"total_timesteps": 40, "run_dir": tmp_path / "run", "callbacks": [Scripted()]}
    rlgrad.train(A2C(), "CartPole-v1", **settings, **QUICK).close()
    file = tmp_path / "run" / "checkpoints" / "best.npz"
    best = file.read_bytes()
    run = rlgrad.load(tmp_path / "run", callbacks=[Scripted()], verbose=False)
    run.train(60)
    assert file.read_bytes() == best, "5 is not better than the 9 of before"
    run.train(80)
    assert file.read_bytes() != best, "10 is"
    run.restore(file)
    assert run.timesteps == 70, "steps of the best checkpoint"
