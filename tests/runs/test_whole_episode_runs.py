"""Runs by whole episodes: steps, rows, and a resume in the middle of a row."""

import csv
import shutil

import gymnasium
import numpy as np
import pytest

import rlgrad
from rlgrad.runs import loop


class Walk(gymnasium.Env):
    """Episodes of 2 to 99 steps, so that rollouts have 64 or 128 rows. No limit is known."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._left = int(self.np_random.integers(2, 100))
        return self._seen(), {}

    def step(self, action):
        type(self).steps += 1
        self._left -= 1
        return self._seen(), float(action), self._left == 0, False, {}

    def _seen(self):
        return self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)


OPTIONS = {"num_envs": 2, "evaluation_episodes": 0, "verbose": False, "hidden_sizes": (4,), "logs": ("csv",)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_ROWS", 7)  # which end elsewhere than the tenths that have checkpoints
    Walk.steps = 0
    return rlgrad.train("reinforce", Walk, total_timesteps=4000, run_dir=tmp_path / "run", **OPTIONS)


def rows(run):
    """The rows of metrics.csv, without what a clock says."""
    with (run.path / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]


def test_whole_episodes_count_every_step_and_log_a_share_of_the_updates(run, tmp_path):
    assert Walk.steps == run.timesteps >= 4000
    assert run.learner.traces == 2  # one program for 64 rows, one for 128
    steps = run.history["time/timesteps"]
    assert run.updates > 30
    shares = [step * 7 // 4000 for step in steps]
    assert shares == sorted(set(shares))
    assert len(steps) <= 7
    assert run.history["time/updates"][-1] == run.updates
    shutil.copytree(run.path, tmp_path / "again")
    saved = {int(file.stem): file for file in (tmp_path / "again" / "checkpoints").glob("0*.npz")}
    begin = max(step for step in saved if step not in steps)
    for step, file in saved.items():
        if step > begin:
            file.unlink()
    again = rlgrad.load(tmp_path / "again", env=Walk, verbose=False)
    assert 0 < again.timesteps == begin < run.timesteps
    again.train()
    assert rows(again) == rows(run)
    for a, b in zip(again.policy.variables, run.policy.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
