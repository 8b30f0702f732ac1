"""`rlgrad inspect`: show signal and noise of a run's gradients, as a table and a picture."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rlgrad.cli.loading import add_run, check_run, import_tensorflow, load_run
from rlgrad.cli.output import Result, Table, parser_for
from rlgrad.metrics import read_csv

if TYPE_CHECKING:
    from rlgrad.diagnostics.diagnosis import Diagnosis

_NOT_LOGGED = (
    "This run was trained without --diagnose: the numbers are of one rollout, collected now at its last weights."
)


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "inspect", "Show signal and noise of a run's gradients, and the worth of its baseline.", "rlgrad inspect runs/a"
    )
    add_run(parser)
    parser.add_argument("--output", type=Path, help="PNG to write (default: diagnostics.png in the run's folder)")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="collect a new rollout at the last weights, also if the run has logged diagnostics",
    )
    return parser


def run(arguments: list[str]) -> Result:
    """Show a table with a sentence for each number, and write diagnostics.png."""
    options = parser().parse_args(arguments)
    check_run(options.run)
    from rlgrad.analysis.plotting import check_picture, plot_diagnosis

    if options.output is not None:
        check_picture(options.output)
    import_tensorflow()
    from rlgrad.diagnostics import diagnosis as diagnoses
    from rlgrad.diagnostics.inspection import plural, rows

    history = _history(options.run)
    logged = history is not None and (options.run / diagnoses.FILE).is_file() and not options.fresh
    diagnosis = diagnoses.read(options.run) if logged else _collect(options)
    picture = plot_diagnosis(diagnosis, history, options.output or options.run / "diagnostics.png", options.run.name)
    after = f"after {diagnosis.timesteps:,} environment steps"
    if diagnosis.unit == "step":
        what = f"A rollout of {diagnosis.count:,} {plural(diagnosis)} {after}, of which each is a sample of the gradient.\n"
    else:
        what = f"A rollout of {diagnosis.count:,} episodes, each a sample of the gradient, {after}.\n"
    table = Table(rows(diagnosis, history), ("quantity", "value", "what it says"), right=(1,))
    return Result(diagnosis, [*([_NOT_LOGGED] if history is None else []), what, table, f"\nWrote {picture}"])


def _history(run: Path) -> dict[str, list[float]] | None:
    """Return the columns of metrics.csv, `None` if it has no diagnostics."""
    columns = read_csv(run / "metrics.csv") if (run / "metrics.csv").is_file() else {}
    return columns if any(map(math.isfinite, columns.get("gradient/noise", []))) else None


def _collect(options: argparse.Namespace) -> "Diagnosis":
    run = load_run(options)
    try:
        return run.diagnose()
    finally:
        run.close()
