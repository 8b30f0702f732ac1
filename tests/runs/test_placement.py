"""A fixed rule says where a run computes."""

import logging
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

import rlgrad
from rlgrad.runs.placement import device_for

VECTOR, IMAGE = spaces.Box(-1, 1, (4,)), spaces.Box(0, 255, (84, 84, 4), np.uint8)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is there in name only; what is asked of it."""
    asked = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [SimpleNamespace(name="gpu")])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, on: asked.append((gpu.name, on)))
    return asked


@pytest.mark.parametrize(
    ("space", "hidden_sizes", "models", "expected"),
    [
        (VECTOR, (64, 64), [], "CPU:0"),
        (VECTOR, (), [], "CPU:0"),
        (VECTOR, (64, 512), [], "GPU:0"),
        (IMAGE, (64, 64), [], "GPU:0"),
        (spaces.Dict(a=VECTOR, b=IMAGE), (64,), [], "GPU:0"),
        (VECTOR, (64,), [keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])], "CPU:0"),
        (VECTOR, (64,), [keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000)])], "GPU:0"),
        (VECTOR, (64,), [lambda: None], "CPU:0"),
    ],
)
def test_only_what_is_large_goes_to_the_gpu_which_takes_memory_as_it_needs_it(
    gpu, caplog, space, hidden_sizes, models, expected
):
    with caplog.at_level(logging.INFO, logger="rlgrad"):
        assert device_for(space, hidden_sizes, models) == expected
    assert gpu == [("gpu", True)]
    assert ("stays on the CPU" in caplog.text) == (expected == "CPU:0")


def test_without_a_gpu_nothing_is_said(caplog, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    with caplog.at_level(logging.INFO, logger="rlgrad"):
        assert device_for(IMAGE, (1024,)) == "CPU:0"
    assert not caplog.text


def test_a_run_computes_where_its_config_says(tmp_path):
    run = rlgrad.train(
        "a2c", "CartPole-v1", total_timesteps=80, run_dir=tmp_path / "run", evaluation_episodes=0, verbose=False
    )
    assert "device: CPU:0" in (run.path / "config.yaml").read_text()
    assert run.policy.trainable_variables[0].value.device.endswith("CPU:0")
