import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import pytest


@pytest.fixture
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Runs without a folder, and files, are left where they are in nobody's way."""
    monkeypatch.chdir(tmp_path)
