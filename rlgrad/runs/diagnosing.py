"""Diagnoses of a run while it trains: when they are due, and what they add to the next row."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from rlgrad.data import Rollout
from rlgrad.diagnostics.diagnosis import Diagnosis

if TYPE_CHECKING:
    from rlgrad.learning.learner import Learner

_log = logging.getLogger("rlgrad")


class Watch:
    """Diagnoses rollouts at the weights that collected them, so before the update, and keeps the last diagnosis.

    Args:
        learner: diagnoses.
        path: the run's folder.
        on: whether the run wants it.

    Attributes:
        on: whether it goes on.
        last: the last diagnosis, or none.
    """

    def __init__(self, learner: "Learner", path: Path, on: bool) -> None:
        self._learner, self._path, self.on = learner, path, on
        self.last: Diagnosis | None = None
        self._due = 0.0
        self._metrics: dict[str, float] = {}

    def look(self, rollout: Rollout, progress: float, timesteps: int, spacing: float) -> None:
        """Diagnose a rollout, if the last diagnosis is `spacing` steps ago."""
        if not self.on or timesteps < self._due:
            return
        self._due = timesteps + spacing
        try:
            self.last = self._learner.diagnose(rollout, progress, timesteps)
        except (MemoryError, NotImplementedError, tf.errors.OpError) as error:
            _log.warning("No diagnostics from here on, training goes on: %s", str(error).splitlines()[0])
            self.on = False
            return
        self.last.write(self._path)
        self._metrics = self.last.metrics()

    def take(self) -> dict[str, float]:
        """The metrics since this was called last."""
        metrics, self._metrics = self._metrics, {}
        return metrics

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"due": self._due, "metrics": self._metrics}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._due, self._metrics = state["due"], dict(state["metrics"])
