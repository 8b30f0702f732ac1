"""A run that is killed and gone on with is the run that was never killed, to the bit."""

import json
import logging
import os
import random
import shutil
import signal

import gymnasium
import keras
import numpy as np
import pytest
import yaml
from helpers.killing import KINDS, MORE_KINDS, finish, kill, kill_once_logged, left, resume, train
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.agents import A2C
from rlgrad.callbacks import Callback, EarlyStop, Evaluate
from rlgrad.cli import main
from rlgrad.config import from_mapping
from rlgrad.runs import checkpoints
from rlgrad.spaces.trees import arrays

QUICK = {"num_envs": 2, "hidden_sizes": (4,), "evaluation_episodes": 0, "verbose": False}


class Interrupt(Callback):
    """Presses Ctrl-C after so many steps."""

    def __init__(self, at):
        self.at = at

    def on_update(self, run, metrics):
        if run.timesteps >= self.at:
            os.kill(os.getpid(), signal.SIGINT)


class Photograph(Callback):
    """Copies the run's folder just before it logs its rows of these numbers, as a kill at that moment would leave it."""

    def __init__(self, folder, rows):
        self.folder, self.rows, self.row = folder, rows, 0
        self.taken = []

    def on_update(self, run, metrics):
        self.row += 1
        if self.row in self.rows:
            self.taken.append(self.folder / f"{run.timesteps}")
            shutil.copytree(run.path, self.taken[-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Finished runs by kind, each with copies of its folder from the way there, made when they are asked for."""
    made = {}

    def run(kind):
        if kind not in made:
            folder, moments = tmp_path_factory.mktemp("whole"), random.Random(kind)
            photograph = Photograph(folder, sorted(moments.sample(range(2, 70), 2)))
            made[kind] = train(kind, folder / "run", [photograph]), photograph.taken
        return made[kind]

    return run


def assert_same_end(folder, other):
    for mine, theirs in zip(left(folder), left(other), strict=True):
        assert mine == theirs


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["async", "own vector entry point", "compiled"])
def test_what_a_kill_leaves_between_two_writes_goes_on_to_the_same_end(kind, whole):
    run, (first, second) = whole(kind)
    for folder in (first, second):
        resume(folder)
        assert_same_end(folder, run.path)


def killed(kind, full, folder, times, moments):
    """How often a run was killed while it was going; gone on with after each time, it ends as if it had not been."""
    full, seconds = full
    shares = [moments.uniform(0.0, 0.6) for _ in range(times)]  # each process compiles anew
    going = [kill("resume" if i else "train", kind, folder, share * seconds) for i, share in enumerate(shares)]
    finish("resume", kind, folder)
    assert_same_end(folder, full)
    return sum(going)


def finished_elsewhere(kind, tmp_path):
    """A run that a process of its own has finished, and the seconds that it took."""
    return tmp_path / "whole", finish("train", kind, tmp_path / "whole")


def test_a_run_killed_while_it_goes_ends_as_if_it_had_not_been(whole, tmp_path):
    assert kill_once_logged(10, "sync", tmp_path / "run")
    resume(tmp_path / "run")
    assert_same_end(tmp_path / "run", whole("sync")[0].path)


@pytest.mark.slow
@pytest.mark.xla
def test_a_run_killed_at_5_random_moments_ends_as_if_it_had_not_been(tmp_path):
    full = finished_elsewhere("sync", tmp_path)
    assert killed("sync", full, tmp_path / "run", 5, random.Random("sync")) >= 2


@pytest.mark.slow
@pytest.mark.xla
@pytest.mark.parametrize("kind", [*KINDS, *MORE_KINDS])
def test_a_run_killed_at_18_random_moments_ends_as_if_it_had_not_been(kind, tmp_path):
    """216 kills in all, each of a process of its own."""
    moments, full = random.Random(f"{kind} again"), finished_elsewhere(kind, tmp_path)
    assert sum(killed(kind, full, tmp_path / str(i), 3, moments) for i in range(6)) >= 6


@mostly_slow("kind", ["early stop", "evaluation"], quick=["early stop"])
def test_the_kinds_that_are_killed_are_what_they_are_called(kind, tmp_path):
    run = train(kind, tmp_path / "run")
    assert run.ended == (kind == "early stop")
    assert (tmp_path / "run" / "evaluation.json").exists() == (kind == "evaluation")


@mostly_slow("kind", KINDS.keys(), quick=["sync", "whole episodes"])
def test_ctrl_c_ends_with_a_checkpoint_that_goes_on_to_the_same_end(kind, whole, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(KeyboardInterrupt):
        train(kind, tmp_path / "run", [Interrupt(1700)])
    assert "Resume with: rlgrad resume" in caplog.text
    resumed = rlgrad.load(tmp_path / "run", verbose=False)
    assert 1700 <= resumed.timesteps < 3000
    resumed.train()
    assert left(tmp_path / "run") == left(whole(kind)[0].path)


def test_a_run_that_is_gone_on_with_takes_the_next_actions_of_the_one_that_was_not(whole):
    run, _ = whole("memory")
    again = rlgrad.load(run.path, verbose=False)
    for _ in range(3):
        mine, theirs = (each.collector.collect(each.policy) for each in (run, again))
        np.testing.assert_array_equal(mine.actions, theirs.actions)
        np.testing.assert_array_equal(mine.observations, theirs.observations)
        states = [dict(arrays(each.initial_states, "state")) for each in (mine, theirs)]
        assert len(states[0]) == 4
        for name, state in states[0].items():
            np.testing.assert_array_equal(state, states[1][name], err_msg=name)


def test_a_run_killed_before_its_first_update_begins_again(whole, tmp_path):
    class Gone(Exception):
        pass

    class Vanish(Callback):
        def on_start(self, run):
            raise Gone

    with pytest.raises(Gone):
        train("sync", tmp_path / "run", [Vanish()])
    again = rlgrad.load(tmp_path / "run", verbose=False)
    assert again.timesteps == 0
    again.train()
    assert left(tmp_path / "run") == left(whole("sync")[0].path)


def test_a_run_without_checkpoints_is_refused_by_name(finished, tmp_path):
    shutil.rmtree(finished("reinforce") / "checkpoints")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        rlgrad.load(tmp_path / "run", verbose=False)


class Forgetful(gymnasium.Wrapper):
    """Begins each episode elsewhere, whatever the seed."""

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=np.random.default_rng().integers(2**31).item())


def forgetful():
    return gymnasium.make("Acrobot-v1").unwrapped and Forgetful(gymnasium.make("Acrobot-v1"))


def test_an_environment_that_is_not_deterministic_is_named_and_goes_on_with_new_episodes(tmp_path, caplog):
    run = rlgrad.train(A2C(), forgetful, total_timesteps=100, run_dir=tmp_path / "run", **QUICK)
    before = [v.numpy() for v in run.policy.variables]
    again = rlgrad.load(run.path, env=forgetful, verbose=False)
    for a, b in zip(before, again.policy.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    again.train(200)
    assert "not deterministic under a seed" in caplog.text
    assert again.timesteps == 200


def test_a_checkpoint_that_was_cut_or_changed_anywhere_is_refused_and_the_one_before_it_used(tmp_path, caplog):
    run = rlgrad.train(A2C(), "CartPole-v1", total_timesteps=100, run_dir=tmp_path / "run", **QUICK)
    newest, before, *_ = checkpoints.numbered(run.path / "checkpoints")
    content, places = newest.read_bytes(), random.Random(1)
    for _ in range(100):
        at, bit = places.randrange(len(content)), 1 << places.randrange(8)
        cut = content[:at], content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        newest.write_bytes(cut[places.randrange(2)])
        with pytest.raises(checkpoints.DamagedError, match=newest.name):
            run.restore(newest)
    caplog.clear()
    again = rlgrad.load(run.path, verbose=False)
    assert again.timesteps == int(before.stem)
    assert f"{newest} is damaged" in caplog.text
    for path in checkpoints.numbered(run.path / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(checkpoints.DamagedError, match="Every checkpoint"):
        rlgrad.load(run.path, verbose=False)


def test_checkpoints_rotate_and_the_best_stays(tmp_path):
    class Rising(Callback):
        def on_update(self, run, metrics):
            metrics["train/return"] = -abs(run.timesteps - 40)

    options = {"run_dir": tmp_path / "run", "callbacks": [Rising()], "vectorization_mode": "sync", **QUICK}
    run = rlgrad.train(A2C(), "CartPole-v1", total_timesteps=100, **options)  # in every rollout ten steps that count
    kept = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert kept == ["000000000080.npz", "000000000090.npz", "000000000100.npz", "best.npz"]
    run.restore(run.path / "checkpoints" / "best.npz")
    assert run.timesteps == 40


@pytest.mark.parametrize("agent", ["evil.py:Evil", "{run}/evil.py:Evil", "/proc/self/cwd/evil.py:Evil"])
def test_code_that_came_with_a_run_is_not_executed(agent, hostile, tmp_path, monkeypatch, capsys):
    folder = hostile
    change(folder, lambda config: config["agent"].update(name=agent.format(run=folder)))
    assert main(["evaluate", str(folder)]) == 2
    assert "evil.py" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "changes",
    [{"env": "evil:Evil-v0"}, {"wrappers": ["evil:Evil"]}, {"env": "{run}/evil.py:Evil"}, {"env": "evil.py:Evil"}],
)
def test_environments_and_wrappers_that_came_with_a_run_are_not_imported(
    changes, hostile, tmp_path, monkeypatch, capsys
):
    folder = hostile
    monkeypatch.syspath_prepend(folder)
    filled = {k: v.format(run=folder) if isinstance(v, str) else v for k, v in changes.items()}
    change(folder, lambda config: config.update(filled))
    assert main(["evaluate", str(folder)]) == 2
    assert "evil" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_a_model_and_an_optimizer_that_came_with_a_run_execute_nothing(hostile, tmp_path, monkeypatch, capsys):
    folder = hostile
    monkeypatch.syspath_prepend(folder)
    evil = {"module": "evil", "class_name": "Evil", "config": {}, "registered_name": None}
    change(folder, lambda config: config["agent"]["update"].update(optimizer=evil))
    assert main(["evaluate", str(folder)]) == 2
    change(folder, lambda config: config["agent"]["update"].update(optimizer="rmsprop"))
    layers = [keras.Input((4,)), keras.layers.Lambda(lambda x: os.mknod("executed") or x), keras.layers.Dense(2)]
    touch = keras.Sequential(layers)
    (folder / "model.json").write_text(touch.to_json())
    (folder / "executed").unlink(missing_ok=True)
    assert main(["evaluate", str(folder)]) == 2
    layer = {"module": "evil", "class_name": "Evil", "config": {}, "registered_name": "Evil"}
    model = json.loads(touch.to_json())
    model["config"]["layers"][1] = layer
    (folder / "model.json").write_text(json.dumps(model))
    assert main(["evaluate", str(folder)]) == 2
    assert not (tmp_path / "executed").exists()
    assert not (folder / "executed").exists()
    assert "Traceback" not in capsys.readouterr().err


@pytest.fixture
def hostile(finished, tmp_path, monkeypatch):
    """A run folder with code in it, seen from inside of it."""
    folder = finished("reinforce", name="theirs")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.chdir(folder)
    return folder


def change(folder, edit):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    edit(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_finished_run_is_not_gone_on_with_unless_it_is_told_how_far(finished, tmp_path, capsys):
    finished("reinforce")
    assert main(["resume", str(tmp_path / "run")]) == 2
    assert "is finished" in capsys.readouterr().err
    (tmp_path / "run" / "evaluation.json").unlink()  # killed while it was evaluated
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "evaluation.json").exists()


def test_evaluations_while_training_are_logged_and_change_nothing(tmp_path):
    settings = {"total_timesteps": 590, "vectorization_mode": "sync"} | QUICK
    plain = rlgrad.train(A2C(), "CartPole-v1", run_dir=tmp_path / "plain", **settings)
    evaluated = rlgrad.train(A2C(), "CartPole-v1", run_dir=tmp_path / "run", callbacks=[Evaluate(195, 3)], **settings)
    for a, b in zip(plain.policy.variables, evaluated.policy.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    found = np.array(evaluated.history["eval/return_greedy"])
    steps = np.array(evaluated.history["time/timesteps"])[np.isfinite(found)]
    assert steps.tolist() == [200, 390, 590]  # rows are 10 steps apart: the first at or after 195, 390 and 585
    assert evaluated.evaluate(3).mean_return == found[-1]
    assert evaluated.evaluate(3, greedy=False).mean_return == evaluated.history["eval/return_sampled"][-1]


def test_a_run_ends_early_for_a_threshold_or_a_plateau(tmp_path):
    """At the first row with a finished episode; and after the first look at a rate that never changes, and three more."""
    settings = {"total_timesteps": 1000, "vectorization_mode": "sync"} | QUICK  # each update is a row of ten steps
    for name, stop in (
        ("threshold", EarlyStop(threshold=1.0, metric="train/length")),
        ("plateau", EarlyStop(patience=3, metric="train/learning_rate")),
    ):
        run = rlgrad.train(A2C(), "CartPole-v1", run_dir=tmp_path / name, callbacks=[stop], **settings)
        without = int(np.isnan(run.history["train/length"]).sum())
        rows = without + 1 if name == "threshold" else 4
        assert (run.updates, run.timesteps) == (rows, 10 * rows), f"updates and steps until the {name}"
        assert without > 0, "rows before the first episode ended"


def test_a_run_ends_with_the_first_update_after_its_time_and_logs_it(tmp_path):
    settings = {"total_timesteps": 50_000, "time_budget": 1e-6}  # a row of which is several updates
    run = rlgrad.train(A2C(), "CartPole-v1", run_dir=tmp_path / "run", **settings, **QUICK)
    assert (run.updates, run.history["time/updates"]) == (1, [1])


def test_what_ends_a_run_early_is_in_its_config(tmp_path):
    settings = {"evaluation_interval": 40, "stop_at_return": 1.0, "patience": 5, "time_budget": 100.0}
    run = rlgrad.train(A2C(), "CartPole-v1", total_timesteps=5000, run_dir=tmp_path / "run", **settings, **QUICK)
    assert run.timesteps == 40
    config = from_mapping(yaml.safe_load((run.path / "config.yaml").read_text()))
    assert {name: getattr(config, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"patience": 0}, "patience"), ({"time_budget": -1.0}, "time_budget"), ({"evaluation_interval": 0}, "interval")],
)
def test_callbacks_that_make_no_sense_are_refused(settings, named, tmp_path):
    with pytest.raises(ValueError, match=named):
        rlgrad.train(A2C(), "CartPole-v1", total_timesteps=100, run_dir=tmp_path / "run", **settings, **QUICK)
    with pytest.raises(ValueError, match="threshold, or a patience"):
        EarlyStop()
