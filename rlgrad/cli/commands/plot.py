"""`rlgrad plot`: learning curves as PNG."""

import argparse
from pathlib import Path

from rlgrad.cli.commands.compare import said_of
from rlgrad.cli.loading import check_run
from rlgrad.cli.output import Result, parser_for


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = parser_for(
        "plot",
        "Learning curves as PNG. Runs that differ in the seed alone are one curve with a confidence band.",
        "rlgrad plot runs/a runs/b --output both.png",
        "rlgrad plot runs/CartPole-*",
    )
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
    from rlgrad.analysis.groups import curve, grouped
    from rlgrad.analysis.plotting import plot_groups

    groups, left_out = grouped(options.runs)
    one = options.runs[0] / "learning_curve.png" if len(options.runs) == 1 else Path("comparison.png")
    picture = plot_groups(groups, options.output or one)
    found = [
        {
            "label": group.label,
            "runs": [run.path for run in group.runs],
            "seeds": [run.seed for run in group.runs],
            "curve": curve(group)._asdict(),
        }
        for group in groups
    ]
    lines = [f"{group.label}: seeds {', '.join(str(run.seed) for run in group.runs)}" for group in groups]
    shown = [f"Wrote {picture}", *(lines if len(lines) < len(options.runs) else []), *said_of(left_out)]
    return Result({"output": picture, "groups": found}, shown)
