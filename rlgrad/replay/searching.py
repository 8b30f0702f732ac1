"""A search by halves, many at once, as part of a compiled program."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def last_where(holds: Callable[[Any], Any], most: Any, bound: int) -> Any:
    """Return the greatest k of 1 … `most` for which something holds that holds for 1 and, once it fails, fails ever after.

    Args:
        holds: from int32 (M,) to bool (M,).
        most: int32 (M,), at least 1.
        bound: no `most` is greater.
    """
    low, high = tf.ones_like(most), most
    for _ in range(bound.bit_length()):
        middle = (low + high + 1) // 2
        found = holds(middle)
        low, high = tf.where(found, middle, low), tf.where(found, high, tf.maximum(middle - 1, low))
    return low
