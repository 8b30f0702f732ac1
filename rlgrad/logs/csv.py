"""metrics.csv: one row a log interval, one column a metric."""

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rlgrad.faults import writing
from rlgrad.logs import files
from rlgrad.reporting import COUNTS, Callback

if TYPE_CHECKING:
    from rlgrad.run import Run


class CSVLog(Callback):
    """metrics.csv: counts in full, other numbers to seven digits, and empty where a metric has no value yet."""

    only_looks = True

    def on_start(self, run: "Run") -> None:
        """Open the file. A run that goes on keeps the rows it had by then, and their columns."""
        path = run.path / "metrics.csv"
        self._columns = list(run.metrics)
        if path.exists():
            self._take_back(path, run.timesteps)
        else:
            files.replace(path, _text([self._columns]))
        self._file = path.open("a", newline="")
        self._writer = csv.writer(self._file)

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """Write a row."""
        with writing(run.path / "metrics.csv"):
            self._writer.writerow(_cell(name, metrics.get(name, math.nan)) for name in self._columns)
            self._file.flush()

    def on_end(self, run: "Run") -> None:
        """Close the file."""
        with writing(run.path / "metrics.csv"):
            self._file.close()

    def _take_back(self, path: Path, timesteps: int) -> None:
        header, rows = files.table(path, timesteps)
        self._columns += [name for name in header if name not in self._columns]  # of callbacks that are gone now
        known = [dict(zip(header, row, strict=True)) for row in rows]
        files.replace(path, _text([self._columns, *([row.get(name, "") for name in self._columns] for row in known)]))


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if name in COUNTS else f"{value:.7g}"


def _text(rows: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()
