"""`rlgrad plot`: draw learning curves as PNG."""

import argparse
from pathlib import Path

from rlgrad.cli.commands.compare import describe_left_out
from rlgrad.cli.loading import check_run
from rlgrad.cli.output import Result, parser_for


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "plot",
        "Draw learning curves as PNG. Runs that differ in the seed alone share a curve with a confidence band.",
        "rlgrad plot runs/a runs/b --output both.png",
        "rlgrad plot runs/CartPole-*",
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument(
        "--output",
        type=Path,
        help="PNG, PDF or SVG to write (default: the run's learning_curve.png; comparison.png for several runs)",
    )
    return parser


def run(arguments: list[str]) -> Result:
    """Draw one run, or several runs in one picture."""
    options = parser().parse_args(arguments)
    for run in options.runs:
        check_run(run)
    from rlgrad.analysis.groups import curve, grouped
    from rlgrad.analysis.plotting import check_picture, plot_groups

    if options.output is not None:
        check_picture(options.output)
    groups, left_out = grouped(options.runs)
    one = options.runs[0] / "learning_curve.png" if len(options.runs) == 1 else Path("comparison.png")
    picture = plot_groups(groups, options.output or one)
    documents = [
        {
            "label": group.label,
            "runs": [run.path for run in group.runs],
            "seeds": [run.seed for run in group.runs],
            "curve": curve(group)._asdict(),
        }
        for group in groups
    ]
    lines = [f"{group.label}: seeds {', '.join(str(run.seed) for run in group.runs)}" for group in groups]
    shown = [f"Wrote {picture}", *(lines if len(lines) < len(options.runs) else []), *describe_left_out(left_out)]
    return Result({"output": picture, "groups": documents}, shown)
