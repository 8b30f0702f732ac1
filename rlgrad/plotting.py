"""Learning curves as PNG."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlgrad.reporting import read_csv


def plot_runs(runs: Sequence[Path], output: Path) -> Path:
    """Return against environment steps, one line a run.

    Args:
        runs: run folders.
        output: PNG to write.

    Returns:
        `output`.

    Raises:
        FileNotFoundError: a folder holds no metrics.csv.
    """
    # The object interface draws without a display and leaves a notebook's own figures alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    thresholds = set()
    for run in runs:
        columns = read_csv(run / "metrics.csv")
        axes.plot(columns["time/timesteps"], columns["train/return"], label=run.name, linewidth=1.6)
        evaluation = run / "evaluation.json"
        if evaluation.exists():
            results = json.loads(evaluation.read_text())
            thresholds.add(results["reward_threshold"])
            end = columns["time/timesteps"][-1:] or [np.nan]
            mean, std = results["greedy"]["mean_return"], results["greedy"]["std_return"]
            color = axes.get_lines()[-1].get_color()
            label = "greedy evaluation, mean ± deviation" if run is runs[-1] else None
            axes.errorbar(end, [mean], [std], fmt="o", color=color, capsize=3, label=label)
    for threshold in thresholds - {None}:
        axes.axhline(threshold, color="grey", linestyle="--", linewidth=1, label=f"solved: {threshold:g}")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return: sum of rewards per episode,\nmean of the last 100 training episodes")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(output, dpi=130)
    return output
