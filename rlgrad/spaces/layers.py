"""Dense layers with orthogonal initial weights, and the convolutions for pictures.

| picture | layers |
|---|---|
| sides ≥ 36 | Nature CNN: 32 of 8×8 by 4, 64 of 4×4 by 2, 64 of 3×3, dense 512 |
| smaller; sides ≥ 5 | MinAtar CNN: 16 of 3×3, dense 128 |

Source: orthogonal weights of gain √2 follow Andrychowicz et al. (2021); the CNNs, Mnih et al. (2015) and Young & Tian (2019).
"""

import math
from typing import Any

import numpy as np

from rlgrad import random

GAIN = math.sqrt(2.0)
_NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512
_MINATAR = ((16, 3, 1),), 128


def dense(units: int, activation: str, gain: float, seed: np.random.SeedSequence, name: str) -> Any:
    """Return a dense layer with orthogonal initial weights.

    Args:
        units: its width.
        activation: a Keras name.
        gain: scale of the weights.
        seed: for the weights.
        name: of the layer.
    """
    import keras

    return keras.layers.Dense(units, activation, kernel_initializer=_orthogonal(gain, seed), name=name)


def is_picture(shape: tuple[int, ...]) -> bool:
    """Return whether a shape is (H, W, C), (C, H, W), or frames of either, with sides of at least 5."""
    if len(shape) not in (3, 4):
        return False
    picture = shape[-3:] if len(shape) == 3 else shape[1:]
    return sorted(picture)[1] >= 5 and picture[1] >= 5


def picture_features(x: Any, seed: np.random.SeedSequence, name: str | None) -> Any:
    """Return features (N, width) of pictures, a Keras tensor (N, *shape) for which `is_picture(shape)` holds.

    Args:
        x: the pictures.
        seed: for the initial weights.
        name: of the leaf, which begins the layers' names; `None`: they need no prefix.
    """
    import keras

    prefix = "" if name is None else f"{name}_"
    if len(x.shape) == 5:  # frames (F, H, W, C) or (F, C, H, W): side by side as channels
        x = keras.layers.Permute((2, 3, 1, 4) if x.shape[4] < x.shape[2] else (3, 4, 1, 2))(x)
        x = keras.layers.Reshape((*x.shape[1:3], x.shape[3] * x.shape[4]))(x)
    elif x.shape[1] < min(x.shape[2:]):  # channels first
        x = keras.layers.Permute((2, 3, 1))(x)
    convolutions, width = _NATURE if min(x.shape[1:3]) >= 36 else _MINATAR
    for i, (filters, size, stride) in enumerate(convolutions):
        initializer = _orthogonal(GAIN, random.child(seed, i))
        convolution = keras.layers.Conv2D(
            filters, size, stride, activation="relu", kernel_initializer=initializer, name=f"{prefix}conv_{i + 1}"
        )
        x = convolution(x)
    flat = keras.layers.Flatten()(x)
    return dense(width, "relu", GAIN, random.child(seed, len(convolutions)), f"{prefix}features")(flat)


def _orthogonal(gain: float, seed: np.random.SeedSequence) -> Any:
    import keras

    return keras.initializers.Orthogonal(gain, seed=random.integer_seed(seed))
