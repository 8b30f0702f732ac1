"""`rlgrad train … --seeds`: a run for each seed, each in a process of its own, and one row of `compare` for all."""

import json

import pytest

from rlgrad.cli import main
from rlgrad.cli.side_by_side import seeds_of

SHORT = ["a2c", "CartPole-v1", "--total-timesteps", "80", "--evaluation-episodes", "2", "--logs", "csv"]


WILD = """
import os
from pathlib import Path

import gymnasium
import numpy as np

class Wild(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, mark):
        try:
            Path(mark).open("x").write(str(os.getpid()))
        except FileExistsError:
            pass
        self.raises = Path(mark).read_text() == str(os.getpid())  # in the first process that makes one

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if self.raises:
            raise KeyError("a hole")
        return np.zeros(1, np.float32), 1.0, False, bool(self.np_random.random() < 0.2), {}
"""


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("5", [5]), ("1,4,7", [1, 4, 7]), ("0-1, 9", [0, 1, 9])]
)
def test_seeds_are_ranges_and_numbers(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "0-1000", "1,,2"])
def test_what_names_no_seeds_is_refused(text):
    with pytest.raises(ValueError, match="0-9 or 1,4,7"):
        seeds_of(text)


def test_a_seed_twice_is_refused():
    with pytest.raises(ValueError, match="a seed twice: '1-3,2'"):
        seeds_of("1-3,2")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([*SHORT, "--seeds", "0-1", "--seed", "3"], "--seed is of one run"),
        ([*SHORT, "--seeds"], "--seeds needs a value"),
        ([*SHORT, "--seeds", "0-1", "--workers", "0"], "--workers is at least 1"),
        (["--seeds", "0-1"], "what to train"),
    ],
)
def test_a_mistake_is_said_before_anything_is_trained(words, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_each_seed_is_the_run_that_it_is_alone_and_compare_shows_one_row(tmp_path, capsys):
    folder, alone = tmp_path / "all", tmp_path / "alone"
    assert main(["train", *SHORT, "--seeds", "3-4", "--workers", "2", "--run-dir", str(folder)]) == 0
    said = capsys.readouterr().out
    assert f"rlgrad compare {folder}/*" in said
    assert "seed 3: greedy return" in said
    assert main(["train", *SHORT, "--seed", "4", "--run-dir", str(alone)]) == 0
    capsys.readouterr()
    of_four, again = (json.loads((path / "evaluation.json").read_text()) for path in (folder / "seed-4", alone))
    assert of_four == again
    assert main(["compare", str(folder / "seed-3"), str(folder / "seed-4"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["seeds"] == [3, 4]
    assert main(["train", *SHORT, "--seeds", "4-5", "--run-dir", str(folder)]) == 2
    assert "seed-4 exists" in capsys.readouterr().err


@pytest.mark.slow
def test_a_seed_that_fails_leaves_the_others_alone(tmp_path, capsys):
    (tmp_path / "wild.py").write_text(WILD)
    words = [
        "a2c",
        f"{tmp_path / 'wild.py'}:Wild",
        "--total-timesteps",
        "80",
        "--evaluation-episodes",
        "0",
        "--logs",
        "csv",
    ]
    command = ["train", *words, "--seeds", "0-1", "--workers", "1", "--run-dir", str(tmp_path / "all")]
    assert main([*command, "--env-kwargs", f"mark={tmp_path / 'mark'}"]) == 1
    out = capsys.readouterr().out
    assert "seed 0 failed with exit status 1: " in out
    assert "seed 1: everything is in" in out
    assert "Failed: seeds 0.\n" in out
    assert (tmp_path / "all" / "seed-1" / "metrics.csv").is_file()
