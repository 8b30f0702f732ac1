"""MLflow. Its own settings hold: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and the others."""

import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rlgrad.callbacks import Callback, RunView
from rlgrad.core import plain_files, rows, settings

_log = logging.getLogger("rlgrad")
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
_BATCH = 100  # the most parameters that MLflow takes in one request


class MLflowLog(Callback):
    """Rows against environment steps, and the run's config as parameters."""

    only_looks = True
    package = "mlflow"  # brought by the extra of this name

    def on_start(self, run: RunView) -> None:
        """Begin an MLflow run, or resume the one whose id is in the folder."""
        import mlflow
        from mlflow.exceptions import MlflowException

        file = run.path / "mlflow-run-id.txt"
        try:
            self._client, self._last = mlflow.MlflowClient(), -1
            if file.exists():
                self._id = plain_files.read_bytes(file, plain_files.KIB).decode()
                self._resume()
            else:
                self._id = self._begun(run)
                rows.replace(file, self._id)
        except MlflowException as error:
            raise ConnectionError(
                f"MLflow cannot {'resume' if file.exists() else 'start'} a run at {mlflow.get_tracking_uri()}: {error} "
                "Set MLFLOW_TRACKING_URI to where its runs are stored."
            ) from error

    def on_update(self, run: RunView, metrics: dict[str, float]) -> None:
        """Hand over a row, unless MLflow has it from before the run was killed."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        if run.timesteps <= self._last:
            return
        now = int(time.time() * 1000)
        row = [
            Metric(_NOT_IN_NAMES.sub("_", name), value, now, run.timesteps)
            for name, value in metrics.items()
            if math.isfinite(value)
        ]
        try:
            self._client.log_batch(self._id, metrics=row)
        except MlflowException as error:
            _log.warning("MLflow did not take the row of step %d, training continues: %s", run.timesteps, error)

    def on_end(self, run: RunView) -> None:
        """Finish the MLflow run, as failed or killed if training did not reach its end."""
        status = "FINISHED" if run.finished or run.stop else "KILLED" if sys.exc_info()[0] is None else "FAILED"
        self._client.set_terminated(self._id, status)

    def _resume(self) -> None:
        self._client.update_run(self._id, status="RUNNING")
        logged = self._client.get_metric_history(self._id, "time/timesteps")
        self._last = max((metric.step for metric in logged), default=-1)

    def _begun(self, run: RunView) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "rlgrad")
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        begun: str = self._client.create_run(number, run_name=run.path.name).info.run_id
        parameters = [Param(*pair) for pair in _flat(settings.read(run.path / "config.yaml"))]
        for first in range(0, len(parameters), _BATCH):
            self._client.log_batch(begun, params=parameters[first : first + _BATCH])
        return begun


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
