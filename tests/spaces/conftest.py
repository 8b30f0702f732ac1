"""A module and a package outside of the tree that bring an encoder."""

import sys

import pytest
from helpers.reading import MODULE

from rlgrad.spaces import table


@pytest.fixture(autouse=True)
def nothing_is_registered(monkeypatch):
    monkeypatch.setattr(table, "_registered", {})
    table._kind_of.cache_clear()
    yield
    table._kind_of.cache_clear()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A module outside of the tree, with the environment and its encoder."""
    home = tmp_path / "site"
    home.mkdir()
    (home / "reading.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(home))
    yield home
    sys.modules.pop("reading", None)


@pytest.fixture
def package(home):
    """A distribution outside of the tree, which brings the encoder under a name of its own."""
    metadata = home / "reading-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: reading\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[rlgrad.encoders]\nletters = reading:Letters\n")
    return home
