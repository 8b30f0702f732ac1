"""What is left to do when a run is stopped is state: an early end, the best weights, rows, a lock, and new settings."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import yaml

import rlgrad
from rlgrad.agents import A2C, PPO
from rlgrad.callbacks import Callback, EarlyStop
from rlgrad.cli import main
from rlgrad.core import faults
from rlgrad.runs import checkpoints, locking

SMALL = {"num_envs": 2, "hidden_sizes": (4,), "vectorization_mode": "sync", "verbose": False, "evaluation_episodes": 0}


class Gone(Exception):
    """Stands for a process that is gone."""


class Vanish(Callback):
    """End the process at an environment step, as a kill would."""

    def __init__(self, at):
        self.at = at

    def on_update(self, run, metrics):
        if run.timesteps >= self.at:
            raise Gone


class StopAt(Callback):
    """End the run early, at an environment step."""

    def __init__(self, at):
        self.at = at

    def on_update(self, run, metrics):
        run.stop |= run.timesteps >= self.at


def train(folder, total=400, **options):
    return rlgrad.train(
        options.pop("agent", "a2c"), "CartPole-v1", total_timesteps=total, run_dir=folder, **SMALL | options
    )


def state_of(path):
    with np.load(path) as file:
        return json.loads(bytes(file["state"]))


def test_a_run_that_ended_early_is_finished_also_for_a_process_that_loads_it(tmp_path, capsys):
    run = train(tmp_path / "run", callbacks=[StopAt(100)])
    assert run.timesteps == 100
    again = rlgrad.load(run.path, verbose=False)
    assert again.ended
    assert not again.finished
    with pytest.raises(ValueError, match="ended early, after 100 steps"):
        again.train()
    assert main(["resume", str(run.path)]) == 2
    assert "ended early, after 100 steps: pass --total-timesteps" in capsys.readouterr().err
    assert again.train(200).timesteps == 200
    assert not rlgrad.load(run.path, verbose=False).ended


def test_a_run_that_ended_early_and_is_killed_in_its_evaluation_is_only_evaluated(tmp_path, monkeypatch, capsys):
    def gone(run, episodes=None):
        raise Gone

    with monkeypatch.context() as patch:
        patch.setattr(rlgrad.runs.run.Run, "write_evaluation", gone)
        with pytest.raises(Gone):
            train(tmp_path / "run", callbacks=[StopAt(100)], evaluation_episodes=2)
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert "after 100 steps" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["timesteps"] == 100


def test_a_row_that_ends_the_run_ends_it_also_if_the_last_checkpoint_is_not_written(tmp_path, monkeypatch):
    def of(folder, callbacks=()):
        return train(folder, 1000, callbacks=[EarlyStop(patience=2, metric="train/length"), *callbacks])

    whole = of(tmp_path / "whole")
    assert whole.ended
    saves, save = [], rlgrad.runs.run.Run.save
    monkeypatch.setattr(rlgrad.runs.run.Run, "save", lambda run, best=False: saves.append(best) or save(run, best))
    of(tmp_path / "counted")
    last = len(saves)

    def gone(run, best=False):
        saves.append(best)
        if len(saves) == 2 * last:
            raise Gone
        return save(run, best)

    monkeypatch.setattr(rlgrad.runs.run.Run, "save", gone)
    with pytest.raises(Gone):
        of(tmp_path / "killed")
    monkeypatch.undo()
    again = rlgrad.load(tmp_path / "killed", callbacks=[EarlyStop(patience=2, metric="train/length")], verbose=False)
    if not again.ended:
        again.train()
    assert again.timesteps == whole.timesteps


def test_the_best_return_is_compared_in_all_its_digits_also_after_a_resume(tmp_path):
    run = train(tmp_path / "run", 300)
    file = checkpoints.numbered(run.path / "checkpoints")[0]
    value = state_of(file)["returns"]["train/return"]
    assert value == run.history["train/return"][-1]
    again = rlgrad.load(run.path, verbose=False)
    again._journal.history["train/return"][-1] = float(f"{value:.3g}")  # as metrics.csv, which has fewer digits
    again._standing.best = value  # the same return is not better
    again._save_milestone()
    assert state_of(checkpoints.numbered(run.path / "checkpoints")[0])["best"] == value
    assert not state_of(checkpoints.numbered(run.path / "checkpoints")[0])["is_best"]


def variables(value):
    return {"weights": [keras.Variable(np.full(3, value, np.float32))]}


@pytest.mark.parametrize("kind", ["write", "sync", "rename"])
def test_a_kill_in_any_file_operation_leaves_a_whole_checkpoint_and_the_copy_is_made_up_for(
    kind, tmp_path, monkeypatch
):
    """Each operation of saving a best checkpoint fails once; what is loaded is the old or the new one, and best.npz fits."""
    places = {"sync": (os, "fsync"), "rename": (os, "replace"), "write": (faults, "write_whole")}
    calls, limit = [], 0
    original_rename = type(tmp_path).replace

    def failing(original):
        def run(*args, **options):
            calls.append(1)
            if len(calls) == limit:
                raise Gone
            return original(*args, **options)

        return run

    for limit in range(1, 6):
        folder = tmp_path / str(limit)
        checkpoints.save(folder, 10, variables(1.0), {"n": 1}, best=True)
        calls.clear()
        with monkeypatch.context() as patch:
            if kind == "rename":
                patch.setattr(type(tmp_path), "replace", failing(original_rename))
            elif kind == "sync":
                patch.setattr(os, "fsync", failing(os.fsync))
            else:
                patch.setattr(checkpoints, "write_whole", failing(places["write"][0].write_whole))
            try:
                checkpoints.save(folder, 20, variables(2.0), {"n": 2}, best=True)
                survived = True
            except Gone:
                survived = False
        loaded = variables(0.0)
        state = checkpoints.load_newest(folder, loaded)
        checkpoints.complete(folder, state)
        newest = checkpoints.numbered(folder)[0]
        np.testing.assert_array_equal(loaded["weights"][0], np.full(3, state["n"], np.float32))
        assert (folder / checkpoints.BEST).read_bytes() == newest.read_bytes()
        assert not list(folder.glob("*.partial"))
        if survived:
            assert state["n"] == 2
            break
    else:
        raise AssertionError("saving takes more operations than were tried")
    assert limit > 1, "no operation failed: this test tests nothing"


def test_a_file_of_ones_own_among_the_checkpoints_is_none(tmp_path):
    run = train(tmp_path / "run", 200)
    folder = run.path / "checkpoints"
    oldest = checkpoints.numbered(folder)[-1]
    for name in ("before-the-change.npz", "zzz.npz", "99.npz"):
        shutil.copy(oldest, folder / name)
    assert rlgrad.load(run.path, verbose=False).timesteps == 200
    run.save()
    assert (folder / "zzz.npz").exists()


def test_a_training_killed_before_it_began_says_so_and_its_folder_is_free(tmp_path, monkeypatch, capsys):
    def gone(*args, **options):
        raise Gone

    with monkeypatch.context() as patch:
        patch.setattr("rlgrad.runs.training.write_config", gone)
        # A process that is gone removes nothing.
        patch.setattr("rlgrad.runs.training.remove_unbegun", lambda path: None)
        with pytest.raises(Gone):
            train(tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints").is_dir()
    with pytest.raises(FileNotFoundError, match="killed before it began"):
        rlgrad.load(tmp_path / "run")
    assert main(["resume", str(tmp_path / "run")]) == 2
    assert "give the command that started it once more" in capsys.readouterr().err
    assert train(tmp_path / "run", 100).timesteps == 100
    with pytest.raises(FileExistsError, match="not empty"):
        train(tmp_path / "run", 100)


def test_two_trainings_never_share_a_folder(tmp_path):
    (tmp_path / "run").mkdir()
    with locking.locked(tmp_path / "run"):
        with pytest.raises(FileExistsError, match="being trained by another process"):
            train(tmp_path / "run")
        assert not (tmp_path / "run" / "config.yaml").exists()
    run = train(tmp_path / "run", 100)
    assert not (run.path / locking.NAME).exists()
    with locking.locked(run.path), pytest.raises(FileExistsError, match="another process"):
        rlgrad.load(run.path, verbose=False).train(200)
    assert rlgrad.load(run.path, verbose=False).train(200).timesteps == 200


def test_a_lock_ends_with_its_process(tmp_path):
    code = "import sys, pathlib; from rlgrad.runs.locking import Lock; Lock(pathlib.Path(sys.argv[1]))"
    code += "; print('held', flush=True)"
    code += "; input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(FileExistsError):
        locking.Lock(tmp_path)
    process.kill()
    process.wait()
    locking.Lock(tmp_path).release()


def test_rows_that_are_lost_are_noticed(tmp_path, caplog):
    run = train(tmp_path / "run", 200)
    rows = (run.path / "metrics.csv").read_text().splitlines(keepends=True)
    (run.path / "metrics.csv").write_text("".join(rows[:-3]))
    assert rlgrad.load(run.path, verbose=False).timesteps == 200
    assert f"has {len(rows) - 4} rows up to this checkpoint, and {len(rows) - 1} were written" in caplog.text


def test_new_settings_are_obeyed_and_written_down_with_where_they_began(tmp_path):
    agent = PPO(num_envs=2, num_steps=16, update=rlgrad.Ascent(learning_rate=1e-3, num_epochs=2))
    other = PPO(num_envs=2, num_steps=16, clip_range=0.1, update=rlgrad.Ascent(learning_rate=1e-5, num_epochs=2))
    options = {name: value for name, value in SMALL.items() if name != "num_envs"}
    run = rlgrad.train(agent, "CartPole-v1", total_timesteps=128, run_dir=tmp_path / "run", **options)
    again = rlgrad.load(run.path, agent=other, verbose=False).train(256)
    assert again.history["train/learning_rate"][-1] == pytest.approx(1e-5)
    content = yaml.safe_load((run.path / "config.yaml").read_text())
    assert content["agent"]["clip_range"] == 0.1
    assert content["total_timesteps"] == 256
    before = {"agent.clip_range": 0.2, "agent.update.learning_rate": 0.001, "total_timesteps": 128}
    assert content["changed"] == [{"timesteps": 128, "before": before}]
    third = rlgrad.load(run.path, verbose=False).train(320)
    assert third.history["train/learning_rate"][-1] == pytest.approx(1e-5)
    assert len(yaml.safe_load((run.path / "config.yaml").read_text())["changed"]) == 2
    # An edit of config.yaml is obeyed too.
    content = yaml.safe_load((run.path / "config.yaml").read_text())
    content["agent"]["update"]["learning_rate"] = 1e-4
    (run.path / "config.yaml").write_text(yaml.safe_dump(content))
    fourth = rlgrad.load(run.path, verbose=False).train(384)
    assert fourth.history["train/learning_rate"][-1] == pytest.approx(1e-4)


def test_another_optimizer_is_refused_also_if_it_remembers_as_many_numbers(tmp_path):
    of = lambda optimizer: A2C(num_envs=2, update=rlgrad.Ascent(optimizer=optimizer, learning_rate=1e-3))
    options = {name: value for name, value in SMALL.items() if name != "num_envs"}
    rlgrad.train(of("rmsprop"), "CartPole-v1", total_timesteps=100, run_dir=tmp_path / "run", **options)
    for name in ("adagrad", "adam"):
        with pytest.raises(ValueError, match="trained by Ascent with RMSprop, and the agent has Ascent with Ada"):
            rlgrad.load(tmp_path / "run", agent=of(name), verbose=False)


def test_training_goes_on_when_nothing_reads_its_output(tmp_path):
    command = (
        f"{sys.executable} -m rlgrad.cli train a2c CartPole-v1 --vectorization-mode sync --num-envs 2 --hidden-sizes 4 "
        f"--evaluation-episodes 0 --total-timesteps 600 --run-dir {tmp_path}/run | head -0; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
    assert "Training continues" in done.stderr
    assert "Traceback" not in done.stderr
    assert state_of(checkpoints.numbered(tmp_path / "run" / "checkpoints")[0])["timesteps"] == 600


@pytest.mark.slow
def test_sigterm_to_all_processes_of_an_async_run_ends_with_a_checkpoint(tmp_path):
    command = [sys.executable, "-m", "rlgrad.cli", "train", "ppo", "CartPole-v1", "--vectorization-mode", "async"]
    options = ["--num-envs", "2", "--hidden-sizes", "4", "--evaluation-episodes", "0", "--total-timesteps", "200000"]
    process = subprocess.Popen(
        [*command, *options, "--num-steps", "64", "--run-dir", tmp_path / "run"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    rows = tmp_path / "run" / "metrics.csv"
    while not (rows.exists() and len(rows.read_text().splitlines()) > 3):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    error = process.communicate()[1]
    assert process.returncode == 130
    assert "lost its process" not in error
    last = int(rows.read_text().splitlines()[-1].split(",")[0])
    assert state_of(checkpoints.numbered(tmp_path / "run" / "checkpoints")[0])["timesteps"] >= last
