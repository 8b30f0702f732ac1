"""Functions that AutoGraph leaves as they are written."""

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

F = TypeVar("F", bound=Callable[..., Any])


def as_written(function: F) -> F:
    """Return a function that a caller's `tf.function` does not rewrite, nor anything that it calls.

    Nothing in rlgrad needs Python's `if` and `for` turned into TensorFlow's, and rewriting its functions one by one takes a
    hundred times as long as tracing them.
    """
    wrapped: F = tf.autograph.experimental.do_not_convert(function)
    return wrapped
