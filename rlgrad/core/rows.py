"""Text files with one row a line: their whole rows, and those up to an environment step, at which a run resumes."""

import csv
import io
import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from rlgrad.core import plain_files
from rlgrad.core.faults import write_whole

Row = TypeVar("Row")

_SAID = 5  # rows that warnings name

_log = logging.getLogger("rlgrad")


def whole_lines(path: Path) -> list[str]:
    """Return the lines of a file, ends included, without a last line whose writing was interrupted."""
    text = plain_files.read_bytes(path, plain_files.ROWS).decode("utf-8", errors="replace")
    lines = io.StringIO(text, newline="").readlines()
    return lines[:-1] if lines and not lines[-1].endswith("\n") else lines


def table(path: Path, timesteps: float = math.inf) -> tuple[list[str], list[list[str]]]:
    """Return the header of a CSV file of numbers, and its rows up to an environment step."""
    header, *rows = list(csv.reader(whole_lines(path))) or [[]]

    def steps_of(row: list[str]) -> float:
        return {name: float(cell) for name, cell in zip(header, row, strict=True) if cell}["time/timesteps"]

    return header, until(rows, timesteps, steps_of, path)


def until(rows: Iterable[Row], timesteps: float, steps_of: Callable[[Row], Any], path: Path) -> list[Row]:
    """Return the rows up to an environment step. A row that cannot be read is left out with a warning.

    Args:
        rows: of the file.
        timesteps: the step at which the run resumes.
        steps_of: returns a row's environment step; raises if it has none.
        path: the file, for the warning.
    """
    kept, unread = [], 0
    for number, row in enumerate(rows, start=1):
        try:
            if float(steps_of(row)) <= timesteps:
                kept.append(row)
        except (KeyError, TypeError, ValueError):
            unread += 1
            if unread <= _SAID:
                _log.warning("Row %d of %s cannot be read and is left out.", number, path)
    if unread > _SAID:
        _log.warning("So are %d more of its rows.", unread - _SAID)
    return kept


def replace(path: Path, content: str | bytes) -> None:
    """Write a file that appears whole or not at all."""
    write_whole(path, content.encode() if isinstance(content, str) else content)
