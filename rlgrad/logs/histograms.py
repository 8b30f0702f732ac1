"""How a policy's weights are distributed, and what they changed by, as TensorBoard shows it."""

from typing import Any

import numpy as np

from rlgrad.gradients.questions.selection import keys_of
from rlgrad.logs import events
from rlgrad.policies.policy import Policy

BINS = 30
Arrays = dict[str, "np.ndarray[Any, Any]"]


class Histograms:
    """`weights/…` and `changes/…` of every trainable variable; a change is since the row before, or since the start."""

    def __init__(self) -> None:
        self._before: Arrays = {}

    def start(self, policy: Policy) -> None:
        """Count changes from the current weights."""
        self._before = _weights(policy)

    def summaries(self, policy: Policy) -> list[bytes]:
        """Return two encoded histograms for each variable."""
        now = _weights(policy)
        changes = {name: value - self._before[name] for name, value in now.items()}
        self._before = now
        return [
            _summary(f"{kind}/{name}", value)
            for kind, values in (("weights", now), ("changes", changes))
            for name, value in values.items()
        ]


def bins(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Return left edge, right edge and count of each bin, float64 (BINS, 3). Values that are not finite are not counted.

    Args:
        values: of any shape.
    """
    flat = np.asarray(values, np.float64).ravel()
    counts, edges = np.histogram(flat[np.isfinite(flat)], BINS)
    return np.stack([edges[:-1], edges[1:], counts], axis=1)


def _weights(policy: Policy) -> Arrays:
    trainable = {id(variable) for variable in policy.trainable_variables}
    return {key: variable.numpy() for variable, key in keys_of(policy) if id(variable) in trainable}


def _summary(tag: str, values: "np.ndarray[Any, Any]") -> bytes:
    tensor = events.array(events.DOUBLE, (BINS, 3), bins(values).astype("<f8").tobytes())
    return events.value(tag, "histograms", tensor)
