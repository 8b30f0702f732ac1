"""Which updates XLA compiles, and the fallback to a plain graph for models that it cannot compile."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import keras
import tensorflow as tf

from rlgrad.policies import actors
from rlgrad.policies.recurrent import RecurrentPolicy
from rlgrad.updates import Update

LARGE = 2**18  # benchmarks/results/sizes.md
"""Numbers of the smallest weight whose products TensorFlow's own kernels compute sooner on a CPU."""

_log = logging.getLogger("rlgrad")
_Result = TypeVar("_Result")


def update_gains_from_xla(policy: keras.Model, update: Update, variables: Sequence[keras.Variable]) -> bool:
    """Return whether XLA makes an update faster; what was not measured counts as such.

    On a CPU it makes convolutions slower, and gradients of large weights, whose products take nearly all of the time.

    Args:
        policy: is trained.
        update: moves it.
        variables: what is moved.
    """
    if not actors.gains_from_xla(policy):
        return False
    measured = update.needs_only_gradients and not isinstance(policy, RecurrentPolicy)
    large = any(math.prod(v.shape) >= LARGE for v in variables)
    return not (measured and large) or bool(tf.config.list_physical_devices("GPU"))


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
