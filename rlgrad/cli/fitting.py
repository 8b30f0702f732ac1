"""Tables that fit a terminal: columns that find no room are left out, long names are broken, intervals stand below means."""

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlgrad.cli.output import Table

WIDTH = 80
_GAP = 2
_PIECE = re.compile(r"[^-_./:=,]*[-_./:=,]+|[^-_./:=,]+")  # of a name: up to a sign after which it may break


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its header.
        cells: text of each row; a text may have several lines.
        right: align at the right.
        least: width below which the column cannot be broken further. `None`: it is not broken at all.
    """

    name: str
    cells: Sequence[str]
    right: bool = True
    least: int | None = None

    @property
    def width(self) -> int:
        """Return the width that shows every cell as it is."""
        return max(len(line) for cell in (self.name, *self.cells) for line in cell.split("\n"))


def terminal_width() -> int:
    """Return the width of the terminal, or 80 where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH


def fitted(columns: Sequence[Column], expendable: Sequence[str], width: int) -> tuple[Table, list[str]]:
    """Return a table of the columns for which there is room, and the names of the others.

    Args:
        columns: in the order of the table.
        expendable: names of columns that may be left out, the first to go first.
        width: of the terminal.
    """
    shown, left_out = list(columns), []
    for name in expendable:
        if _least(shown) <= width:
            break
        shown = [column for column in shown if column.name != name]
        left_out.append(name)
    widths = _widths(shown, width)
    rows: list[list[str]] = []
    for cells in zip(*(column.cells for column in shown), strict=True):
        parts = [_broken(cell, widths.get(column.name)) for cell, column in zip(cells, shown, strict=True)]
        height = max(map(len, parts))
        rows += [list(line) for line in zip(*(part + [""] * (height - len(part)) for part in parts), strict=True)]
    return Table(rows, [column.name for column in shown], [i for i, c in enumerate(shown) if c.right]), left_out


def paragraph(text: str, width: int) -> str:
    """Return an indented text in lines of a width. What has no space in it, such as a path, stays whole."""
    return textwrap.fill(
        text, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def _least(columns: Sequence[Column]) -> int:
    return sum(min(c.width, c.least or c.width) for c in columns) + _GAP * (len(columns) - 1)


def _widths(columns: Sequence[Column], width: int) -> Mapping[str, int]:
    """Return the width of each column that can be broken. The widest gives way first."""
    fixed = sum(c.width for c in columns if c.least is None) + _GAP * (len(columns) - 1)
    widths = {c.name: c.width for c in columns if c.least is not None}
    least = {c.name: c.least for c in columns if c.least is not None}
    while sum(widths.values()) + fixed > width:
        wide = [name for name in widths if widths[name] > least[name]]
        if not wide:
            break
        widths[max(wide, key=lambda name: widths[name])] -= 1
    return widths


def _broken(cell: str, width: int | None) -> list[str]:
    lines = cell.split("\n")
    return lines if width is None else [part for line in lines for part in _wrapped(line, width)]


def _wrapped(line: str, width: int) -> list[str]:
    """Return a line in parts of a width, those after the first indented: broken between words, else after a sign in one."""
    parts = [""]
    for word in line.split():
        gap = " " if parts[-1].strip() else ""
        for piece in [word] if len(word) < width else _PIECE.findall(word):
            if parts[-1].strip() and len(parts[-1]) + len(gap) + len(piece) > width:
                parts.append(" ")
                gap = ""
            parts[-1] += gap + piece
            gap = ""
            while len(parts[-1]) > width:
                parts[-1:] = [parts[-1][:width], f" {parts[-1][width:]}"]
    return parts
