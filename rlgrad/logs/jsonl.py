"""metrics.jsonl: one JSON object a log interval."""

import json
import math
from pathlib import Path
from typing import Any

from rlgrad.callbacks import Callback, RunView
from rlgrad.core import plain_files, rows
from rlgrad.core.faults import writing
from rlgrad.metrics import COUNTS


class JSONLinesLog(Callback):
    """metrics.jsonl: every metric by name, to the last digit; null without a finite value."""

    only_looks = True

    def on_start(self, run: RunView) -> None:
        """Open the file. A resumed run keeps its earlier rows."""
        path = run.path / "metrics.jsonl"
        if path.exists():
            _take_back(path, run.timesteps)
        self._file = plain_files.appending(path)

    def on_update(self, run: RunView, metrics: dict[str, float]) -> None:
        """Write a row."""
        row = {name: _value(name, metrics.get(name, math.nan)) for name in run.metrics}
        with writing(run.path / "metrics.jsonl"):
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()

    def on_end(self, run: RunView) -> None:
        """Close the file."""
        with writing(run.path / "metrics.jsonl"):
            self._file.close()


def _take_back(path: Path, timesteps: int) -> None:
    def steps_of(line: str) -> Any:
        return json.loads(line)["time/timesteps"]

    rows.replace(path, "".join(rows.until(rows.whole_lines(path), timesteps, steps_of, path)))


def _value(name: str, value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return int(value) if name in COUNTS else value
