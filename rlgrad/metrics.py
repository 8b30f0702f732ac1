"""Metrics of a run: their names, the journal that gathers them into rows, and the reader of metrics.csv."""

import csv
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlgrad.core.rows import table
from rlgrad.data import Episode

INFO = "info/"  # before the names of metrics that come from infos
WINDOW = 100  # train/return and train/length are means over this many episodes


class Journal:
    """Gathers the metrics of updates and episodes until they become a row.

    Args:
        metrics: names of the metrics that are logged.

    Attributes:
        history: metrics by name, one number for each logged row.
        updates: metrics of the updates since the last row.
        episodes: number of finished episodes.
        added: metrics that were not known from the beginning.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        self.history: dict[str, list[float]] = {name: [] for name in metrics}
        self.updates: list[dict[str, float]] = []
        self.episodes = 0
        self.added: list[str] = []
        self._infos: dict[str, tuple[float, int]] = {}
        self._recent: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    def note(
        self,
        updates: Iterable[dict[str, float]],
        finished: Sequence[Episode],
        infos: Mapping[str, tuple[float, int]] | None = None,
    ) -> None:
        """Add the metrics of updates, the episodes that finished in them, and sums over their infos with their numbers."""
        for name, (total, number) in (infos or {}).items():
            before = self._infos.get(name, (0.0, 0))
            self._infos[name] = before[0] + total, before[1] + number
        self.updates += updates
        self._recent.extend((episode.return_, episode.length) for episode in finished)
        self.episodes += len(finished)

    def row(self) -> dict[str, float]:
        """Return the metrics of training since the last row, and begin the next row."""
        returns, lengths = zip(*self._recent, strict=True) if self._recent else ((), ())
        made, self.updates = self.updates, []
        infos, self._infos = self._infos, {}
        means = {name if "/" in name else f"train/{name}": _mean([each[name] for each in made]) for name in made[0]}
        means |= {f"{INFO}{name}": total / number if number else math.nan for name, (total, number) in infos.items()}
        return {
            "train/return": _mean(returns),
            "train/length": _mean(lengths),
            "train/episodes": float(self.episodes),
        } | means

    def add(self, name: str) -> None:
        """Add a metric that no row had so far."""
        rows = max(map(len, self.history.values()), default=0)
        if name not in self.history:
            self.history[name] = [math.nan] * rows
            self.added.append(name)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Add a row to the history."""
        for name, column in self.history.items():
            column.append(metrics.get(name, math.nan))

    def state(self) -> dict[str, Any]:
        """Return the state that a checkpoint keeps. The history is in metrics.csv."""
        state = {"updates": self.updates, "episodes": self.episodes, "recent": list(self._recent)}
        return state | ({"infos": self._infos} if self._infos else {}) | ({"added": self.added} if self.added else {})

    def restore(self, state: Mapping[str, Any], history: Mapping[str, Sequence[float]]) -> None:
        """Continue from `state` and the logged history."""
        self.updates, self.episodes = list(state["updates"]), state["episodes"]
        self._recent = deque(map(tuple, state["recent"]), maxlen=WINDOW)
        self._infos = {name: (float(total), int(number)) for name, (total, number) in state.get("infos", {}).items()}
        for name in state.get("added", []):
            self.add(name)
        rows = max(map(len, history.values()), default=0)
        self.history = {name: list(history.get(name, [math.nan] * rows)) for name in self.history}


def _mean(numbers: Sequence[float]) -> float:
    known = [number for number in numbers if not math.isnan(number)]  # an update that does nothing yet has no metrics
    return math.fsum(known) / len(known) if known else math.nan


# Every run reports these, then its learner's (Learner.metrics) and with diagnose=True those of rlgrad.diagnostics.diagnosis.
# docs/metrics.md defines each, with its unit; a test compares the two.
METRICS = (
    "time/timesteps",
    "time/updates",
    "time/seconds",
    "time/steps_per_second",
    "train/return",
    "train/length",
    "train/episodes",
)


COUNTS = ("time/timesteps", "time/updates", "train/episodes")  # the whole numbers of METRICS


# Asynchronous workers add these to a row.
LAG_METRICS = ("time/policy_lag", "time/dropped_rollouts", "time/lost_rollouts")


# An evaluation during training adds these to a row.
EVALUATION_METRICS = ("eval/return_greedy", "eval/return_sampled", "eval/length_greedy", "eval/length_sampled")


def read_csv(path: Path, timesteps: float = math.inf) -> dict[str, list[float]]:
    """Read the columns of metrics.csv. Empty cells are NaN; rows that are damaged or only half written are left out.

    Args:
        path: the file.
        timesteps: leave out rows after this environment step.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold the metrics of a run.
    """
    try:
        header, rows = table(path, timesteps)
        cells = zip(*rows, strict=True) if rows else ((),) * len(header)
        columns = dict(zip(header, cells, strict=True))
        if "time/timesteps" not in columns:
            raise KeyError("it has no column time/timesteps")
        return {name: [float(cell) if cell else math.nan for cell in column] for name, column in columns.items()}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} does not hold the metrics of a run: {error}.") from error
