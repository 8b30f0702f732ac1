"""The help: every command is listed, and has an example that its own parser takes."""

import contextlib
import re
import shlex
from importlib import import_module

import pytest

from rlgrad.cli import COMMANDS, main


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
