"""`rlgrad compare`: compare runs in a table."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgrad.cli.fitting import Column, fitted, paragraph, terminal_width
from rlgrad.cli.loading import check_run
from rlgrad.cli.output import Result, parser_for

if TYPE_CHECKING:
    from rlgrad.analysis.groups import Group

_MEANING = (
    "Returns: interquartile mean over seeds, below it the 95 % bootstrap interval; of\n"
    "a single run the mean over its evaluation's episodes, with their interval.\n"
    "training: mean of the last 100 training episodes. seconds: median of training."
)
_EXPENDABLE = ("seconds", "sampled", "training")  # the first to go first
_LEAST_NAME, _LEAST_ENV = 14, 11


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "compare",
        "Compare runs in a table. Runs that differ in the seed alone share a row. Environments and budgets are never averaged.",
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
    table, unseen = fitted(_columns(documents), _EXPENDABLE, terminal_width())
    notes = [f"Not shown for lack of room, but by --json: {', '.join(unseen)}."] if unseen else []
    single = [row for row in documents if len(row["runs"]) == 1]
    alone = [paragraph(f"{row['name']} on {row['env']}: {row['runs'][0]}", terminal_width()) for row in single]
    folders = ["Single runs:", *alone] if alone else []
    return Result(documents, [table, f"\n{_MEANING}", *notes, *folders, *describe_left_out(left_out)])


def _columns(documents: list[dict[str, Any]]) -> list[Column]:
    returns = {"greedy": "greedy", "sampled": "sampled", "training": "train_return"}
    # Nothing that could be shown is left out in favour of a column without a number.
    known = {name: key for name, key in returns.items() if any(row[key] is not None for row in documents)}
    return [
        Column("group", [row["name"] for row in documents], right=False, least=_LEAST_NAME),
        Column("environment", [row["env"] for row in documents], right=False, least=_LEAST_ENV),
        Column("seeds", [str(len(row["seeds"])) for row in documents]),
        *(Column(name, [_shown(row[key]) for row in documents]) for name, key in known.items()),
        Column("steps", [f"{row['timesteps']:,.0f}" for row in documents]),
        Column("seconds", [f"{row['seconds']:,.1f}" for row in documents]),
    ]


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
        "name": group.name,
        "env": group.env,
        "runs": [run.path for run in group.runs],
        "seeds": [run.seed for run in group.runs],
        **{kind: None if estimate is None else estimate._asdict() for kind, estimate in kinds.items()},
        "train_return": last._asdict(),
        "timesteps": float(np.median([end["time/timesteps"] for end in ends])),
        "seconds": float(np.median([end["time/seconds"] for end in ends])),
    }


def _shown(estimate: dict[str, float] | None) -> str:
    if estimate is None or math.isnan(estimate["mean"]):
        return "–"
    mean, ends = _number(estimate["mean"], 1000.0), [_number(estimate[end], 100.0) for end in ("low", "high")]
    return mean if math.isnan(estimate["low"]) else f"{mean}\n[{', '.join(ends)}]"


def _number(value: float, whole_from: float) -> str:
    return f"{value:.{0 if abs(value) >= whole_from else 1}f}"
