"""Recurrent cells that can remember before they have learned anything.

A gate that starts half open halves what is remembered at each step, and with it the gradient that could teach the gate to stay
open: after 20 steps a millionth is left. So the gates of the units start with time scales that are spread over 1 … 100 steps.

Source: Tallec & Ollivier (2018), "Can recurrent neural networks warp time?", section 3 ("chrono initialization").
"""

from typing import Any, Literal

import keras
import numpy as np

from rlgrad import random

_LONGEST = 100  # steps


def cell(kind: Literal["gru", "lstm"], units: int, seed: np.random.SeedSequence) -> keras.layers.Layer:
    """A Keras cell, one step of a memory.

    Args:
        kind: which.
        units: that it has.
        seed: for the initial weights.
    """
    kernel, recurrent = (
        keras.initializers.Orthogonal(seed=random.integer_seed(random.child(seed, i))) for i in range(2)
    )
    scales = np.random.default_rng(random.child(seed, 2)).uniform(1.0, _LONGEST - 1.0, units)
    keeps, zeros = np.log(scales), np.zeros(units)
    options = {"kernel_initializer": kernel, "recurrent_initializer": recurrent, "name": kind}
    options["seed"] = random.integer_seed(random.child(seed, 3))  # of a dropout that is 0, but a variable all the same
    if kind == "gru":  # gates: update (how much is kept), reset, candidate; a second row for the recurrent part
        bias = np.stack([np.concatenate([keeps, zeros, zeros]), np.zeros(3 * units)])
        return keras.layers.GRUCell(units, bias_initializer=_Given(bias), **options)
    bias = np.concatenate([-keeps, keeps, zeros, zeros])  # gates: input, forget, candidate, output
    return keras.layers.LSTMCell(units, bias_initializer=_Given(bias), unit_forget_bias=False, **options)


class _Given(keras.initializers.Initializer):
    """Numbers that are known."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values).tolist()

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return keras.ops.reshape(keras.ops.convert_to_tensor(self.values, dtype), shape)

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values}
