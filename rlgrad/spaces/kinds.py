"""The kinds of observations that rlgrad encodes by itself, one class each, and the table of them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from rlgrad.spaces import layers
from rlgrad.spaces.encoder import Array, Encoder, as_float32

_BYTE = 255


class BoxEncoder(Encoder):
    """Numbers are flattened; pictures go through convolutions (`rlgrad.spaces.layers`); bytes become shares of 255."""

    serves = spaces.Box

    def prepare(self, x: Any) -> Any:
        """Return float32."""
        import keras

        x = keras.ops.cast(x, "float32")
        return x / 255.0 if self._holds_bytes() else x

    def numpy_prepare(self) -> Callable[[Array], Array]:
        """Return the same for NumPy arrays."""
        return _share if self._holds_bytes() else as_float32

    def encode(self, x: Any, seed: np.random.SeedSequence, name: str | None) -> list[Any]:
        """Return the features of a picture, or the numbers in one row."""
        import keras

        return [layers.picture_features(x, seed, name) if self.is_deep() else keras.layers.Flatten()(x)]

    def flattens(self) -> bool:
        """Return whether this is no picture."""
        return not self.is_deep()

    def is_deep(self) -> bool:
        """Return whether this is a picture, whose convolutions end in a dense layer."""
        return layers.is_picture(self.space.shape)

    def prefers_gpu(self) -> bool:
        """Return whether there are as many axes as a picture has."""
        return len(self.space.shape) >= 3

    def _holds_bytes(self) -> bool:
        return bool(self.space.dtype == np.uint8 and self.space.high.max() == _BYTE)


class _ChoiceEncoder(Encoder):
    """Choices stay integers up to the network, which makes one-hot vectors of them."""

    def prepare(self, x: Any) -> Any:
        """Return int32."""
        import keras

        return keras.ops.cast(x, "int32")

    def numpy_prepare(self) -> Callable[[Array], Array]:
        """Return float32, which a dense layer makes of integers."""
        return as_float32


class DiscreteEncoder(_ChoiceEncoder):
    """One choice: a one-hot vector."""

    serves = spaces.Discrete

    def range(self) -> tuple[int, int]:
        """Return the first and the last choice."""
        return int(self.space.start), int(self.space.start + self.space.n) - 1

    def encode(self, x: Any, seed: np.random.SeedSequence, name: str | None) -> list[Any]:
        """Return one one-hot vector."""
        import keras

        return [keras.ops.one_hot(x - int(self.space.start), int(self.space.n))]


class MultiDiscreteEncoder(_ChoiceEncoder):
    """Several choices: a one-hot vector each."""

    serves = spaces.MultiDiscrete

    def range(self) -> tuple[Array, Array]:
        """Return the first and the last choice of each."""
        return self.space.start, self.space.start + self.space.nvec - 1

    def encode(self, x: Any, seed: np.random.SeedSequence, name: str | None) -> list[Any]:
        """Return a one-hot vector for each choice."""
        import keras

        choices = keras.ops.reshape(x, (-1, math.prod(self.space.shape)))
        counts, start = self.space.nvec.reshape(-1), self.space.start.reshape(-1)
        return [keras.ops.one_hot(choices[:, i] - int(start[i]), int(n)) for i, n in enumerate(counts)]


class MultiBinaryEncoder(_ChoiceEncoder):
    """Switches: 0 and 1."""

    serves = spaces.MultiBinary

    def range(self) -> tuple[int, int]:
        """Return 0 and 1."""
        return 0, 1

    def encode(self, x: Any, seed: np.random.SeedSequence, name: str | None) -> list[Any]:
        """Return the switches in one row, as floats."""
        import keras

        return [keras.ops.cast(keras.ops.reshape(x, (-1, math.prod(self.space.shape))), "float32")]


KINDS: dict[type[Space[Any]], type[Encoder]] = {
    kind.serves: kind for kind in (BoxEncoder, DiscreteEncoder, MultiDiscreteEncoder, MultiBinaryEncoder)
}


def _share(x: Array) -> Array:
    return x.astype(np.float32) / np.float32(_BYTE)
