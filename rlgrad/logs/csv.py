"""metrics.csv: one row a log interval, one column a metric."""

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rlgrad.callbacks import Callback
from rlgrad.core.faults import writing
from rlgrad.logs import files
from rlgrad.logs.files import table
from rlgrad.metrics import COUNTS

if TYPE_CHECKING:
    from rlgrad.runs.run import Run

if TYPE_CHECKING:
    from rlgrad.runs.run import Run


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


def read_csv(path: Path, timesteps: float = math.inf) -> dict[str, list[float]]:
    """metrics.csv as columns; empty cells are not-a-number. What is only half written, or damaged, is left out.

    Args:
        path: the file.
        timesteps: rows after more environment steps are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    try:
        header, rows = table(path, timesteps)
        cells = zip(*rows, strict=True) if rows else ((),) * len(header)
        columns = dict(zip(header, cells, strict=True))
        if "time/timesteps" not in columns:
            raise KeyError("it has no column time/timesteps")
        return {name: [float(cell) if cell else math.nan for cell in column] for name, column in columns.items()}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} does not hold the metrics of a run: {error}.") from error
