"""The models of these tests have the same weights each time."""

import keras
import pytest


@pytest.fixture(autouse=True)
def same_weights():
    keras.utils.set_random_seed(0)
