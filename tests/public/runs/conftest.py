"""The models of these tests have the same weights each time, and their runs a folder of their own."""

import keras
import pytest


@pytest.fixture(autouse=True)
def same_weights_elsewhere(tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    monkeypatch.chdir(tmp_path)
