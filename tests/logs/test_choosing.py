"""Which logs a run has, and what is refused before it begins."""

import importlib.util

import pytest
import yaml
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.cli import main
from rlgrad.cli.commands.train import parse_command
from rlgrad.config import to_yaml
from rlgrad.logs import LOGS, log_class, make_logs

QUICK = {"total_timesteps": 256, "num_envs": 2, "num_steps": 32, "evaluation_episodes": 0, "verbose": False}
FILES = {"csv": "metrics.csv", "jsonl": "metrics.jsonl", "tensorboard": "events.out.tfevents.*"}
pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def written(path):
    return {name for name, pattern in FILES.items() if list(path.glob(pattern))}


@mostly_slow(
    "logs, expected",
    [
        (("csv", "tensorboard"), {"csv", "tensorboard"}),
        (("csv", "jsonl"), {"csv", "jsonl"}),
        (("jsonl",), {"csv", "jsonl"}),
        ((), {"csv"}),
    ],
    quick=[(("csv", "tensorboard"), {"csv", "tensorboard"}), (("jsonl",), {"csv", "jsonl"})],
)
def test_a_run_writes_the_logs_that_it_is_asked_for_and_the_csv_always(logs, expected, finished):
    path = finished("reinforce") if logs == ("csv", "tensorboard") else finished("reinforce", logs=logs)
    assert written(path) == expected
    assert yaml.safe_load((path / "config.yaml").read_text())["logs"] == list(logs)


def test_a_run_that_goes_on_keeps_to_its_logs(finished):
    path = finished("reinforce", logs=("jsonl",))
    before = len((path / "metrics.jsonl").read_text().splitlines())
    again = rlgrad.load(path, verbose=False).train(1024)
    assert written(path) == {"csv", "jsonl"}
    rows = (path / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == len(again.history["time/timesteps"]) > before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logs": ("tensorbord",)}, "logs: There is no log 'tensorbord'. Did you mean 'tensorboard'?"),
        ({"logs": "csv"}, "logs is a sequence, got 'csv'."),
        ({"videos": -1}, "videos is at least 0, got -1."),
        ({"videos": 2, "logs": ("csv",)}, "add tensorboard to logs"),
        ({"histograms": True, "logs": ("csv",)}, "add tensorboard to logs"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        rlgrad.train("a2c", "CartPole-v1", run_dir=tmp_path / "a", **QUICK | options)
    assert message in str(raised.value)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
@pytest.mark.parametrize("folder", [False, True])
def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(name, folder, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    namespace = importlib.machinery.ModuleSpec(name, None, is_package=True)  # a folder of that name is no package
    absent = namespace if folder else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *rest: absent if n == name else find(n, *rest))
    with pytest.raises(ImportError, match=rf"pip install 'rlgrad\[{name}\]'"):
        rlgrad.train("a2c", "CartPole-v1", logs=(name,), run_dir=tmp_path / "a", **QUICK)
    assert not (tmp_path / "a").exists()


def test_a_run_of_a_log_that_is_missing_here_can_be_loaded_and_used_and_says_what_going_on_needs(finished, monkeypatch):
    path = finished("reinforce")
    file = path / "config.yaml"
    file.write_text(file.read_text().replace("- tensorboard", "- wandb"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *rest: None if n == "wandb" else find(n, *rest))
    loaded = rlgrad.load(path, verbose=False)
    assert loaded.evaluate(episodes=1).episodes == 1
    with pytest.raises(ImportError, match=r"pip install 'rlgrad\[wandb\]'"):
        loaded.train(1024)


def test_every_log_only_looks_so_that_weights_are_not_read_again(finished):
    run = rlgrad.load(finished("reinforce"), verbose=False)
    assert [type(log).__name__ for log in run.callbacks] == ["CSVLog", "TensorBoardLog"]
    assert [type(log).__name__ for log in run.callbacks if not log.only_looks] == []
    assert [name for name in LOGS if not log_class(name).only_looks] == []


def test_what_callbacks_add_to_a_row_is_logged(tmp_path):
    class Doubles(rlgrad.Callback):
        metrics = ("eval/double",)

        def on_update(self, run, metrics):
            metrics["eval/double"] = 2 * metrics["time/timesteps"]

    run = rlgrad.train("a2c", "CartPole-v1", callbacks=[Doubles()], run_dir=tmp_path / "a", **QUICK)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path)).Reload().Tensors("eval/double")
    assert [e.tensor_proto.float_val[0] for e in events] == [2 * e.step for e in events]


def test_the_command_line_chooses_logs_and_histograms(tmp_path, capsys):
    command = "a2c CartPole-v1 --histograms --videos 1 --logs jsonl tensorboard"
    config, _ = parse_command(command.split())
    assert [type(log).__name__ for log in make_logs(config)] == ["CSVLog", "JSONLinesLog", "TensorBoardLog"]
    (tmp_path / "a.yaml").write_text(to_yaml(config, {}))
    written = yaml.safe_load((tmp_path / "a.yaml").read_text())
    assert (written["logs"], written["histograms"], written["videos"]) == (["jsonl", "tensorboard"], True, 1)
    again, _ = parse_command(["a.yaml", "--videos", "0"])
    assert (again.logs, again.histograms, again.videos) == (("jsonl", "tensorboard"), True, 0)
    assert main(["train", "a2c", "CartPole-v1", "--logs", "jsn", "--run-dir", "c"]) == 2
    assert "Did you mean 'jsonl'" in capsys.readouterr().err
