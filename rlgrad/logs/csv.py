"""metrics.csv: one row a log interval, one column a metric."""

import csv
import io
import math
from pathlib import Path

from rlgrad.callbacks import Callback, RunView
from rlgrad.core import plain_files, rows
from rlgrad.core.faults import writing
from rlgrad.metrics import COUNTS


class CSVLog(Callback):
    """metrics.csv: counts in full, other numbers to seven digits, empty cells for metrics without a value."""

    only_looks = True

    def on_start(self, run: RunView) -> None:
        """Open the file. A resumed run keeps its earlier rows, and their columns."""
        path = run.path / "metrics.csv"
        self._columns = list(run.metrics)
        if path.exists():
            self._take_back(path, run.timesteps)
        else:
            rows.replace(path, _text([self._columns]))
        self._open(path)

    def on_update(self, run: RunView, metrics: dict[str, float]) -> None:
        """Write a row."""
        if new := [name for name in run.metrics if name not in self._columns]:
            self._add_columns(run.path / "metrics.csv", new)
        with writing(run.path / "metrics.csv"):
            self._writer.writerow(_cell(name, metrics.get(name, math.nan)) for name in self._columns)
            self._file.flush()

    def on_end(self, run: RunView) -> None:
        """Close the file."""
        with writing(run.path / "metrics.csv"):
            self._file.close()

    def _add_columns(self, path: Path, new: list[str]) -> None:
        """Write the file anew with more columns, which are empty in the rows so far."""
        with writing(path):
            self._file.close()
        header, kept = rows.table(path)
        self._columns += new
        rows.replace(path, _text([[*header, *new], *([*row, *[""] * len(new)] for row in kept)]))
        self._open(path)

    def _open(self, path: Path) -> None:
        self._file = plain_files.appending(path, newline="")
        self._writer = csv.writer(self._file)

    def _take_back(self, path: Path, timesteps: int) -> None:
        header, kept = rows.table(path, timesteps)
        self._columns += [
            name for name in header if name not in self._columns
        ]  # of callbacks that this run no longer has
        known = [dict(zip(header, row, strict=True)) for row in kept]
        rows.replace(path, _text([self._columns, *([row.get(name, "") for name in self._columns] for row in known)]))


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if name in COUNTS else f"{value:.7g}"


def _text(rows: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()
