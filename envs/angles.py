"""Angles that turn round and round, as the same angle within half a turn."""

import math
from typing import Any

import tensorflow as tf


def wrapped(angle: Any) -> tf.Tensor:
    """The angle in [−π, π]. One that is there already stays as it is, to the bit."""
    turns = tf.floor((angle + math.pi) / (2 * math.pi))
    return tf.clip_by_value(angle - 2 * math.pi * turns, -math.pi, math.pi)
