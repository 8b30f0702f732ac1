"""`rlgrad inspect`: show signal and noise of a run's gradients, as a table and a picture."""

import argparse
import contextlib
import dataclasses
import math
from pathlib import Path

from rlgrad.cli.loading import add_run, check_run, import_tensorflow, load_run
from rlgrad.cli.output import Result, Table, count, parser_for
from rlgrad.metrics import read_csv

_NOT_LOGGED = (
    "This run was trained without --diagnose: the numbers are of one rollout, collected now at its last weights, or of one "
    "batch of its replay."
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
    parser.add_argument(
        "--episodes",
        type=count,
        default=10,
        help="episodes to play, to compare what critics say with what is returned; 0: none (default: 10)",
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
    from rlgrad.runs.q_bias import bias_rows

    history = _history(options.run)
    logged = history is not None and (options.run / diagnoses.FILE).is_file() and not options.fresh
    diagnosis, bias = diagnoses.read(options.run) if logged else None, None
    if diagnosis is None or (diagnosis.q is not None and options.episodes):
        with contextlib.closing(load_run(options)) as run:
            diagnosis = diagnosis or run.diagnose()
            bias = run.q_bias(options.episodes) if diagnosis.q is not None and options.episodes else None
    picture = plot_diagnosis(diagnosis, history, options.output or options.run / "diagnostics.png", options.run.name)
    after = f"after {diagnosis.timesteps:,} environment steps"
    if not diagnosis.share_by_time and diagnosis.unit == "step":
        what = f"{diagnosis.count:,} steps drawn from the replay {after}, each a sample of the gradient.\n"
    elif diagnosis.unit == "step":
        what = f"A rollout of {diagnosis.count:,} {plural(diagnosis)} {after}, of which each is a sample of the gradient.\n"
    else:
        what = f"A rollout of {diagnosis.count:,} episodes, each a sample of the gradient, {after}.\n"
    found, document = rows(diagnosis, history), dataclasses.asdict(diagnosis)
    if bias is not None:
        found += bias_rows(bias)
        document["q_bias"] = bias
    table = Table(found, ("quantity", "value", "what it says"), right=(1,))
    return Result(document, [*([_NOT_LOGGED] if history is None else []), what, table, f"\nWrote {picture}"])


def _history(run: Path) -> dict[str, list[float]] | None:
    """Return the columns of metrics.csv, `None` if it has no diagnostics."""
    columns = read_csv(run / "metrics.csv") if (run / "metrics.csv").is_file() else {}
    logged = [*columns.get("gradient/noise", []), *columns.get("gradient/q_noise_scale", [])]
    return columns if any(map(math.isfinite, logged)) else None
