"""metrics.jsonl: one JSON object a log interval."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgrad.callbacks import Callback
from rlgrad.core.faults import writing
from rlgrad.logs import files
from rlgrad.metrics import COUNTS

if TYPE_CHECKING:
    from rlgrad.runs.run import Run


class JSONLinesLog(Callback):
    """metrics.jsonl: every metric of the run by name, to the last digit; null where it has no value, or no finite one."""

    only_looks = True

    def on_start(self, run: "Run") -> None:
        """Open the file. A run that goes on keeps the rows it had by then."""
        path = run.path / "metrics.jsonl"
        if path.exists():
            _take_back(path, run.timesteps)
        self._file = path.open("a")

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """Write a row."""
        row = {name: _value(name, metrics.get(name, math.nan)) for name in run.metrics}
        with writing(run.path / "metrics.jsonl"):
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()

    def on_end(self, run: "Run") -> None:
        """Close the file."""
        with writing(run.path / "metrics.jsonl"):
            self._file.close()


def _take_back(path: Path, timesteps: int) -> None:
    def steps_of(line: str) -> Any:
        return json.loads(line)["time/timesteps"]

    files.replace(path, "".join(files.until(files.whole_lines(path), timesteps, steps_of, path)))


def _value(name: str, value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return int(value) if name in COUNTS else value
