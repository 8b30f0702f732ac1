"""Run folders that are not there, as the command line is given them."""

import pytest

from rlgrad.cli import main


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs beside each other, one in the current folder, and what is none."""
    for name in ("runs/a", "runs/b", "here", "runs/empty"):
        (tmp_path / name).mkdir(parents=True)
        if name != "runs/empty":
            (tmp_path / name / "config.yaml").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("runs/c", " There: runs/a, runs/b."),
        ("runs/empty", " There: runs/a, runs/b."),
        ("nowhere/c", " There: here."),  # of a folder that is not there either, what the current one holds
        ("runs/a/c", ""),
    ],
)
def test_a_run_that_is_not_there_is_said_with_those_that_are(runs, asked, hint, capsys):
    assert main(["evaluate", asked]) == 2
    assert capsys.readouterr().err == f"rlgrad: {asked} is no run folder: it has no config.yaml.{hint}\n"
