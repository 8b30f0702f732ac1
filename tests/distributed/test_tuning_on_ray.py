"""Trials as tasks: those that run one after the other, with the same values; a trial whose process dies is continued."""

import os
import signal
from collections import namedtuple
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

import rlgrad
from rlgrad.agents import A2C
from rlgrad.cli import main
from rlgrad.config import Config
from rlgrad.search import Range
from rlgrad.tuning import Measure, tune

pytest.importorskip("ray")
pytest.importorskip("optuna", reason="rlgrad[tune] is not installed")

from rlgrad.tuning import remote_trials
from rlgrad.tuning.remote_trials import RemoteTrials

SPACE = {"agent.update.learning_rate": Range(1e-5, 1e-1, log=True), "agent.num_steps": [5, 16]}
CONFIG = Config(agent=A2C(num_envs=2), env="CartPole-v1", total_timesteps=600, seed=3, hidden_sizes=(8,), logs=())
SHORT = Measure(seeds=2, episodes=2)


def _by_number(study):
    return sorted(study.trials, key=lambda trial: trial.number)


def pretend(monkeypatch, seconds_to_die=()):
    """Trials that tell 1, 2 and 3 times their rate, and whose process dies at its second look the first time."""
    letter = namedtuple("letter", "number look value pid")
    deadly = tuple(seconds_to_die)

    def play(common, path, mailbox, number, values, runs):
        import ray

        folder = Path(runs)
        folder.mkdir(parents=True, exist_ok=True)
        begun = len(list(folder.iterdir()))
        (folder / str(begun)).touch()
        for look in (1, 2, 3):
            if number in deadly and look == 2 and not begun:
                os.kill(os.getpid(), signal.SIGKILL)
            if ray.get(mailbox.tell.remote(letter(number, look, look * values["rate"], os.getpid()))):
                return (None,)
        if values["rate"] < 0:
            raise ValueError("a rate below 0")
        return (values["rate"],)

    monkeypatch.setattr(remote_trials, "play", play)


@pytest.fixture
def place(cluster, monkeypatch):
    pretend(monkeypatch, seconds_to_die={1})
    made = RemoteTrials(CONFIG, SHORT, 3, None)
    yield made
    made.close()


def test_trials_tell_their_returns_wait_for_the_answer_and_are_continued_if_their_process_dies(place, tmp_path, caplog):
    told = {}

    def tell(letter):
        told.setdefault(letter.number, []).append((letter.look, letter.value))
        return letter.number == 2 and letter.look == 2

    for number, rate in enumerate((10.0, 20.0, 30.0, -1.0)):
        place.begin(number, {"rate": rate}, tmp_path / f"{number}")
    ended = {found.number: found for found in (place.wait(tell) for _ in range(4))}
    assert [ended[number].value for number in range(4)] == [10.0, 20.0, None, None]
    assert [type(ended[number].error) for number in range(4)] == [type(None)] * 3 + [ValueError]
    assert told[0] == [(1, 10.0), (2, 20.0), (3, 30.0)]
    assert told[1] == [(1, 20.0), (1, 20.0), (2, 40.0), (3, 60.0)]
    assert told[2] == [(1, 30.0), (2, 60.0)]
    assert "The process of trial 1 was lost: another one continues its runs." in caplog.text


@pytest.mark.slow
@pytest.mark.xla  # as in the tasks' own processes
def test_trials_side_by_side_are_those_one_after_the_other(cluster, tmp_path):
    alone, many = (
        tune(
            CONFIG, tmp_path / f"{workers}" / "s", trials=4, space=SPACE, measure=SHORT, pruner="none", workers=workers
        )
        for workers in (None, 2)
    )
    assert {t.number: (t.values, t.value) for t in many.trials} == {t.number: (t.values, t.value) for t in alone.trials}
    assert many.config.read_text().splitlines()[1:] == alone.config.read_text().splitlines()[1:]
    assert (tmp_path / "2" / "s" / "trials" / "0003" / "seed4" / "metrics.csv").is_file()


@pytest.mark.slow
def test_a_trial_whose_process_was_killed_is_continued_from_its_folder_with_the_same_value(
    cluster, tmp_path, monkeypatch, caplog
):
    def study(folder):
        return tune(CONFIG, folder / "s", trials=2, space=SPACE, measure=SHORT, pruner="none", workers=2)

    undisturbed = study(tmp_path / "a")
    wait, killed = RemoteTrials.wait, []

    def waiting(self, tell):
        def killing(told):
            if told.look in (3, 14) and (told.number, told.look) not in killed:
                killed.append((told.number, told.look))
                os.kill(told.pid, signal.SIGKILL)
            return tell(told)

        return wait(self, killing)

    monkeypatch.setattr(RemoteTrials, "wait", waiting)
    disturbed = study(tmp_path / "b")
    assert len(killed) == 4
    assert caplog.text.count("was lost: another one continues its runs") == 4
    assert [t.value for t in _by_number(disturbed)] == [t.value for t in _by_number(undisturbed)]
    a, b = (rlgrad.load(tmp_path / x / "s" / "trials" / "0001" / "seed3", verbose=False) for x in "ab")
    for one, other in zip(a.policy.variables, b.policy.variables, strict=True):
        assert_array_equal(one, other)


def test_what_a_study_side_by_side_cannot_do_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="asks for workers or learners of each"):
        tune(Config(**{**vars(CONFIG), "workers": 2}), tmp_path / "s", space=SPACE, workers=2)
    with pytest.raises(ValueError, match="where trials run side by side, and none do: set workers"):
        tune(CONFIG, tmp_path / "s", space=SPACE, ray_address="auto")
    assert main(["tune", "cartpole", "--workers", "0"]) == 2
