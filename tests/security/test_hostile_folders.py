"""Every command that reads a run folder, over a corpus of folders that a stranger made.

None executes anything of theirs or writes outside of the folder, and each ends in its result or in one sentence. The whole
cross product is slow; one or two commands of each folder belong to every run of the tests.
"""

import contextlib
import logging
import shutil
import zlib

import pytest
from helpers.hostile import CORPUS, LOADING, READING, REPEATING, Scene

import rlgrad
from rlgrad.cli import main

COMMANDS = {
    "evaluate": ["evaluate", "theirs", "--episodes", "1"],
    "resume": ["resume", "theirs", "--total-timesteps", "48"],
    "inspect": ["inspect", "theirs"],
    "export": ["export", "theirs", "--format", "keras"],
    "watch": ["watch", "theirs", "--max-steps", "3"],
    "record": ["record", "theirs", "--max-steps", "3"],
    "repeat": ["train", "--from", "theirs", "--run-dir", "again"],
    "train": ["train", "theirs/config.yaml", "--run-dir", "again"],
    "tune": ["tune", "--from", "theirs", "--trials", "1", "--episodes", "1"],
    "plot": ["plot", "theirs"],
    "compare": ["compare", "theirs"],
}
SMALL = {"total_timesteps": 32, "num_envs": 2, "num_steps": 8, "hidden_sizes": (4,), "vectorization_mode": "sync"}
SMALL |= {"evaluation_episodes": 1, "logs": ("csv", "tensorboard"), "max_episode_steps": 20}


@pytest.fixture
def logging_as_before():
    """`rlgrad train` sets up logging for its process, with streams that end with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def scene(trained, tmp_path, monkeypatch, logging_as_before):
    """A stranger's folder, `theirs`, in the current folder, which is on Python's path as `python -m` puts it."""
    shutil.copytree(trained("a2c", **SMALL), tmp_path / "theirs")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "bashrc").write_text("alias ll='ls -l'\n")
    (tmp_path / "outside" / "config.yaml").write_text((tmp_path / "theirs" / "config.yaml").read_text())
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home" / "state"))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return Scene(tmp_path / "theirs", tmp_path / "outside")


def state_of(scene):
    """Every file around the folder, with its content."""
    mine = [path for path in scene.folder.parent.rglob("*") if not path.is_relative_to(scene.folder)]
    kept = [
        path
        for path in mine
        if path.relative_to(scene.folder.parent).parts[0] not in ("again", "tuning", "comparison.png")
    ]
    return {
        str(path): path.read_bytes() if path.is_file() else None for path in kept if "__pycache__" not in path.parts
    }


def outcome(command, capsys):
    """Run a command. Return its status, and the lines on stderr that are no warnings."""
    if command == "load":
        with contextlib.suppress(ValueError, OSError, ImportError):
            rlgrad.load("theirs", verbose=False).close()
            return 0, []
        return 2, ["rlgrad: refused"]
    try:
        status = main(COMMANDS[command])
    finally:
        said = capsys.readouterr().err
    return status, [line for line in said.splitlines() if line.startswith(("rlgrad:", "Traceback"))]


def walk(scene, name, commands, capsys):
    case = CORPUS[name]
    case.make(scene)
    before = state_of(scene)
    for command in commands:
        status, said = outcome(command, capsys)
        what = f"{name}, {command}: status {status}, {said}"
        assert not (scene.folder.parent / "executed").exists(), what
        assert state_of(scene) == before, what
        if status:
            assert [line[:8] for line in said] == ["rlgrad: "], what
            assert len(said[0]) < 2000, what
        if command in case.refused_by:
            assert status in (1, 2), what


def chosen(name):
    """One command that loads the folder and one other, by the name of the case, so that all are used."""
    number = zlib.crc32(name.encode())
    quick = [command for command in LOADING if command not in ("watch", "record", "export", "resume")]
    return [quick[number % len(quick)], (*REPEATING, *READING)[number % 5]]


def test_the_corpus_is_as_large_as_is_promised():
    assert len(CORPUS) >= 60


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_folder_executes_nothing_and_writes_nothing_outside(name, scene, capsys):
    refusing = CORPUS[name].refused_by
    walk(
        scene,
        name,
        [command for command in chosen(name) if command in refusing] or refusing[:1] or ["evaluate"],
        capsys,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_every_command_over_every_hostile_folder(name, scene, capsys):
    walk(scene, name, [*READING, *LOADING, *REPEATING], capsys)
