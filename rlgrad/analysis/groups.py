"""Groups of run folders: runs that differ in the seed alone belong to one group."""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlgrad.analysis.statistics import bootstrap_interval, interquartile_mean, mean_interval, running_mean
from rlgrad.core import plain_files, registry
from rlgrad.core.settings import flat
from rlgrad.core.settings import read as settings_of
from rlgrad.metrics import read_csv

Array = np.ndarray[Any, Any]
_POINTS = 200  # of a curve
# Settings that leave the weights as they are.
_NOT_TRAINED_BY = (
    "seed",
    "resolved",
    "changed",
    "evaluation_episodes",
    "evaluation_interval",
    "diagnose",
    "logs",
    "log_info",
    "histograms",
    "videos",
    "workers",
    "ray_address",
    "worker_timeout",
)
_ENDED_BY = ("stop_at_return", "patience", "time_budget")  # rules by which each seed ends where it may
_EVALUATED = ("mean_return", "std_return", "episodes")
_SHOWN = 3  # settings in a label


class RunFiles(NamedTuple):
    """The content of a run's folder.

    Attributes:
        path: the folder.
        seed: of the run.
        settings: all other settings that decide the weights, flat: `agent.gamma`, `env`.
        metrics: columns of metrics.csv.
        evaluation: content of evaluation.json. `None`: the run was not evaluated.
    """

    path: Path
    seed: int
    settings: dict[str, Any]
    metrics: dict[str, list[float]]
    evaluation: dict[str, Any] | None


class Group(NamedTuple):
    """Runs of the same settings.

    Attributes:
        name: the agent, and the settings that other groups of this agent and environment do not share.
        env: the environment.
        label: the name, with the environment where the others have another one.
        runs: one for each seed, ordered by seed.
    """

    name: str
    env: str
    label: str
    runs: tuple[RunFiles, ...]


class Estimate(NamedTuple):
    """A mean and its 95 % interval.

    Attributes:
        mean: interquartile mean over seeds; of one run, the mean over its episodes.
        low: lower end.
        high: upper end.
    """

    mean: float
    low: float
    high: float


class Curve(NamedTuple):
    """Training return against environment steps.

    Attributes:
        timesteps: float (P,).
        mean: interquartile mean over seeds, float (P,).
        low: of the 95 % bootstrap interval, float (P,); of one run the mean.
        high: likewise.
    """

    timesteps: Array
    mean: Array
    low: Array
    high: Array


def read_run(path: Path) -> RunFiles:
    """Read a run's folder.

    Raises:
        FileNotFoundError: it has no config.yaml or no metrics.csv.
        ValueError: a file holds something else than a run writes there; the message names it.
    """
    plain_files.require_plain(path)
    for name in ("config.yaml", "metrics.csv"):
        if not (path / name).is_file():
            raise FileNotFoundError(
                f"{path / name} is not there: the folder holds no run, or one that logged nothing yet."
            )
    content = settings_of(path / "config.yaml", follow=False)
    settings = flat({key: value for key, value in content.items() if key not in _NOT_TRAINED_BY})
    if content.get("changed"):
        settings["continued"] = _continued(path, content["changed"])
    for name in ("model", "value_model", "critic_model"):
        if (path / f"{name}.json").exists():
            settings[name] = (
                f"given-{zlib.crc32(plain_files.read_bytes(path / f'{name}.json', plain_files.DOCUMENT)):08x}"
            )
    seed = content.get("seed", 0)
    if type(seed) is not int:
        raise ValueError(f"{path / 'config.yaml'}: seed is an integer, got {seed!r}.")
    return RunFiles(path, seed, settings, read_csv(path / "metrics.csv"), _evaluation(path / "evaluation.json"))


def _continued(path: Path, changed: Any) -> str:
    """Return a text for a run that was continued with other settings, which is not one that had them from the beginning."""
    try:
        return "; ".join(
            f"after {each['timesteps']} steps, before: {', '.join(f'{k}={v}' for k, v in sorted(each['before'].items()))}"
            for each in changed
        )
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"{path / 'config.yaml'}: changed is not what a resumed run writes there.") from error


def _evaluation(file: Path) -> dict[str, Any] | None:
    """Read evaluation.json. Raise a ValueError if it holds anything but what an evaluation writes."""
    if not file.exists():
        return None
    content = plain_files.read_json(file)
    known = content if isinstance(content, dict) else {}
    kinds = [known.get(kind) for kind in ("greedy", "sampled")]
    numbers = [kind.get(name) for kind in kinds if isinstance(kind, dict) for name in _EVALUATED]
    threshold = known.get("reward_threshold")
    numbers += [] if threshold is None else [threshold]
    if len(numbers) < 2 * len(_EVALUATED) or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(
            f"{file} does not hold the results of an evaluation. Make them anew: rlgrad evaluate {file.parent}"
        )
    return known


def grouped(paths: Sequence[Path]) -> tuple[list[Group], list[Path]]:
    """Group runs by their settings, in the order given.

    Args:
        paths: run folders.

    Returns:
        The groups, and the folders that were left out because another, at least as far, has their settings and seed.
    """
    together: dict[str, dict[int, RunFiles]] = {}
    left_out = []
    for path in paths:
        run = read_run(path)
        seeds = together.setdefault(json.dumps(run.settings, sort_keys=True, default=str), {})
        twin = seeds.get(run.seed)
        if twin is None:
            seeds[run.seed] = run
        else:  # the run that is further counts, in whatever order they are given
            kept, dropped = sorted((twin, run), key=_rank)
            seeds[run.seed] = kept
            left_out.append(dropped.path)
    found = [runs for seeds in together.values() for runs in _of_one_budget([seeds[seed] for seed in sorted(seeds)])]
    several = len({_env(runs) for runs in found}) != 1 or len(found) == 1
    groups = []
    for runs in found:
        name, env = _name(runs, found), _env(runs)
        groups.append(Group(name, env, f"{name} on {env}" if several else name, runs))
    return groups, left_out


