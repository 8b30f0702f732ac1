"""`rlgrad inspect`: what the gradients of a run tell, as a table and a picture."""

import argparse
import dataclasses
import json
import math
from pathlib import Path

from rlgrad.cli.runs import check_run, load_run, parser_for
from rlgrad.diagnostics import diagnosis as diagnoses
from rlgrad.diagnostics.diagnosis import Diagnosis
from rlgrad.diagnostics.inspection import Row, plural, rows
from rlgrad.reporting import read_csv

_NOT_LOGGED = (
    "This run was trained without --diagnose: the numbers are of one rollout, collected now at its last weights."
)


def inspect(arguments: list[str]) -> int:
    """Print a table with a sentence for each number, and draw diagnostics.png."""
    parser: argparse.ArgumentParser = parser_for(
        "inspect", "Signal and noise of a run's gradients, and what its baseline is worth.", "rlgrad inspect runs/a"
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--output", type=Path, help="PNG to write; default: diagnostics.png in the run's folder")
    parser.add_argument("--fresh", action="store_true", help="collect a rollout at the last weights in any case")
    parser.add_argument("--json", action="store_true", help="print the numbers alone")
    options = parser.parse_args(arguments)
    check_run(options.run)
    history = _history(options.run)
    logged = history is not None and (options.run / diagnoses.FILE).is_file() and not options.fresh
    found = diagnoses.read(options.run) if logged else _collected(options.run)
    from rlgrad.plotting import plot_diagnosis

    picture = plot_diagnosis(found, history, options.output or options.run / "diagnostics.png")
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
        return 0
    if history is None:
        print(_NOT_LOGGED)
    print(
        f"A rollout of {found.count:,} {plural(found)} after {found.timesteps:,} environment steps, of which each is a "
        f"sample of the gradient.\n"
        if found.unit == "step"
        else f"A rollout of {found.count:,} episodes, each a sample of the gradient, after {found.timesteps:,} environment "
        "steps.\n"
    )
    _print(rows(found, history))
    print(f"\nWrote {picture}")
    return 0


def _history(run: Path) -> dict[str, list[float]] | None:
    """metrics.csv, if it has diagnostics."""
    columns = read_csv(run / "metrics.csv") if (run / "metrics.csv").is_file() else {}
    return columns if any(map(math.isfinite, columns.get("gradient/noise", []))) else None


def _collected(path: Path) -> Diagnosis:
    run = load_run(path)
    try:
        return run.diagnose()
    finally:
        run.close()


def _print(table: list[Row]) -> None:
    """A table in a terminal, lines elsewhere."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        name, value = (max(len(row[i]) for row in table) for i in (0, 1))
        for row in table:
            print(f"{row.name:<{name}}  {row.value:>{value}}  {row.meaning}")
        return
    shown = Table("quantity", "value", "what it says", box=None, header_style="bold", pad_edge=False)
    shown.columns[1].justify = "right"
    for row in table:
        shown.add_row(*row)
    console.print(shown)
