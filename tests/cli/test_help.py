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
    sections = dict(re.findall(r"^## rlgrad (\w+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    assert [*sections] == sorted(sections, key=[*COMMANDS].index)
    assert sections.keys() == COMMANDS.keys()
    assert [name for name, text in sections.items() if f"rlgrad {name}" not in text] == []
