"""`rlgrad compare`: compare runs in a table."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgrad.cli.loading import check_run
from rlgrad.cli.output import Result, Table, parser_for

if TYPE_CHECKING:
    from rlgrad.analysis.groups import Group

_HEADER = ("runs", "seeds", "greedy return", "sampled return", "training return", "steps", "seconds")
_MEANING = (
    "Returns: interquartile mean over seeds [95 % bootstrap interval]; of a single run, the mean over its evaluation's "
    "episodes [95 % interval].\nTraining return: mean of the last 100 training episodes. Seconds: median of training."
)


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "compare",
        "Compare runs in a table. Runs that differ in the seed alone share a row.",
        "rlgrad compare runs/a runs/b",
        "rlgrad compare runs/*",
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    return parser


def run(arguments: list[str]) -> Result:
    """Show a row for each group of runs."""
    options = parser().parse_args(arguments)
    for run in options.runs:
        check_run(run)
    from rlgrad.analysis.groups import grouped

    groups, left_out = grouped(options.runs)
    documents = [_row(group) for group in groups]
    rows = [
        (
            row["label"],
            str(len(row["seeds"])),
            *(_shown(row[name]) for name in ("greedy", "sampled", "train_return")),
            f"{row['timesteps']:,.0f}",
            f"{row['seconds']:,.1f}",
        )
        for row in documents
    ]
    return Result(documents, [Table(rows, _HEADER, right=range(1, 7)), f"\n{_MEANING}", *describe_left_out(left_out)])


def describe_left_out(left_out: list[Path]) -> list[str]:
    """Return a line on the runs that repeat others, if there are any."""
    names = ", ".join(map(str, left_out))
    return [f"Left out, since other runs have the same settings and seed: {names}."] if left_out else []


def _row(group: "Group") -> dict[str, Any]:
    import numpy as np

    from rlgrad.analysis.groups import Estimate, evaluated, over_seeds

    ends = [{name: (values[-1:] or [np.nan])[0] for name, values in run.metrics.items()} for run in group.runs]
    returns = [end["train/return"] for end in ends]
    last = over_seeds(returns) if len(returns) > 1 else Estimate(returns[0], np.nan, np.nan)
    kinds = {kind: evaluated(group, kind) for kind in ("greedy", "sampled")}
    return {
        "label": group.label,
        "runs": [run.path for run in group.runs],
        "seeds": [run.seed for run in group.runs],
        **{kind: None if estimate is None else estimate._asdict() for kind, estimate in kinds.items()},
        "train_return": last._asdict(),
        "timesteps": float(np.median([end["time/timesteps"] for end in ends])),
        "seconds": float(np.median([end["time/seconds"] for end in ends])),
    }


def _shown(estimate: dict[str, float] | None) -> str:
    if estimate is None or estimate["mean"] != estimate["mean"]:
        return "–"
    interval = f" [{estimate['low']:.1f}, {estimate['high']:.1f}]" if estimate["low"] == estimate["low"] else ""
    return f"{estimate['mean']:.1f}{interval}"
