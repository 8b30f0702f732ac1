"""Tuning: what a study suggests, measures, prunes and keeps, and that it survives a kill."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.slow import mostly_slow

import rlgrad
from rlgrad import config as configs
from rlgrad.agents import A2C
from rlgrad.config import Config
from rlgrad.core import settings
from rlgrad.runs.training import run_config
from rlgrad.search import Range
from rlgrad.tuning import trials as tuning
from rlgrad.tuning import worth
from rlgrad.tuning.studies import Measure
from rlgrad.tuning.trials import tune
from rlgrad.updates import Ascent

optuna = pytest.importorskip("optuna", reason="rlgrad[tune] is not installed")

RATE = "agent.update.learning_rate"
SPACE = {RATE: Range(1e-5, 1e-1, log=True), "agent.num_steps": [5, 16]}
CONFIG = Config(agent=A2C(update=Ascent(learning_rate=1e-7)), env="CartPole-v1", total_timesteps=1000, seed=3)


class Trained:
    """In the place of `run_config`: runs whose return is known, the higher the nearer the learning rate is to 1e-3."""

    def __init__(self):
        self.configs, self.folders, self.pruned = [], [], 0
        self.raises = {}  # what the n-th run raises

    def __call__(self, config, *, run_dir, callbacks, **options):
        number = len(self.configs)
        self.configs.append(config)
        self.folders.append(run_dir)
        if number in self.raises:
            raise self.raises[number]
        value = -abs(math.log10(config.agent.update.learning_rate) + 3.0) + 0.1 * config.seed
        run = SimpleNamespace(config=config, timesteps=0, stop=False, close=lambda: None)
        while run.timesteps < config.total_timesteps and not run.stop:
            run.timesteps += 50
            for callback in callbacks:
                callback.on_update(run, {"train/return": value})
        self.pruned += run.stop
        run.evaluate = lambda episodes, greedy: SimpleNamespace(mean_return=value)
        return run


@pytest.fixture
def trained(monkeypatch):
    fake = Trained()
    monkeypatch.setattr(worth, "run_config", fake)
    monkeypatch.setattr(tuning, "gc", SimpleNamespace(collect=lambda: None))  # nothing was compiled
    return fake


def test_the_config_as_it_is_comes_first_and_the_best_is_written_as_a_config(trained, tmp_path):
    study = tune(CONFIG, tmp_path / "s", trials=12, space=SPACE, pruner="none")
    assert trained.configs[0].agent == CONFIG.agent
    assert study.trials[0].as_given
    assert study.as_given.value == pytest.approx(-4.0 + 0.3)
    assert study.best.value > study.as_given.value + 2.0
    assert [trial.state for trial in study.trials] == ["complete"] * 12
    best = configs.from_mapping(settings.read(study.config))
    assert best.agent.update.learning_rate == study.best.values[RATE]
    assert best.agent.num_steps == study.best.values["agent.num_steps"]
    assert (best.seed, best.total_timesteps, best.evaluation_episodes) == (3, 1000, 100)


def test_every_value_is_inside_its_range_and_reaches_the_run(trained, tmp_path):
    study = tune(CONFIG, tmp_path / "s", trials=8, space={**SPACE, "hidden_sizes": [[8], [8, 8]]}, pruner="none")
    for trial, config in zip(study.trials[1:], trained.configs[1:], strict=True):
        assert 1e-5 <= config.agent.update.learning_rate <= 1e-1
        assert config.agent.num_steps in (5, 16)
        assert config.hidden_sizes in ((8,), (8, 8))
        assert trial.values[RATE] == config.agent.update.learning_rate
        assert trial.values["hidden_sizes"] == list(config.hidden_sizes)


def test_a_trial_is_the_mean_over_seeds_each_in_a_folder_of_its_own(trained, tmp_path):
    study = tune(CONFIG, tmp_path / "s", trials=1, space=SPACE, measure=Measure(seeds=3))
    assert [config.seed for config in trained.configs] == [3, 4, 5]
    assert [folder.relative_to(study.folder).as_posix() for folder in trained.folders] == [
        f"trials/0000/seed{seed}" for seed in (3, 4, 5)
    ]
    assert study.best.value == pytest.approx(-4.0 + 0.4)


def test_a_trial_below_the_median_of_the_others_is_pruned(trained, tmp_path):
    study = tune(CONFIG, tmp_path / "s", trials=15, space=SPACE)
    pruned = [trial for trial in study.trials if trial.state == "pruned"]
    assert len(pruned) == trained.pruned > 0
    assert [trial.value for trial in pruned] == [None] * len(pruned)


@pytest.mark.parametrize("error", [rlgrad.NonFiniteError("nan in the gradient"), ValueError("5 does not divide 16")])
def test_a_trial_that_diverges_or_contradicts_itself_is_not_the_end(error, trained, tmp_path):
    trained.raises = {1: error, 2: error}
    study = tune(CONFIG, tmp_path / "s", trials=5, space=SPACE, pruner="none")
    assert [trial.state for trial in study.trials] == ["complete", "pruned", "pruned", "complete", "complete"]
    assert study.trials[1].reason == str(error)


def test_a_config_that_diverges_as_it_is_may_be_tuned_and_one_that_cannot_be_trained_raises(trained, tmp_path):
    trained.raises = {0: rlgrad.NonFiniteError("nan")}
    study = tune(CONFIG, tmp_path / "s", trials=3, space=SPACE)
    assert study.as_given is None
    assert study.best is not None
    trained.raises = {3: ValueError("no such environment")}
    with pytest.raises(ValueError, match="no such environment"):
        tune(CONFIG, tmp_path / "t", trials=3, space=SPACE)
    mended = Config(agent=CONFIG.agent, env="Acrobot-v1", total_timesteps=1000)
    assert tune(mended, tmp_path / "t", trials=2, space=SPACE).as_given is not None


def test_an_error_of_the_environment_ends_the_call_and_not_the_study(trained, tmp_path):
    trained.raises = {2: RuntimeError("simulator gone")}
    with pytest.raises(RuntimeError, match="simulator gone"):
        tune(CONFIG, tmp_path / "s", trials=4, space=SPACE)
    study = tune(CONFIG, tmp_path / "s", trials=4, space=SPACE)
    assert [trial.state for trial in study.trials].count("complete") == 4
    assert study.trials[2].state == "failed"


def test_stopping_changes_nothing_of_what_is_suggested(trained, tmp_path):
    once = tune(CONFIG, tmp_path / "once", trials=6, space=SPACE)
    for trials in (2, 3, 6):
        again = tune(CONFIG, tmp_path / "again", trials=trials, space=SPACE)
    assert again.trials == once.trials


class Killed(BaseException):
    """Ends a process without a word, as far as the study can see."""


@mostly_slow("run", [0, 3])
def test_a_trial_that_was_killed_has_failed_and_its_values_are_tried_again(run, trained, tmp_path):
    trained.raises = {run: Killed()}
    with pytest.raises(Killed):
        tune(CONFIG, tmp_path / "s", trials=6, space=SPACE, pruner="none")
    study = tune(CONFIG, tmp_path / "s", trials=6, space=SPACE, pruner="none")
    states = [trial.state for trial in study.trials]
    assert (states.count("complete"), states.count("failed")) == (6, 1)
    assert study.trials[run].state == "failed"
    assert study.trials[run + 1].values == study.trials[run].values
    assert trained.configs[run] == trained.configs[run + 1]
    assert study.as_given is not None


def test_one_study_has_one_worker_at_a_time(trained, tmp_path):
    def meanwhile(trial, study):
        with pytest.raises(ValueError, match="Somebody is tuning in"):
            tune(CONFIG, tmp_path / "s", trials=1, space=SPACE)

    tune(CONFIG, tmp_path / "s", trials=1, space=SPACE, report=meanwhile)


def test_in_a_shared_storage_the_trials_of_other_folders_are_left_alone(trained, tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    trained.raises = {1: Killed()}
    with pytest.raises(Killed):
        tune(CONFIG, tmp_path / "a" / "s", trials=4, space=SPACE, storage=storage)
    theirs = tune(CONFIG, tmp_path / "b" / "s", trials=3, space=SPACE, storage=storage)
    assert [trial.number for trial in theirs.trials] == [0, 2, 3]
    mine = tune(CONFIG, tmp_path / "a" / "s", trials=4, space=SPACE, storage=storage)
    assert [trial.state for trial in mine.trials].count("failed") == 1


def test_a_study_does_not_mix_what_cannot_be_compared(trained, tmp_path):
    tune(CONFIG, tmp_path / "s", trials=1, space=SPACE)
    for changes in ({"measure": Measure(seeds=2)}, {"space": {RATE: Range(1e-4, 1e-1, log=True)}}):
        with pytest.raises(ValueError, match=r"was begun with .* Choose another study"):
            tune(CONFIG, tmp_path / "s", **{"trials": 2, "space": SPACE, **changes})
    longer = Config(agent=CONFIG.agent, env="CartPole-v1", total_timesteps=2000, seed=3)
    with pytest.raises(ValueError, match=r"config.total_timesteps = 1000, and now it is 2000"):
        tune(longer, tmp_path / "s", trials=2, space=SPACE)


def test_a_name_that_the_config_lacks_raises_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'gamma'"):
        tune(CONFIG, tmp_path / "s", space={"agent.gama": [0.9, 0.99]})
    with pytest.raises(ValueError, match="at least one name"):
        tune(CONFIG, tmp_path / "s", space={})
    assert list(tmp_path.iterdir()) == []


def test_time_that_is_up_ends_a_study_with_what_it_has(trained, tmp_path):
    assert tune(CONFIG, tmp_path / "s", trials=5, space=SPACE, timeout=0.0).best is None
    study = tune(CONFIG, tmp_path / "s", trials=5, space=SPACE)
    assert len(study.trials) == 5


@pytest.mark.slow
def test_agents_declare_spaces_without_optuna():
    code = "import sys; sys.modules['optuna'] = None; from rlgrad.agents import PPO; print(len(PPO().search_space()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(result.stdout) > 4, result.stderr


def test_without_optuna_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'rlgrad\[tune\]'"):
        tune(CONFIG, tmp_path / "s", space=SPACE)


MISTUNED = """
agent:
  name: ppo
  num_envs: 8
  num_steps: 32
  gamma: 0.98
  gae_lambda: 0.8
  update: {learning_rate: 1.0e-7, learning_rate_schedule: linear, num_epochs: 20}
