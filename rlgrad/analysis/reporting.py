"""The report on runs: one HTML page of what was run and on what, curves, evaluations, diagnostics, and how to repeat it."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlgrad.analysis import pages, svg
from rlgrad.analysis.diagnostics_report import diagnosed
from rlgrad.analysis.episode_report import EpisodeSteps, followed
from rlgrad.analysis.groups import Estimate, Group, RunFiles, curve, differing, evaluated, over_seeds
from rlgrad.analysis.statistics import performance_profile, probability_of_improvement
from rlgrad.core import plain_files

_FIRST = ("train/return", "train/length")
_NOT_SHOWN = ("time/timesteps", "time/updates", "time/seconds", "train/episodes", "train/return")
_MOST_SHOWN = 60  # figures of metrics
_NONE: Mapping[str, EpisodeSteps] = {}
_SEEDS = "Lines are interquartile means over seeds, bands their 95 % bootstrap intervals. "


class Film(NamedTuple):
    """An episode as a film, or why there is none.

    Attributes:
        content: of the file; empty if there is none.
        kind: `"gif"` or `"mp4"`.
        caption: what it shows, or the reason.
    """

    content: bytes
    kind: str
    caption: str


def report(
    groups: Sequence[Group],
    films: Mapping[str, Film],
    left_out: Sequence[Path] = (),
    episodes: Mapping[str, EpisodeSteps] = _NONE,
) -> str:
    """Return the report as an HTML page that asks nothing of a network.

    Args:
        groups: of runs.
        films: by what they are of.
        left_out: folders of runs that repeat others.
        episodes: whose steps are followed, by what they are of.
    """
    envs = list(dict.fromkeys(group.env for group in groups))
    names = dict.fromkeys(group.name.partition(",")[0] for group in groups)
    runs = [run for group in groups for run in group.runs]
    twins = [pages.text(f"Left out, since they repeat others: {', '.join(map(str, left_out))}.")] if left_out else []
    of_envs = (_environment(env, [group for group in groups if group.env == env]) for env in envs)
    return pages.page(
        f"{', '.join(names)} on {', '.join(envs)}",
        _summary(groups),
        *twins,
        *(part for parts in of_envs for part in parts),
        pages.section(
            "An episode",
            pages.grid(*(_film(name, film) for name, film in films.items())),
            *(followed(name, episode) for name, episode in episodes.items()),
        ),
        *(_measured(env, [group for group in groups if group.env == env]) for env in envs),
        pages.section("Gradients", *(diagnosed(run.path, run.metrics, _who(run)) for run in runs)),
        _settings(groups),
        _made(runs),
        _commands(runs),
    )


def _summary(groups: Sequence[Group]) -> str:
    rows = []
    for group in groups:
        ends = [{name: (values[-1:] or [math.nan])[0] for name, values in run.metrics.items()} for run in group.runs]
        last = [end.get("train/return", math.nan) for end in ends]
        training = over_seeds(last) if len(last) > 1 else Estimate(last[0], math.nan, math.nan)
        rows.append(
            (
                group.name,
                group.env,
                len(group.runs),
                *(_shown(evaluated(group, kind)) for kind in ("greedy", "sampled")),
                _shown(training),
                f"{np.median([end.get('time/timesteps', math.nan) for end in ends]):,.0f}",
                f"{np.median([end.get('time/seconds', math.nan) for end in ends]):,.1f}",
            )
        )
    header = ("group", "environment", "seeds", "greedy", "sampled", "training", "steps", "seconds")
    meaning = (
        "Return with its 95 % interval: over seeds the interquartile mean and a bootstrap, of a single run the mean over its "
        "evaluation's episodes and Student's t. training: mean of the last 100 training episodes."
    )
    return pages.table(header, rows, numbers=range(2, 8)) + pages.text(meaning, soft=True)


def _environment(env: str, groups: Sequence[Group]) -> Iterator[str]:
    """Yield the curves, the evaluations and the comparison of the groups on one environment, which are never averaged."""
    results = [run.evaluation for group in groups for run in group.runs if run.evaluation is not None]
    threshold = next((r["reward_threshold"] for r in results if r.get("reward_threshold") is not None), None)
    level = None if threshold is None else (float(threshold), f"solved: {threshold:g}")
    drawn = [_series(group, "train/return", evaluated(group, "greedy")) for group in groups]
    several = any(len(group.runs) > 1 for group in groups)
    caption = (
        (_SEEDS if several else "")
        + "Return in training: mean of the last 100 episodes. "
        + (
            "Points at the right: greedy evaluation at the end, with its 95 % interval."
            if results
            else "Not evaluated."
        )
    )
    names = [group.name for group in groups]
    figure = svg.lines(drawn, x_label="environment steps", y_label="return", level=level)
    yield pages.section(f"Learning on {env}", pages.figure(figure + svg.legend(names), caption))
    yield pages.section(f"Evaluation on {env}", *_evaluations(groups))
    yield pages.section(f"Comparison on {env}", *_comparison(groups))


def _series(group: Group, metric: str, end: Estimate | None = None) -> svg.Series:
    line = curve(group, metric)
    several = len(group.runs) > 1
    low, high = (line.low, line.high) if several else (None, None)
    point = None if end is None else (end.mean, end.low, end.high)
    return svg.Series(group.name, line.timesteps, line.mean, low, high, point)


def _evaluations(groups: Sequence[Group]) -> Iterator[str]:
    for kind in ("greedy", "sampled"):
        drawn = []
        for group in groups:
            of_runs = [(run.evaluation or {}).get(kind, {}).get("returns") or [] for run in group.runs]
            returns = [r for each in of_runs for r in each if isinstance(r, int | float) and math.isfinite(r)]
            if returns:
                drawn.append(_reached(group.name, returns))
        if drawn:
            figure = svg.lines(drawn, x_label="return", y_label="share of episodes")
            caption = f"Share of the {kind} episodes of all seeds whose return is at least so high."
            yield pages.heading(f"{kind} episodes")
            yield pages.figure(figure + svg.legend([each.name for each in drawn]), caption)


def _reached(name: str, returns: Sequence[float]) -> svg.Series:
    ordered = np.sort(np.asarray(returns, np.float64))
    shares = np.concatenate([[1.0], 1.0 - np.arange(1, len(ordered) + 1) / len(ordered)])
    return svg.Series(name, np.concatenate([ordered[:1], ordered]), shares, steps=True)


def _comparison(groups: Sequence[Group]) -> Iterator[str]:
    """Yield rliable's metrics of several groups that were evaluated: means, who is better, and profiles."""
    scored = [(group.name, scores) for group in groups if (scores := _scores(group)) is not None]
    if len(scored) < 2:
        return
    names, means = [name for name, _ in scored], [over_seeds(scores) for _, scores in scored]
    yield pages.heading("Greedy return, interquartile mean over seeds")
    low, high = [each.low for each in means], [each.high for each in means]
    label = "return, 95 % bootstrap interval"
    yield pages.figure(svg.bars(names, [each.mean for each in means], label=label, low=low, high=high))
    pairs = [(a, b) for i, a in enumerate(scored) for b in scored[i + 1 :]]
    chances = [probability_of_improvement(a[1], b[1]) for a, b in pairs]
    yield pages.heading("Probability of improvement")
    rows = [
        (a[0], b[0], f"{p:.2f} [{low:.2f}, {high:.2f}]") for (a, b), (p, low, high) in zip(pairs, chances, strict=True)
    ]
    yield pages.table(("a run of", "is better than one of", "with probability"), rows, numbers=(2,))
    yield pages.heading("Performance profiles")
    every = [score for _, scores in scored for score in scores]
    levels = np.linspace(min(every), max(every), 400)
    profiles = [performance_profile(scores, levels) for _, scores in scored]
    drawn = [svg.Series(name, levels, *each, steps=True) for name, each in zip(names, profiles, strict=True)]
    caption = "Share of runs whose greedy return is above each level; bands: 95 % bootstrap intervals over seeds."
    figure = svg.lines(drawn, x_label="greedy return", y_label="share of runs")
    yield pages.figure(figure + svg.legend(names), caption)
    if min(len(scores) for _, scores in scored) < 5:
        yield pages.text("With fewer than five seeds these intervals are too narrow to be trusted.", soft=True)


