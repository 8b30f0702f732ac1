"""Initial weights most of which are zero, for networks that learn from one step at a time."""

import math
from typing import Any

import keras
import numpy as np


class Sparse(keras.initializers.Initializer):
    """Uniform numbers within ±1/√fan_in, of which a share of each unit's inputs is 0: the same number of them for each unit.

    Args:
        share: of zeros, 0 to 1; ⌈share · fan_in⌉ inputs of each unit, but one at least stays. (With a share of 0.9 and fewer
            than ten inputs, the authors' code leaves none.)
        seed: an integer.

    Source: Elsayed, Vasan & Mahmood (2024), "Streaming deep reinforcement learning finally works", algorithm 1.
    """

    def __init__(self, share: float, seed: int) -> None:
        self.share, self.seed = share, seed

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Return a kernel (…, inputs, units)."""
        generator = np.random.default_rng(self.seed)
        fan_in, units = math.prod(shape[:-1]), shape[-1]
        numbers = generator.uniform(-1.0, 1.0, (fan_in, units)) / math.sqrt(fan_in)
        # The first inputs of a random order, drawn anew for each unit.
        order = generator.random((fan_in, units)).argsort(axis=0).argsort(axis=0)
        numbers[order < min(math.ceil(self.share * fan_in), fan_in - 1)] = 0.0
        return keras.ops.convert_to_tensor(numbers.reshape(shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"share": self.share, "seed": self.seed}
