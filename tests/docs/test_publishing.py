"""The page's package is built, installed into an environment of its own, and found by the command line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "agents" / "publishing.md").read_text()


def file_of(page, name, language):
    """The block that follows the sentence that begins with the file's name."""
    return re.search(rf"^`{re.escape(name)}`.*?^```{language}\n(.*?)^```", page, re.S | re.M).group(1)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Variables of an environment in which the package is installed beside everything that is here."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, language in (("pyproject.toml", "toml"), ("rlgrad_better_only.py", "python")):
        (source / name).write_text(file_of(PAGE, name, language))
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", target, source], check=True)
    return os.environ | {"PYTHONPATH": str(target), "TF_CPP_MIN_LOG_LEVEL": "3"}


def rlgrad(arguments, environment, folder):
    command = [sys.executable, "-m", "rlgrad.cli", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_published_agent_is_found_by_its_name_with_its_docstring(installed, tmp_path):
    listed = rlgrad(["agents"], installed, tmp_path)
    assert re.search(r"^better_only +Learns from what went better than expected\.$", listed, re.M)
    assert re.search(r"^reinforce ", listed, re.M)


@pytest.mark.slow
def test_a_published_agent_is_trained_by_its_name_and_its_run_loads(installed, tmp_path):
    command = re.search(r"^rlgrad (train better_only .*)$", PAGE, re.M).group(1).split()
    command[command.index("--total-timesteps") + 1] = "512"
    output = rlgrad([*command, "--evaluation-episodes", "2", "--run-dir", "run"], installed, tmp_path)
    assert re.search(r"CartPole-v1 is not solved yet after [45]\d\d steps", output)
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "name: better_only" in config
    assert "margin: 0.1" in config
    assert "over 2 fresh episodes" in rlgrad(["evaluate", "run", "--episodes", "2"], installed, tmp_path)
