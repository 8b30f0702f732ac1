"""Metrics of a run: their names, and the journal that gathers those of updates and episodes into rows."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlgrad.data import Episode

if TYPE_CHECKING:
    pass

WINDOW = 100  # episodes that train/return and train/length are means of


class Journal:
    """Gathers the metrics of updates and episodes until they become a row.

    Args:
        metrics: names of the metrics that are logged.

    Attributes:
        history: metrics by name, one entry a logged row.
        updates: metrics of the updates since the last row.
        episodes: number of finished episodes.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        self.history: dict[str, list[float]] = {name: [] for name in metrics}
        self.updates: list[dict[str, float]] = []
        self.episodes = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    def note(self, updates: Iterable[dict[str, float]], finished: Sequence[Episode]) -> None:
        """Add the metrics of updates, and the episodes that finished in them."""
        self.updates += updates
        self._recent.extend((episode.return_, episode.length) for episode in finished)
        self.episodes += len(finished)

    def row(self) -> dict[str, float]:
        """Return the metrics of training since the last row, and begin the next row."""
        returns, lengths = zip(*self._recent, strict=True) if self._recent else ((), ())
        made, self.updates = self.updates, []
        means = {f"train/{name}": _mean([each[name] for each in made]) for name in made[0]}
        return {
            "train/return": _mean(returns),
            "train/length": _mean(lengths),
            "train/episodes": float(self.episodes),
        } | means

    def log(self, metrics: Mapping[str, float]) -> None:
        """Add a row to the history."""
        for name, column in self.history.items():
            column.append(metrics.get(name, math.nan))

    def state(self) -> dict[str, Any]:
        """Return the state that a checkpoint keeps. The history is in metrics.csv."""
        return {"updates": self.updates, "episodes": self.episodes, "recent": list(self._recent)}

    def restore(self, state: Mapping[str, Any], history: Mapping[str, Sequence[float]]) -> None:
        """Continue from `state` and the logged history."""
        self.updates, self.episodes = list(state["updates"]), state["episodes"]
        self._recent = deque(map(tuple, state["recent"]), maxlen=WINDOW)
        rows = max(map(len, history.values()), default=0)
        self.history = {name: list(history.get(name, [math.nan] * rows)) for name in self.history}


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


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


COUNTS = ("time/timesteps", "time/updates", "train/episodes")  # of METRICS, those that are whole numbers


# What an evaluation during training adds to a row.
EVALUATION_METRICS = ("eval/return_greedy", "eval/return_sampled", "eval/length_greedy", "eval/length_sampled")