def _of_one_budget(runs: list[RunFiles]) -> list[tuple[RunFiles, ...]]:
    """Split runs of the same settings by the steps that they took, unless a rule of theirs ends each where it may.

    A run that was killed, or still trains, is no seed of those that came to their end.
    """
    if any(runs[0].settings.get(rule) is not None for rule in _ENDED_BY):
        return [tuple(runs)]
    by_steps: dict[float | None, list[RunFiles]] = {}
    for run in runs:
        by_steps.setdefault(_steps_of_unfinished(run), []).append(run)
    return [tuple(together) for together in by_steps.values()]


def _steps_of_unfinished(run: RunFiles) -> float | None:
    """Return the steps that a run took, if another rollout would fit into its budget; else `None`."""
    taken = max(run.metrics["time/timesteps"], default=0.0)
    total, envs = run.settings.get("total_timesteps"), run.settings.get("agent.num_envs", 1)
    rollout = envs * (run.settings.get("agent.num_steps") or 1)
    return None if not isinstance(total, int) or taken + rollout > total else taken


def _rank(run: RunFiles) -> tuple[float, bool, str]:
    return -max(run.metrics["time/timesteps"], default=0.0), run.evaluation is None, str(run.path)


def evaluated(group: Group, kind: str) -> Estimate | None:
    """Return the mean return of fresh episodes, `"greedy"` or `"sampled"`. `None`: a run was not evaluated.

    The interval is a bootstrap over seeds; for a single run it comes from the standard deviation of its episodes.
    """
    results = [run.evaluation[kind] for run in group.runs if run.evaluation is not None]
    if len(results) < len(group.runs):
        return None
    if len(results) == 1:
        (r,) = results
        return Estimate(r["mean_return"], *mean_interval(r["mean_return"], r["std_return"], r["episodes"]))
    return over_seeds([r["mean_return"] for r in results])


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the interquartile mean of one number for each seed, with its interval."""
    low, high = bootstrap_interval(values)
    return Estimate(float(interquartile_mean(values)), float(low), float(high))


def curve(group: Group, metric: str = "train/return", against: str = "time/timesteps", smooth: int = 1) -> Curve:
    """Return a metric of the group over training, where all its runs have a value of it.

    Args:
        group: of runs.
        metric: a column of metrics.csv.
        against: another one, which grows.
        smooth: rows whose mean each value is, the last ones.
    """
    known = [_known(run, metric, against, smooth) for run in group.runs]
    if len(known) == 1 or not all(len(steps) for steps, _ in known):
        steps, values = known[0] if len(known) == 1 else (np.empty(0), np.empty(0))
        return Curve(steps, values, values, values)
    begin, end = max(steps[0] for steps, _ in known), min(steps[-1] for steps, _ in known)
    at = np.linspace(begin, end, _POINTS)
    values = np.stack([np.interp(at, steps, returns) for steps, returns in known], axis=-1)
    low, high = bootstrap_interval(values, resamples=2000)
    return Curve(at, interquartile_mean(values), low, high)


def _known(run: RunFiles, metric: str, against: str, smooth: int) -> tuple[Array, Array]:
    steps = np.asarray(run.metrics[against], np.float64)
    values = np.asarray(run.metrics.get(metric, np.full(len(steps), np.nan)), np.float64)
    finite = np.isfinite(values)
    return steps[finite], running_mean(values[finite], smooth)


def differing(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all groups, with the value in each; `None` where it is absent."""
    names = dict.fromkeys(name for group in groups for name in group.runs[0].settings)
    values = {name: [group.runs[0].settings.get(name) for group in groups] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def _env(runs: tuple[RunFiles, ...]) -> str:
    return _short(runs[0].settings.get("env"))


def _name(runs: tuple[RunFiles, ...], groups: list[tuple[RunFiles, ...]]) -> str:
    """Return the agent, and what tells these runs from others of this agent and environment."""
    settings, steps = runs[0].settings, _steps_of_unfinished(runs[0])
    others = [group[0].settings for group in groups if group is not runs]
    alike = [other for other in others if all(other.get(key) == settings.get(key) for key in ("agent.name", "env"))]
    differing = [key for key in settings if any(other.get(key) != settings[key] for other in alike)]
    differing.sort(key=lambda key: key == "total_timesteps")  # last: it has a column of its own in a table
    shown = [f"{_last(key, settings)}={_short(settings[key])}" for key in differing[:_SHOWN]]
    more = ["…"] if len(differing) > _SHOWN else []
    ended = any(settings.get(rule) is not None for rule in _ENDED_BY)
    unfinished = [] if steps is None or ended or len(groups) == 1 else [f"unfinished, {steps:,.0f} steps"]
    return ", ".join([_short(settings.get("agent.name")), *shown, *more, *unfinished])


def _last(key: str, settings: Mapping[str, Any]) -> str:
    """Return the end of a dotted name, as long as it takes to be the only one of these settings."""
    parts = key.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if sum(other == end or other.endswith(f".{end}") for other in settings) == 1:
            return end
    return key


def _short(value: Any) -> str:
    """Return a setting as a label shows it: numbers in few digits, files without their folders."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    place, rest = registry.split_call(str(value))
    return f"{Path(place).name}:{rest}" if place.endswith(".py") else str(value)
