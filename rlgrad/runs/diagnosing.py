"""Diagnoses of a run while it trains: when one is due, and the metrics it adds to the next row."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from rlgrad.data import Rollout
from rlgrad.diagnostics.diagnosis import DIAGNOSTICS, Diagnosis, layer_metrics
from rlgrad.learning.learner import Learner

_log = logging.getLogger("rlgrad")


class Watch:
    """Diagnoses rollouts before the update, at the weights that collected them, and keeps the last diagnosis.

    Args:
        learner: makes the diagnoses.
        path: the run's folder.
        on: True if the run is to be diagnosed.

    Attributes:
        on: True while the run is diagnosed.
        last: the last diagnosis, or `None`.
    """

    def __init__(self, learner: Learner, path: Path, on: bool) -> None:
        self._learner, self._path, self.on = learner, path, on
        self.last: Diagnosis | None = None
        self._metrics: dict[str, float] = {}

    def look(self, rollout: Rollout, progress: float, timesteps: int) -> None:
        """Diagnose a rollout, or what a replay holds as soon as that is a batch."""
        if not self.on or not self._learner.microscope.has_samples:
            return
        try:
            self.last = self._learner.diagnose(rollout, progress, timesteps)
        except (MemoryError, NotImplementedError, tf.errors.OpError) as error:
            _log.warning("Training continues without diagnostics: %s", str(error).splitlines()[0])
            self.on = False
            return
        self.last.write(self._path)
        self._metrics = self.last.metrics()

    def take(self) -> dict[str, float]:
        """Return the metrics since the last call."""
        metrics, self._metrics = self._metrics, {}
        return metrics

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"metrics": self._metrics}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._metrics = dict(state["metrics"])


def diagnostic_metrics(learner: Learner) -> tuple[str, ...]:
    """Return the names of the metrics that diagnosing adds: the same for each agent, then those of its layers."""
    return DIAGNOSTICS + layer_metrics(learner.layers)