def _scores(group: Group) -> list[float] | None:
    known = [float(run.evaluation["greedy"]["mean_return"]) for run in group.runs if run.evaluation is not None]
    return known if len(known) == len(group.runs) else None


def _film(name: str, film: Film) -> str:
    shown = pages.film(film.content, film.kind) if film.content else ""
    return f"<div>{pages.heading(name)}{pages.figure(shown, film.caption)}</div>"


def _measured(env: str, groups: Sequence[Group]) -> str:
    """Return a small figure of every metric that was logged, but for those that have figures of their own."""
    names = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.metrics))
    shown = [name for name in names if name not in _NOT_SHOWN and not name.startswith("gradient/")]
    figures = []
    for name in sorted(shown, key=lambda each: (each not in _FIRST, names.index(each)))[:_MOST_SHOWN]:
        drawn = [_series(group, name) for group in groups]
        if any(len(each.x) for each in drawn):
            figure = svg.lines(drawn, x_label="environment steps", y_label="", width=420.0, height=220.0)
            figures.append(f"<div>{pages.heading(name)}{pages.figure(figure)}</div>")
    legend = svg.legend([group.name for group in groups]) if len(groups) > 1 else ""
    said = pages.text("docs/metrics.md says what each number is.", soft=True) if figures else ""
    return pages.section(f"What was logged on {env}", said, legend, pages.grid(*figures))


