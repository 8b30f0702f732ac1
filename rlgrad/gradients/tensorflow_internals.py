"""Everything that relies on TensorFlow behavior which TensorFlow does not promise. A test of this file's name pins it.

What is relied on: a concrete function has `_call_flat(tensors, captured_inputs)`, which runs it on flat inputs and is what
a gradient tape sees (`flat_call`).
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def flat_call(function: Any) -> Callable[[list[Any]], list[Any]]:
    """A concrete function that returns a list as one of its flat inputs, whose dtypes and shapes the caller has made sure of.

    To call it as TensorFlow documents binds the arguments to the signature and casts each of them, which takes some
    0.04 ms: half as long as a small network takes to run. A TensorFlow without the shorter way is called as documented.
    """
    run, captured = getattr(function, "_call_flat", None), function.captured_inputs

    def call(tensors: list[Any]) -> list[Any]:
        flat = [tensor if isinstance(tensor, tf.Tensor) else tf.convert_to_tensor(tensor) for tensor in tensors]
        results: list[Any] = function(flat) if run is None else run(flat, captured)
        return results

    return call