env: CartPole-v1
total_timesteps: 20000
"""
COMMAND = ["tune", "mistuned.yaml", "--search", f"{RATE}=1e-7:1:log", "--episodes", "20", "--study", "s", "--json"]


def command(trials, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "rlgrad.cli", *COMMAND, "--trials", str(trials)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


@pytest.mark.slow
def test_a_mistuned_config_is_improved_also_on_seeds_that_no_trial_has_seen(tmp_path):
    (tmp_path / "mistuned.yaml").write_text(MISTUNED)
    process = command(10, tmp_path)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    said = json.loads(output)
    as_given, best = said["as_given"]["value"], said["best"]["value"]
    assert as_given < 60.0
    assert best > 3.0 * as_given
    config = configs.from_mapping(settings.read(tmp_path / said["config"]))
    assert config.agent.update.learning_rate == said["best"]["values"][RATE]
    fresh = []
    for seed in (7, 8, 9):
        run = run_config(dataclasses.replace(config, seed=seed), run_dir=tmp_path / f"r{seed}", verbose=False)
        fresh.append(run.evaluate(episodes=20, greedy=False).mean_return)
        run.close()
    assert np.mean(fresh) > 2.0 * as_given


@pytest.mark.slow
def test_a_study_that_is_killed_three_times_ends_with_every_trial(tmp_path):
    (tmp_path / "mistuned.yaml").write_text(MISTUNED)
    for wanted in (1, 2, 4):  # folders of trials that are to be there before the kill
        process = command(6, tmp_path)
        begun = time.monotonic()
        while len(list((tmp_path / "tuning/s/trials").glob("*/seed0/metrics.csv"))) < wanted:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() - begun < 120
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = command(6, tmp_path)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    states = [trial["state"] for trial in json.loads(output)["trials"]]
    assert len(states) - states.count("failed") == 6
    assert 1 <= states.count("failed") <= 3
