"""Print the result of a command, for people or as JSON. No other module prints results."""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlgrad.core import settings

_HELP_WIDTH = 78


@dataclass(frozen=True)
class Table:
    """Rows of text: a table in a terminal, aligned lines elsewhere.

    Attributes:
        rows: cells of each row, the same number in all rows.
        header: names of the columns, or none.
        right: numbers of the columns to align at the right.
    """

    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()
    right: Sequence[int] = ()


@dataclass(frozen=True)
class Result:
    """The result of a command.

    Attributes:
        document: the document that `--json` prints. It may hold records, paths and NumPy numbers: `plain` converts them.
        parts: the same for people, texts and tables in their order.
        status: the command's exit status.
    """

    document: Any
    parts: Sequence[str | Table] = ()
    status: int = 0


def parser_for(name: str, text: str, *examples: str) -> argparse.ArgumentParser:
    """Return a parser for a command, with examples at the end of its help."""
    parser = argparse.ArgumentParser(
        prog=f"rlgrad {name}",
        description="\n".join(textwrap.fill(line, _HELP_WIDTH) for line in text.splitlines()),
        epilog="\n  ".join(["Example:" if len(examples) == 1 else "Examples:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # `rlgrad.cli.main` looks for `--json` itself, and would miss `--js`
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, and nothing else, on stdout")
    return parser


def count(word: str) -> int:
    """Return a count that an option takes, as people write it: 1000 or 1e3."""
    try:
        return settings.count(word, "this")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {word!r}") from error


def show(result: Result, as_json: bool) -> None:
    """Print a result."""
    if as_json:
        print(json.dumps(plain(result.document), indent=1, allow_nan=False))
        return
    for part in result.parts:
        _show_table(part) if isinstance(part, Table) else print(part)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send everything that is printed meanwhile to stderr, including the output of C libraries and worker processes."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def plain(value: Any) -> Any:
    """Return a value as JSON holds it: records as mappings, arrays as lists, paths as strings, infinities and NaN as `None`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _show_table(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        rows = [*([table.header] if table.header else []), *table.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [f"{cell:{'>' if i in table.right else '<'}{widths[i]}}" for i, cell in enumerate(row)]
            print("  ".join(cells).rstrip())
        return
    shown = RichTable(*table.header, box=None, header_style="bold", pad_edge=False, show_header=bool(table.header))
    for i in range(len(table.rows[0]) if table.rows and not table.header else 0):
        shown.add_column(justify="right" if i in table.right else "left")
    for i in table.right:
        shown.columns[i].justify = "right"
    for row in table.rows:
        shown.add_row(*map(Text, row))  # Text, since a name may hold brackets, which are markup in rich
    console.print(shown)
