"""`--json`: one document on stdout, which any parser of JSON reads, and nothing else there."""

import contextlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rlgrad.cli import COMMANDS, main
from rlgrad.cli.output import Result, Table, plain, show

QUICK = ["--total-timesteps", "256", "--num-envs", "2", "--num-steps", "32", "--evaluation-episodes", "2"]
QUICK += ["--vectorization-mode", "sync"]


pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def constant(text):
    raise AssertionError(f"{text} is no JSON")


def document(capfd, *arguments):
    """What a command prints, which must be one document."""
    capfd.readouterr()
    main([*arguments, "--json"])
    return json.loads(capfd.readouterr().out, parse_constant=constant)


def test_training_prints_one_document_and_nothing_else_on_stdout(capfd):
    assert main(["train", "reinforce", "CartPole-v1", *QUICK, "--run-dir", "r", "--json"]) == 0
    captured = capfd.readouterr()
    trained = json.loads(captured.out, parse_constant=constant)
    assert (trained["run"], trained["timesteps"], trained["agent"]) == ("r", 256, "reinforce")
    assert trained["evaluation"]["greedy"]["episodes"] == 2
    assert "Reinforce on CartPole-v1" in captured.err  # the progress and the log


def test_every_other_command_prints_one_document_and_nothing_else(capfd, finished):
    finished("reinforce", name="r")
    assert document(capfd, "resume", "r", "--total-timesteps", "640")["timesteps"] == 640
    assert document(capfd, "evaluate", "r", "--episodes", "3")["sampled"]["episodes"] == 3
    assert document(capfd, "plot", "r")["output"] == "r/learning_curve.png"
    assert document(capfd, "compare", "r")[0]["seeds"] == [0]
    assert document(capfd, "record", "r", "--output", "f.gif", "--max-steps", "3")["output"] == "f.gif"
    assert document(capfd, "inspect", "r")["unit"] == "step"
    assert document(capfd, "watch", "r", "--output", "e.gif")["output"] == "e.gif"
    assert document(capfd, "check", "CartPole-v1", "--steps", "50")[0]["level"]
    assert "cartpole" in [config["name"] for config in document(capfd, "configs")]
    assert "ppo" in [agent["name"] for agent in document(capfd, "agents")]
    assert "CartPole-v1" in [env["id"] for env in document(capfd, "envs")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "nowhere"], "no run folder"),
        (["train"], "usage: rlgrad train"),
        (["plot"], "the following arguments are required"),
    ],
)
def test_a_mistake_leaves_stdout_empty(arguments, expected, capfd):
    with contextlib.suppress(SystemExit):
        assert main([*arguments, "--json"]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert expected in captured.err


def test_what_a_library_writes_to_the_file_of_stdout_goes_to_stderr():
    code = """
import os
from rlgrad.cli.output import Result, show, stdout_to_stderr
with stdout_to_stderr():
    os.write(1, b"from C\\n")
    print("from Python")
    os.system("echo from a process")
show(Result({"a": 1}), as_json=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert json.loads(done.stdout) == {"a": 1}
    assert sorted(done.stderr.split("\n")) == ["", "from C", "from Python", "from a process"]


def test_what_is_not_finite_is_null():
    given = {"nan": float("nan"), "array": np.array([1.0, np.inf]), "number": np.float32(2), "row": (1, None)}
    assert plain(given) == {"nan": None, "array": [1.0, None], "number": 2.0, "row": [1, None]}


def test_a_table_is_aligned_lines_where_there_is_no_terminal(capsys):
    show(Result(None, ["Before.", Table([("a", "1"), ("bcd", "22")], ("name", "n"), right=(1,))]), as_json=False)
    assert capsys.readouterr().out == "Before.\nname   n\na      1\nbcd   22\n"


def test_a_table_in_a_terminal_shows_brackets_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    show(Result(None, [Table([("a[0]", "1"), ("b", "22")], right=(1,))]), as_json=False)
    assert "a[0]   1" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_says_so(command, capsys):
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    assert "--json" in capsys.readouterr().out
