"""The steps of one episode: their credits, values and returns."""

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
ERROR = "δ"
"""The name of a streaming agent's error, which multiplies all that its credits made eligible."""


class StepCredits(NamedTuple):
    """The credits of an episode of T steps.

    Attributes:
        credits: by output, those that differ from step to step, float (T,): of quantiles and of several critics the mean, of
            atoms by how much the expectation would rise, of a vector its length. Of a streaming agent `ERROR` alone.
        values: v(s), or q(s)[a] of agents that have one, float (T,). `None`: nothing says a value.
        returns: discounted rewards from each step on, with the value of the last observation where the episode was cut,
            float (T,). `None`: it was cut, and nothing says that value.
    """

    credits: dict[str, Array]
    values: Array | None
    returns: Array | None
