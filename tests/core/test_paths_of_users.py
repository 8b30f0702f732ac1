"""A path is a text or a path; of a run its folder is told."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlgrad.config import Config
from rlgrad.core.checks import path_of


def test_a_path_is_a_text_or_a_path_and_a_tilde_is_the_home():
    assert path_of("runs/a", "path") == path_of(Path("runs/a"), "path") == Path("runs/a")
    with os.scandir(".") as entries:
        assert all(path_of(entry, "path") == Path(entry.name) for entry in entries)
    assert path_of("~/a", "path") == Path.home() / "a"


@pytest.mark.parametrize("value", [None, 3, b"runs/a", ["runs/a"]])
def test_anything_else_is_none_and_the_argument_is_named(value):
    with pytest.raises(TypeError, match=r"^run_dir is a path, such as 'runs/a', got .*\.$"):
        path_of(value, "run_dir")


def test_of_a_run_its_folder_is_told():
    with pytest.raises(TypeError, match=r"Its folder is its attribute path, 'runs/b'\.$"):
        path_of(SimpleNamespace(path=Path("runs/b")), "path")
    with pytest.raises(TypeError, match=r"^init_from is a path.*'runs/b'\.$"):
        Config(agent=None, env="CartPole-v1", total_timesteps=1, init_from=SimpleNamespace(path=Path("runs/b")))
