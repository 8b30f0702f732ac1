"""The space of stored observations, for encoders whose observations are not arrays of a fixed shape themselves."""

from typing import Any

import numpy as np
from gymnasium import spaces

from rlgrad.spaces.encoder import Encoder


class ArraySpace(spaces.Box):
    """The arrays that an encoder stores for another space. An environment that is wrapped for training has it.

    Args:
        encoder: whose `to_array` makes them.

    Attributes:
        encoder: the same.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        shape, dtype = encoder.layout()
        low, high = encoder.range() or _widest(np.dtype(dtype))
        super().__init__(np.full(shape, low, dtype), np.full(shape, high, dtype), shape, dtype)

    def seed(self, seed: Any = None) -> Any:
        """Seed the samples."""
        return self.encoder.space.seed(seed)

    def sample(self, *arguments: Any, **options: Any) -> Any:
        """Return a random observation of the other space as it is stored."""
        return stored(self.encoder, self.encoder.space.sample(*arguments, **options))

    def __eq__(self, other: object) -> bool:
        """Compare the other spaces, and the classes of the encoders."""
        return (
            isinstance(other, ArraySpace)
            and self.encoder.place == other.encoder.place
            and bool(self.encoder.space == other.encoder.space)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ArraySpace({self.encoder.space})"


def stored(encoder: Encoder, observation: Any) -> Any:
    """Return one observation as an array of the encoder's layout.

    Raises:
        ValueError: the observation is no value of its space, or `to_array` gives another shape.
    """
    if not encoder.space.contains(observation):
        raise ValueError(f"An observation is a value of {encoder.space}, got {observation!r}.")
    shape, dtype = encoder.layout()
    array = np.asarray(encoder.to_array(observation))
    if array.shape != shape:
        raise ValueError(
            f"{type(encoder).__name__}.to_array gives shape {array.shape}, and its layout says {shape}: make them agree."
        )
    return array.astype(dtype, copy=False)


def _widest(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return -np.inf, np.inf
    return (False, True) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
