"""The line in the terminal, and what is written while it is there."""

import logging
import re
import sys
from types import SimpleNamespace

import pytest

from rlgrad.logs import progress as lines
from rlgrad.logs.progress import Progress

METRICS = {"train/return": 12.34, "time/seconds": 130.0}
FIRST = METRICS | {"time/seconds": 30.0}  # with the seconds of compiling


@pytest.fixture
def run(tmp_path):
    config = SimpleNamespace(agent=SimpleNamespace(num_envs=8), env_name="Task-v1", total_timesteps=400_000)
    return SimpleNamespace(path=tmp_path, config=config, timesteps=0)


def states(text):
    """What a terminal shows of it one after the other, without colors."""
    return [state.rstrip() for state in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text))]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    monkeypatch.setenv("COLUMNS", "100")


def test_a_terminal_shows_steps_rate_return_and_the_time_that_is_left(run, terminal, capsys):
    progress = Progress()
    progress.on_start(run)
    progress.on_update(run, FIRST)
    run.timesteps = 10_000
    progress.on_update(run, METRICS)
    progress._bar.refresh()
    progress.on_end(run)
    shown = states(capsys.readouterr().out)
    during, after = [line for line in shown if " 10,000 of 400,000 steps  100 steps/s  return 12.3" in line][-2:]
    assert re.fullmatch(r"Task-v1 [━╸╺]+ .*return 12\.3  1:05:00 left", during)
    assert re.fullmatch(r"Task-v1 [━╸╺]+ .*return 12\.3", after)


def test_log_messages_come_above_the_bar_and_not_into_it(run, terminal, capsys):
    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    try:
        progress, stream = Progress(), handler.stream
        progress.on_start(run)
        assert handler.stream is not stream
        logging.getLogger().warning("something to say")
        progress.on_end(run)
        assert handler.stream is stream
    finally:
        logging.getLogger().removeHandler(handler)
    assert "something to say" in states(capsys.readouterr().out)


def test_what_is_no_terminal_gets_a_line_every_few_seconds(run, monkeypatch, capsys):
    monkeypatch.setattr(lines, "_PLAIN_EVERY", 0.0)
    progress = Progress()
    progress.on_start(run)
    run.timesteps = 1_000
    progress.on_update(run, FIRST)
    run.timesteps = 11_000
    progress.on_update(run, METRICS | {"train/return": float("nan")})
    progress.on_end(run)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  1,000 of 400,000 steps  return 12.3",  # there is no rate yet that would leave compiling out
        " 11,000 of 400,000 steps  100 steps/s  return –  1:04:50 left",
    ]


def test_nothing_is_left_of_a_run_whose_last_episodes_went_beyond_its_steps(run, monkeypatch, capsys):
    monkeypatch.setattr(lines, "_PLAIN_EVERY", 0.0)
    progress = Progress()
    progress.on_start(run)
    run.timesteps = 390_200
    progress.on_update(run, FIRST)
    run.timesteps = 400_200
    progress.on_update(run, METRICS)
    assert capsys.readouterr().out.endswith("400,200 of 400,000 steps  100 steps/s  return 12.3  0:00:00 left\n")
