"""Learning curves as pictures: PNG, PDF or SVG, for a look or for a paper."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlgrad.analysis.groups import Group, curve, evaluated, grouped
from rlgrad.analysis.plotting import blank
from rlgrad.core.checks import close_names
from rlgrad.core.faults import whole

AXES = {"steps": "time/timesteps", "seconds": "time/seconds", "updates": "time/updates"}
"""What a curve may be drawn against, and the metric that says it."""
_LABELS = {"steps": "environment steps", "seconds": "seconds of training", "updates": "updates"}
RETURN = "train/return"
_RETURN = "return: sum of rewards per episode,\nmean of the last 100 training episodes"
_LOW = 3.5  # inches, in which a label of several lines has no room
_SEEDS = "\ninterquartile mean over seeds; band: 95 % interval"


@dataclass(frozen=True, kw_only=True)
class Look:
    """How curves are drawn.

    Attributes:
        metric: what is drawn, a column of metrics.csv.
        x: what it is drawn against, a key of `AXES`.
        smooth: rows whose mean each point is, the last ones.
        size: in inches.
        labels: one for each group, in their order; an empty list: the groups' own.
        title: above the picture; empty for none. `None`: the environment.
        style: a style of matplotlib, by name or file. `None`: the one that is set.
    """

    metric: str = RETURN
    x: str = "steps"
    smooth: int = 1
    size: tuple[float, float] = (7.0, 4.2)
    labels: tuple[str, ...] = ()
    title: str | None = None
    style: str | None = None


PLAIN = Look()


def plot_runs(runs: Sequence[Path], output: Path) -> Path:
    """Plot return against environment steps, one line for all runs that differ in the seed alone. See `plot_groups`.

    Args:
        runs: run folders.
        output: PNG, PDF or SVG to write.

    Returns:
        `output`.

    Raises:
        FileNotFoundError: a folder holds no metrics.csv.
    """
    return plot_groups(grouped(runs)[0], output)


def plot_groups(groups: Sequence[Group], output: Path, look: Look = PLAIN) -> Path:
    """Plot a metric over training, and beside the returns the greedy evaluation at the end.

    With several seeds the line is their interquartile mean and the band its 95 % bootstrap interval.

    Args:
        groups: one line for each.
        output: PNG, PDF or SVG to write.
        look: how.

    Returns:
        `output`.

    Raises:
        ValueError: no run has the metric, there are not as many labels as groups, or no such style; says which there are.
    """
    labels = _labels(groups, look)
    _require_metric(groups, look.metric)
    with _styled(look.style):
        figure = blank(*look.size)
        ends = [evaluated(group, "greedy") for group in groups] if look.metric == RETURN else []
        if any(end is not None for end in ends):
            narrow = max(0.04 + 0.02 * len(groups), 0.55 / look.size[0])  # room for its name
            axes, side = figure.subplots(1, 2, sharey=True, width_ratios=[1.0, narrow], gridspec_kw={"wspace": 0.02})
            _plot_ends(side, ends)
        else:
            axes = figure.add_subplot()
        _plot_curves(axes, groups, labels, look)
        if look.metric == RETURN:
            _plot_thresholds(axes, groups)
        axes.legend(fontsize="small")
        title = ", ".join(dict.fromkeys(group.env for group in groups)) if look.title is None else look.title
        if title:
            axes.set_title(title)
        with whole(output) as partial:
            figure.savefig(partial, dpi=130)
    return output


def _labels(groups: Sequence[Group], look: Look) -> list[str]:
    own = [f"{g.label} ({len(g.runs)} seeds)" if len(g.runs) > 1 else g.label for g in groups]
    if look.labels and len(look.labels) != len(groups):
        named = ", ".join(group.label for group in groups)
        raise ValueError(f"There are {len(groups)} curves ({named}) and {len(look.labels)} labels: give one for each.")
    return list(look.labels) or own


def _require_metric(groups: Sequence[Group], metric: str) -> None:
    known = dict.fromkeys(name for group in groups for run in group.runs for name in run.metrics)
    if metric not in known:
        raise ValueError(f"No run has a metric {metric!r}. {close_names(metric, list(known))}")


@contextlib.contextmanager
def _styled(style: str | None) -> Iterator[None]:
    if style is None:
        yield
        return
    import matplotlib.style

    try:
        context = matplotlib.style.context(style)
        context.__enter__()
    except OSError as error:
        raise ValueError(
            f"matplotlib has no style {style!r}, and no file has that name: give a file of settings such as "
            "`font.family: serif`, or the name of a style such as ggplot."
        ) from error
    try:
        yield
    finally:
        context.__exit__(None, None, None)


def _plot_curves(axes: Any, groups: Sequence[Group], labels: Sequence[str], look: Look) -> None:
    for i, (group, label) in enumerate(zip(groups, labels, strict=True)):
        line = curve(group, look.metric, AXES[look.x], look.smooth)
        axes.plot(line.timesteps, line.mean, label=label, color=f"C{i}", linewidth=1.6)
        if len(group.runs) > 1:
            axes.fill_between(line.timesteps, line.low, line.high, color=f"C{i}", alpha=0.18, linewidth=0)
    width, height = look.size
    several = any(len(group.runs) > 1 for group in groups)
    if height < _LOW:  # in a column of a paper, whose caption says it
        said = "return" if look.metric == RETURN else look.metric
    else:
        said = (_RETURN if look.metric == RETURN else look.metric) + (_SEEDS if several else "")
    axes.set_xlabel(_LABELS[look.x])
    axes.set_ylabel(said, fontsize="small")
    axes.xaxis.set_major_formatter(_thousands)
    axes.locator_params(axis="x", nbins=max(3, min(6, round(width))))
    axes.grid(alpha=0.3)


def _thousands(value: float, _: Any) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,g}"


def _plot_thresholds(axes: Any, groups: Sequence[Group]) -> None:
    results = [run.evaluation for group in groups for run in group.runs if run.evaluation is not None]
    for threshold in sorted({r["reward_threshold"] for r in results} - {None}):
        axes.axhline(threshold, color="grey", linestyle="--", linewidth=1, label=f"solved: {threshold:g}")


def _plot_ends(axes: Any, ends: Sequence[Any]) -> None:
    """Plot the evaluations side by side in a field of their own: they are of the last weights, and of no later step."""
    for i, end in enumerate(ends):
        if end is not None:
            low, high = (0.0 if np.isnan(d) else d for d in (end.mean - end.low, end.high - end.mean))
            axes.errorbar([i], [end.mean], [[low], [high]], fmt="o", markersize=5, color=f"C{i}", capsize=3)
    axes.set_xlim(-0.8, len(ends) - 0.2)
    axes.set_xticks([])
    axes.set_xlabel("greedy\nat end", fontsize="small")
    axes.tick_params(axis="y", left=False)
    axes.grid(axis="y", alpha=0.3)
