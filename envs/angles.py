"""Angles of any number of turns, brought into one turn around 0."""

import math
from typing import Any

import tensorflow as tf


def wrapped(angle: Any) -> tf.Tensor:
    """Return the same angle in [−π, π]. An angle in that range is returned unchanged, to the bit."""
    turns = tf.floor((angle + math.pi) / (2 * math.pi))
    return tf.clip_by_value(angle - 2 * math.pi * turns, -math.pi, math.pi)
