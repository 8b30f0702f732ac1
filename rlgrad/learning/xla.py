"""The fallback from XLA to a plain graph, for models that XLA cannot compile."""

import logging
from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

_log = logging.getLogger("rlgrad")
_Result = TypeVar("_Result")


def with_fallback(first_call: Callable[[bool], _Result], xla: bool, give_up: Callable[[], None]) -> _Result:
    """Trace, compile and run a program for the first time; as a plain graph, and say so, if XLA cannot compile it.

    Args:
        first_call: does all three, and is told whether to use XLA. XLA compiles when the program first runs.
        xla: use XLA if possible.
        give_up: called before the second try, to remember that XLA cannot be used.
    """
    try:
        return first_call(xla)
    except (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError) as error:
        if not xla:
            raise
        reason = str(error).splitlines()[0]
        _log.warning("XLA cannot compile this model; training runs as a plain graph. (%s)", reason)
    give_up()
    return first_call(False)
