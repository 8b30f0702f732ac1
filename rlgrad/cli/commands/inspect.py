"""`rlgrad inspect`: what the gradients of a run tell, as a table and a picture."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rlgrad.cli.loading import check_run, import_tensorflow, load_run
from rlgrad.cli.output import Result, Table, parser_for
from rlgrad.metrics import read_csv

if TYPE_CHECKING:
    from rlgrad.diagnostics.diagnosis import Diagnosis

_NOT_LOGGED = (
    "This run was trained without --diagnose: the numbers are of one rollout, collected now at its last weights."
)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = parser_for(
        "inspect", "Signal and noise of a run's gradients, and what its baseline is worth.", "rlgrad inspect runs/a"
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--output", type=Path, help="PNG to write; default: diagnostics.png in the run's folder")
    parser.add_argument("--fresh", action="store_true", help="collect a rollout at the last weights in any case")
    return parser


def run(arguments: list[str]) -> Result:
    """A table with a sentence for each number, and diagnostics.png."""
    options = parser().parse_args(arguments)
    check_run(options.run)
    import_tensorflow()
    from rlgrad.analysis.plotting import plot_diagnosis
    from rlgrad.diagnostics import diagnosis as diagnoses
    from rlgrad.diagnostics.inspection import plural, rows

    history = _history(options.run)
    logged = history is not None and (options.run / diagnoses.FILE).is_file() and not options.fresh
    found = diagnoses.read(options.run) if logged else _collected(options.run)
    picture = plot_diagnosis(found, history, options.output or options.run / "diagnostics.png")
    what = (
        f"A rollout of {found.count:,} {plural(found)} after {found.timesteps:,} environment steps, of which each is a "
        "sample of the gradient.\n"
        if found.unit == "step"
        else f"A rollout of {found.count:,} episodes, each a sample of the gradient, after {found.timesteps:,} environment "
        "steps.\n"
    )
    table = Table(rows(found, history), ("quantity", "value", "what it says"), right=(1,))
    return Result(found, [*([_NOT_LOGGED] if history is None else []), what, table, f"\nWrote {picture}"])


def _history(run: Path) -> dict[str, list[float]] | None:
    """metrics.csv, if it has diagnostics."""
    columns = read_csv(run / "metrics.csv") if (run / "metrics.csv").is_file() else {}
    return columns if any(map(math.isfinite, columns.get("gradient/noise", []))) else None


def _collected(path: Path) -> "Diagnosis":
    run = load_run(path)
    try:
        return run.diagnose()
    finally:
        run.close()
