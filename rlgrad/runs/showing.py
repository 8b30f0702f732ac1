"""Runs and evaluations as people see them: the line at the end of training, and what a notebook shows."""

import html
import math
from typing import Any, Protocol

import numpy as np

from rlgrad.analysis import svg
from rlgrad.callbacks import RunView
from rlgrad.config import agent_name


class ShownRun(RunView, Protocol):
    """The part of a run that is shown."""

    @property
    def seconds(self) -> float:
        """Seconds of training."""

    @property
    def collector(self) -> Any:
        """The collector, which knows from which return the task counts as solved."""


class ShownEvaluation(Protocol):
    """The part of an evaluation that is shown."""

    @property
    def greedy(self) -> bool:
        """True if the most likely action was taken."""

    @property
    def returns(self) -> Any:
        """Of each episode."""

    @property
    def lengths(self) -> Any:
        """Steps of each episode."""

    @property
    def mean_return(self) -> float:
        """Mean over episodes."""

    @property
    def episodes(self) -> int:
        """Number of episodes."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean."""


def verdict(run: ShownRun, results: dict[str, Any] | None) -> str:
    """Return a sentence on how a run ended.

    Args:
        run: the run.
        results: content of evaluation.json. `None`: it was not evaluated.
    """
    env, seconds = run.config.env_name, f"{run.timesteps:,} steps in {run.seconds:.1f} s"
    if results is None:
        last = _last(run, "train/return")
        return f"{env}: {seconds}" + ("." if math.isnan(last) else f", return in training {last:.1f}; not evaluated.")
    greedy, threshold = results["greedy"], results["reward_threshold"]
    mean, episodes = greedy["mean_return"], greedy["episodes"]
    measured = (
        f"greedy return {mean:.1f} over {episodes} fresh episodes (sampled: {results['sampled']['mean_return']:.1f})"
    )
    if threshold is None:
        return f"{env} after {seconds}: {measured}. It has no threshold from which it counts as solved."
    said = "is solved" if results["solved"] else "is not solved yet"
    return f"{env} {said} after {seconds}: {measured}; solved from {threshold:g}."


def run_text(run: ShownRun) -> str:
    """Return a run in a line: agent, environment, how far it is, its last return, and its folder."""
    total, last = run.config.total_timesteps, _last(run, "train/return")
    shown = "" if math.isnan(last) else f", return in training {last:.1f}"
    name = agent_name(run.config.agent).rpartition("/")[2]
    return f"<Run of {name} on {run.config.env_name}: {run.timesteps:,} of {total:,} steps{shown}, in {run.path}>"


def run_html(run: ShownRun) -> str:
    """Return a run for a notebook: its line, and its learning curve."""
    steps, returns = (np.asarray(run.history[name]) for name in ("time/timesteps", "train/return"))
    curves = [svg.Series("return in training, mean of the last 100 episodes", steps, returns)]
    evaluated = np.asarray(run.history.get("eval/return_greedy", []))
    if np.isfinite(evaluated).any():
        known = np.isfinite(evaluated)
        curves.append(svg.Series("greedy return in evaluations", steps[known], evaluated[known]))
    threshold = run.collector.reward_threshold
    level = None if threshold is None else (threshold, f"solved: {threshold:g}")
    figure = svg.lines(curves, x_label="environment steps", y_label="return", level=level) if len(steps) else ""
    names = svg.legend([curve.name for curve in curves]) if len(steps) else ""
    return f"<div><style>{svg.style()}</style><p>{html.escape(run_text(run)[1:-1])}</p>{figure}{names}</div>"


def evaluation_text(evaluation: ShownEvaluation) -> str:
    """Return an evaluation in a line: mean return, its interval, episodes and their lengths."""
    low, high = evaluation.interval
    interval = "" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]"
    count, kind = evaluation.episodes, "greedy" if evaluation.greedy else "sampled"
    episodes = f"{count} {kind} episode{'' if count == 1 else 's'}"
    length = float(np.mean(evaluation.lengths))
    return f"<Evaluation: return {evaluation.mean_return:.1f}{interval} over {episodes} of {length:.1f} steps>"


def evaluation_html(evaluation: ShownEvaluation) -> str:
    """Return an evaluation for a notebook: its line, and the share of episodes that reached each return."""
    figure = svg.lines(
        [reached(evaluation.returns, "episodes")], x_label="return", y_label="share of episodes that reached it"
    )
    text = html.escape(evaluation_text(evaluation)[1:-1])
    return f"<div><style>{svg.style()}</style><p>{text}; in brackets, the 95 % interval of the mean.</p>{figure}</div>"


def reached(returns: Any, name: str) -> svg.Series:
    """Return the share of episodes whose return is at least x, as steps over x."""
    ordered = np.sort(np.asarray(returns, np.float64))
    x = np.concatenate([ordered[:1], ordered])
    y = np.concatenate([[1.0], 1.0 - np.arange(1, len(ordered) + 1) / max(1, len(ordered))])
    return svg.Series(name, x, y, steps=True)


def _last(run: ShownRun, name: str) -> float:
    known = [value for value in run.history[name] if not math.isnan(value)]
    return known[-1] if known else math.nan