def _settings(groups: Sequence[Group]) -> str:
    parts = []
    if len(groups) > 1:
        rows = [(name, *map(_word, values)) for name, values in differing(groups).items()]
        parts = [pages.heading("What differs"), pages.table(("setting", *(group.name for group in groups)), rows)]
    for group in groups:
        rows = [(name, _word(value)) for name, value in group.runs[0].settings.items()]
        parts.append(pages.folded(f"All settings of {group.name} on {group.env}", pages.table((), rows)))
    return pages.section("Settings", *parts)


def _made(runs: Sequence[RunFiles]) -> str:
    """Return where, when and with which versions the runs were made."""
    rows: list[tuple[Any, ...]] = []
    versions: dict[str, dict[str, Any]] = {}
    for run in runs:
        said = _provenance(run.path)
        machine, git = _mapping(said.get("machine")), _mapping(said.get("git"))
        on = ", ".join(str(machine[key]) for key in ("platform", "architecture") if key in machine)
        cores = f", {machine['cores']} cores" if "cores" in machine else ""
        commit = f"{str(git.get('commit', ''))[:12]}{' and changes' if git.get('dirty') else ''}"
        rows.append(
            (run.path, run.seed, said.get("started", "unknown"), f"{on}{cores}", said.get("device", ""), commit)
        )
        versions[json.dumps(_mapping(said.get("versions")), sort_keys=True, default=str)] = _mapping(
            said.get("versions")
        )
    header = ("run", "seed", "began", "machine", "device", "git")
    named = [", ".join(f"{name} {version}" for name, version in each.items()) for each in versions.values() if each]
    lines = [pages.text(f"Versions: {each}.", soft=True) for each in named]
    return pages.section("Made on", pages.table(header, rows, numbers=(1,)), *lines)


def _commands(runs: Sequence[RunFiles]) -> str:
    asked = [str(_provenance(run.path).get("command", "")) for run in runs]
    first = [command for command in dict.fromkeys(asked) if command]
    again = [shlex.join(["rlgrad", "train", "--from", str(run.path), "--seed", str(run.seed)]) for run in runs]
    further = [
        shlex.join(["rlgrad", "evaluate", str(runs[0].path)]),
        shlex.join(["rlgrad", "report", *(str(run.path) for run in runs)]),
    ]
    return pages.section(
        "To repeat it",
        pages.text("The runs were made by:"),
        pages.code("\n".join(first) or "(their folders do not say)"),
        pages.text("With the same seed, machine and versions the weights are the same to the bit:"),
        pages.code("\n".join(again)),
        pages.text("This page, and fresh episodes:"),
        pages.code("\n".join(further)),
    )


def _provenance(path: Path) -> dict[str, Any]:
    file = path / "run.json"
    try:
        return _mapping(plain_files.read_json(file)) if file.is_file() else {}
    except ValueError:
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _who(run: RunFiles) -> str:
    return f"{run.path.name}, seed {run.seed}"


def _word(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _shown(estimate: Estimate | None) -> str:
    if estimate is None or math.isnan(estimate.mean):
        return "–"
    return f"{estimate.mean:.1f}" + ("" if math.isnan(estimate.low) else f" [{estimate.low:.1f}, {estimate.high:.1f}]")
