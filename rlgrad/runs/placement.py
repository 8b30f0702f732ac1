"""The device that a run computes on: a fixed rule, never a measurement, since numbers depend on the device."""

import logging
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from gymnasium import spaces

from rlgrad.spaces.branches import leaves
from rlgrad.spaces.table import encoder_for

_log = logging.getLogger("rlgrad")

_WIDE = 512  # units of a hidden layer from which a GPU's arithmetic outweighs what it takes to start it
_MANY = 1_000_000  # weights of a model that was given, likewise


def device_for(observation_space: spaces.Space[Any], hidden_sizes: Sequence[int], models: Sequence[Any] = ()) -> str:
    """Return the device that a run computes on, and prepare its GPUs.

    A GPU, if there is one, computes for networks that see images, that have hidden layers of at least 512 units, or that are
    models of at least a million weights. Smaller networks stay on the CPU, where they take less time than starting a GPU's
    kernels.

    Args:
        observation_space: what the networks see.
        hidden_sizes: widths of the default networks.
        models: Keras models that were given, or functions that build them. The size of the latter is not known, nor that of a
            model that was never called.

    Returns:
        `"GPU:0"` or `"CPU:0"`.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow has begun to use it, the way the user wanted
            _log.debug("Memory growth of %s stays as it is.", gpu.name)
    weights = [model.count_params() for model in models if isinstance(model, keras.Model) and model.built]
    large = (
        max(hidden_sizes, default=0) >= _WIDE or max(weights, default=0) >= _MANY or _gains_from_gpu(observation_space)
    )
    if gpus and not large:
        _log.info("There is a GPU; this run stays on the CPU, where networks this small are faster.")
    return "GPU:0" if gpus and large else "CPU:0"


def _gains_from_gpu(space: spaces.Space[Any]) -> bool:
    return any(encoder_for(leaf).prefers_gpu() for _, leaf in leaves(space))
