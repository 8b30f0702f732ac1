"""The help: every command is listed, and has an example that its own parser takes."""

import contextlib
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from rlgrad.cli import COMMANDS, main

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"


def printed(capsys, *arguments):
    with contextlib.suppress(SystemExit):
        assert main([*arguments]) == 0
    return capsys.readouterr().out


def test_the_help_lists_every_command(capsys):
    listed = printed(capsys, "--help").partition("Examples:")[0]
    assert [name for name in COMMANDS if not re.search(rf"(^  |\| ){name}\b", listed, re.MULTILINE)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples_in_its_help(command, capsys):
    examples = printed(capsys, command, "--help").partition("Example")[2]
    lines = [line.strip() for line in examples.splitlines() if re.search(rf"\brlgrad {command}\b", line)]
    assert lines
    for line in lines:
        if line.startswith("rlgrad ") and command not in ("train", "completion"):
            import_module(COMMANDS[command]).parser().parse_args(shlex.split(line)[2:])


def test_the_page_on_the_command_line_has_a_section_and_an_example_for_every_command():
    sections = dict(re.findall(r"^## rlgrad ([\w-]+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    assert [*sections] == sorted(sections, key=[*COMMANDS].index)
    assert sections.keys() == COMMANDS.keys()
    assert [name for name, text in sections.items() if f"rlgrad {name}" not in text] == []


def options_of(command):
    return [action for action in import_module(COMMANDS[command]).parser()._actions if action.option_strings]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("train", "tune")])
def test_every_option_that_takes_a_whole_number_takes_1e5(command):
    """`int` would refuse it. The options of `train` are declared as fields, which take it; see test_counts_*."""
    assert [action.option_strings for action in options_of(command) if action.type is int] == []


def test_an_option_is_written_in_one_way_in_all_commands():
    written = {}
    for command in COMMANDS:
        if command in ("train", "tune"):  # their parsers here complete words, and show no values
            continue
        for action in options_of(command):
            shown = (action.metavar, action.nargs, (action.help or "").partition(" (default")[0].partition(",")[0])
            written.setdefault(action.option_strings[0], {})[command] = shown
    alike = ("--env-kwargs", "--max-episode-steps", "--checkpoint", "--trust", "--json", "--env")
    assert [written[name] for name in alike if len(set(written[name].values())) > 1] == []
    assert len(written["--env-kwargs"]) >= 4


@pytest.mark.parametrize(
    ("words", "steps"),
    [(["1e5"], 100_000), (["2.5e5"], 250_000), (["1.2345e4"], 12_345), (["250000"], 250_000), (["1E+3"], 1000)],
)
def test_counts_are_taken_as_people_write_them(words, steps):
    from rlgrad.cli.commands.train import parse_command

    config, folder = parse_command(
        ["cartpole", "--total-timesteps", *words, "--run-dir", "1e5", "--agent.num-envs=1e1"]
    )
    assert (config.total_timesteps, str(folder), config.agent.num_envs) == (steps, "1e5", 10)
    assert parse_command(["cartpole", "--run-dir=1e5"])[1] == Path("1e5")


def test_half_a_step_is_no_count(capsys):
    from rlgrad.cli.commands.train import parse_command

    with pytest.raises(SystemExit):
        parse_command(["cartpole", "--total-timesteps", "1.23456e4"])
    assert "1.23456e4" in capsys.readouterr().err
