"""Logs of another package, or of a file: they are named in `logs`, train, are saved with the run, and are restored."""

import importlib
import os
import sys

import pytest
import yaml

import rlgrad

QUICK = {"total_timesteps": 256, "num_envs": 2, "num_steps": 32, "evaluation_episodes": 0, "verbose": False}
QUICK |= {"hidden_sizes": (4,), "vectorization_mode": "sync"}
CODE = """
import rlgrad


class Lines(rlgrad.Callback):
    only_looks = True

    def __init__(self, name="lines.txt", *, metric="time/timesteps"):
        self.name, self.metric, self.rows = name, metric, 0

    def on_start(self, run):
        file = run.path / self.name
        kept = file.read_text().splitlines()[: self.rows] if file.exists() else []
        file.write_text("".join(f"{line}\\n" for line in kept))

    def on_update(self, run, metrics):
        self.rows += 1
        with (run.path / self.name).open("a") as file:
            file.write(f"{metrics[self.metric]}\\n")

    def state(self):
        return {"rows": self.rows}

    def restore(self, state):
        self.rows = state["rows"]


class Remote(rlgrad.Callback):
    def __init__(self, url, token=None): ...


class Strict(rlgrad.Callback):
    def __init__(self, level=0):
        raise ValueError(f"level is 1 or 2, got {level}.")


class Other: ...
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_log.py").write_text(CODE)
    yield tmp_path / "own_log.py"
    sys.modules.pop("own_log", None)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A distribution outside of rlgrad, with an entry point."""
    site = tmp_path / "site"
    (site / "lines_log-1.0.dist-info").mkdir(parents=True)
    (site / "lines_log.py").write_text(CODE)
    (site / "lines_log-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lines-log\nVersion: 1.0\n")
    (site / "lines_log-1.0.dist-info" / "entry_points.txt").write_text("[rlgrad.logs]\nlines = lines_log:Lines\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(site)
        importlib.invalidate_caches()
        yield patch
    sys.modules.pop("lines_log", None)


def lines(run, name="lines.txt"):
    return [float(line) for line in (run.path / name).read_text().splitlines()]


def is_the_same_after_a_resume(run, **where):
    """Whether its rows are those of the run, also where some are written for a second time."""
    assert lines(run, **where) == run.history["time/timesteps"]
    with (run.path / where.get("name", "lines.txt")).open("a") as rows:
        rows.write("of a step after the checkpoint, and then the process was kill")
    again = rlgrad.load(run.path, verbose=False)
    again.train(512)
    assert len(again.history["time/timesteps"]) > len(run.history["time/timesteps"])
    return lines(again, **where) == again.history["time/timesteps"]


def test_a_log_of_a_package_is_named_by_its_entry_point_and_resumes(package, tmp_path):
    run = rlgrad.train("a2c", "CartPole-v1", logs=("lines", "jsonl"), run_dir=tmp_path / "a", **QUICK)
    assert yaml.safe_load((run.path / "config.yaml").read_text())["logs"] == ["lines", "jsonl"]
    assert [type(log).__name__ for log in run.callbacks] == ["CSVLog", "Lines", "JSONLinesLog"]
    assert is_the_same_after_a_resume(run)


@pytest.mark.slow
def test_a_log_of_a_module_is_named_by_its_place_with_arguments_and_resumes(package, tmp_path):
    logs = ("lines_log:Lines(name='updates.txt', metric='time/timesteps')",)
    run = rlgrad.train("a2c", "CartPole-v1", logs=logs, run_dir=tmp_path / "a", **QUICK)
    assert yaml.safe_load((run.path / "config.yaml").read_text())["logs"] == list(logs)
    assert is_the_same_after_a_resume(run, name="updates.txt")


def test_a_log_of_a_file_is_saved_with_the_whole_path_and_resumes_from_another_folder(file, tmp_path):
    run = rlgrad.train("a2c", "CartPole-v1", logs=("own_log.py:Lines",), run_dir="a", **QUICK)
    assert yaml.safe_load((run.path / "config.yaml").read_text())["logs"] == [f"{file}:Lines"]
    run.path = run.path.resolve()
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    assert is_the_same_after_a_resume(run)


def test_arguments_may_hold_colons_and_brackets(file):
    logs = ("own_log.py:Lines(name='a:(b).txt')",)
    run = rlgrad.train("a2c", "CartPole-v1", logs=logs, run_dir="a", **QUICK)
    assert yaml.safe_load((run.path / "config.yaml").read_text())["logs"] == [f"{file}:Lines(name='a:(b).txt')"]
    assert is_the_same_after_a_resume(run, name="a:(b).txt")


def test_the_command_line_takes_a_log_of_a_file(file, tmp_path):
    from rlgrad.cli import main

    words = "train a2c CartPole-v1 --total-timesteps 256 --num-envs 2 --evaluation-episodes 0 --run-dir a --logs"
    assert main([*words.split(), "own_log.py:Lines(name='x.txt')", "jsonl"]) == 0
    assert (tmp_path / "a" / "x.txt").exists()
    assert (tmp_path / "a" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("jsn", "logs: There is no log 'jsn'. Did you mean 'jsonl'? Your own: my_log.py:Name."),
        ("csv(path='x')", "logs: csv takes no arguments, got \"csv(path='x')\"."),
        ("own_log.py:Line", "has no class 'Line'. Did you mean 'Lines'?"),
        ("own_log.py:Other", "logs: 'own_log.py:Other' is no subclass of rlgrad.Callback."),
        ("own_log.py:rlgrad", "logs: 'own_log.py:rlgrad' is no subclass of rlgrad.Callback."),
        ("own_log.py:Lines(nam='x')", "Unknown argument of the log Lines 'nam'. Did you mean 'name'?"),
        ("own_log.py:Lines('x')", "logs: one is written as a name, or as a name with keyword arguments"),
        ("own_log.py:Remote(token='t')", "The log \"own_log.py:Remote(token='t')\" needs url, written such as"),
        ("own_log.py:Strict(level=3)", "level is 1 or 2, got 3."),
        ("other_log.py:Lines", "There is no file 'other_log.py'."),
        (
            "no_such_module:Lines",
            "logs: 'no_such_module:Lines' asks for the module 'no_such_module', which cannot be imported",
        ),
        ("rlgrad.logs.csv:CSVLogg", "logs: The module rlgrad.logs.csv has no 'CSVLogg'. Did you mean 'CSVLog'"),
    ],
)
def test_what_is_no_log_or_cannot_be_made_is_refused_before_anything_is_written(log, message, file, tmp_path):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        rlgrad.train("a2c", "CartPole-v1", logs=(log,), run_dir="a", **QUICK)
    assert message in str(raised.value)
    assert not (tmp_path / "a").exists()


def test_a_run_whose_log_is_gone_can_be_loaded_and_used_and_says_what_resuming_needs(package, tmp_path):
    run = rlgrad.train("a2c", "CartPole-v1", logs=("lines",), run_dir=tmp_path / "a", **QUICK)
    package.undo()
    loaded = rlgrad.load(run.path, verbose=False)
    assert loaded.evaluate(episodes=1).episodes == 1
    with pytest.raises(ValueError, match="logs: There is no log 'lines'"):
        loaded.train(512)


def test_a_log_that_came_with_a_run_folder_is_not_executed(file, tmp_path):
    run = rlgrad.train("a2c", "CartPole-v1", logs=("jsonl",), run_dir="a", **QUICK)
    (run.path / "own_log.py").write_text("raise SystemExit('executed')")
    config = run.path / "config.yaml"
    for place in (f"{(run.path / 'own_log.py').resolve()}:Lines", "own_log.py:Lines(name='x')"):
        config.write_text(config.read_text().replace("- jsonl", f'- "{place}"'))
        with pytest.raises(ValueError, match="came with"):
            rlgrad.load(run.path, verbose=False)
        config.write_text(config.read_text().replace(f'- "{place}"', "- jsonl"))
