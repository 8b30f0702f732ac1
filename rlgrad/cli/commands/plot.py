"""`rlgrad plot`: draw learning curves as PNG, PDF or SVG."""

import argparse
from pathlib import Path

from rlgrad.cli.commands.compare import describe_left_out
from rlgrad.cli.loading import check_run
from rlgrad.cli.output import Result, count, parser_for


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "plot",
        "Draw learning curves as PNG, PDF or SVG. Runs that differ in the seed alone share a curve with a confidence band.",
        "rlgrad plot runs/a runs/b --output both.png",
        "rlgrad plot runs/ppo-* runs/a2c-* --output figure.pdf --labels PPO A2C --size 3.3 2.2 --style paper.mplstyle",
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument(
        "--output",
        type=Path,
        help="PNG, PDF or SVG to write (default: the run's learning_curve.png; comparison.png for several runs)",
    )
    parser.add_argument(
        "--metric", default="train/return", help="what is drawn, a column of metrics.csv (default: train/return)"
    )
    parser.add_argument(
        "--x",
        choices=("steps", "seconds", "updates"),
        default="steps",
        help="what it is drawn against (default: steps)",
    )
    parser.add_argument(
        "--smooth",
        type=count,
        default=1,
        metavar="ROWS",
        help="draw means of so many rows, of each run by itself (default: 1)",
    )
    parser.add_argument(
        "--size",
        type=float,
        nargs=2,
        default=(7.0, 4.2),
        metavar=("WIDTH", "HEIGHT"),
        help="in inches (default: 7 4.2)",
    )
    parser.add_argument("--labels", nargs="*", default=[], help="a label for each curve, in the order that is printed")
    parser.add_argument("--title", help="title, '' for none (default: the environment)")
    parser.add_argument("--style", help="style of matplotlib: a file of settings (.mplstyle), or a name such as ggplot")
    return parser


def run(arguments: list[str]) -> Result:
    """Draw one run, or several runs in one picture."""
    options = parser().parse_args(arguments)
    for run in options.runs:
        check_run(run)
    for name, value in (("--smooth", options.smooth), *(("--size", side) for side in options.size)):
        if not value > 0:
            raise ValueError(f"{name} is above 0, got {value:g}.")
    from rlgrad.analysis.curve_pictures import AXES, Look, plot_groups
    from rlgrad.analysis.groups import curve, grouped
    from rlgrad.analysis.plotting import check_picture

    if options.output is not None:
        check_picture(options.output)
    look = Look(
        metric=options.metric,
        x=options.x,
        smooth=options.smooth,
        size=tuple(options.size),
        labels=tuple(options.labels),
        title=options.title,
        style=options.style,
    )
    groups, left_out = grouped(options.runs)
    one = options.runs[0] / "learning_curve.png" if len(options.runs) == 1 else Path("comparison.png")
    picture = plot_groups(groups, options.output or one, look)
    documents = [
        {
            "label": group.label,
            "runs": [run.path for run in group.runs],
            "seeds": [run.seed for run in group.runs],
            "curve": curve(group, look.metric, AXES[look.x], look.smooth)._asdict(),
        }
        for group in groups
    ]
    named = [f"{g.label}, as {name!r}" for g, name in zip(groups, look.labels, strict=False)] or [
        g.label for g in groups
    ]
    seeds = [", ".join(str(run.seed) for run in group.runs) for group in groups]
    lines = [f"{name}: seeds {each}" for name, each in zip(named, seeds, strict=True)]
    shown = [f"Wrote {picture}", *(lines if len(lines) < len(options.runs) else []), *describe_left_out(left_out)]
    return Result({"output": picture, "groups": documents}, shown)
