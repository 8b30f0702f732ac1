"""`rlgrad plot`: learning curves as PNG."""

import argparse
from pathlib import Path

from rlgrad.cli.folders import check_run
from rlgrad.cli.output import Result, parser_for


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = parser_for("plot", "Learning curves as PNG.", "rlgrad plot runs/a runs/b --output both.png")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument(
        "--output", type=Path, help="default: learning_curve.png of one run, comparison.png for several"
    )
    return parser


def run(arguments: list[str]) -> Result:
    """Draw one run, or several in one picture."""
    options = parser().parse_args(arguments)
    for run in options.runs:
        check_run(run)
    from rlgrad.plotting import plot_runs

    one = options.runs[0] / "learning_curve.png" if len(options.runs) == 1 else Path("comparison.png")
    picture = plot_runs(options.runs, options.output or one)
    return Result({"output": picture}, [f"Wrote {picture}"])
