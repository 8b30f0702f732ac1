"""Where a run stands: how far it has come, and how good its best checkpoint is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_JUDGED = "eval/return_greedy", "train/return"  # the first of them that a run has decides which checkpoint is the best


@dataclass
class Standing:
    """Counts of a run, and the returns that its checkpoints are judged by.

    Attributes:
        timesteps: environment steps taken.
        updates: updates made.
        seconds: of training.
        stop: True if training ends, or ended, after the current update.
        returns: the last ones that were logged, in all digits.
        best: the return at the checkpoint that best.npz is a copy of.
    """

    timesteps: int = 0
    updates: int = 0
    seconds: float = 0.0
    stop: bool = False
    returns: dict[str, float] = field(default_factory=dict)
    best: float = -math.inf

    def note(self, row: Mapping[str, float]) -> None:
        """Remember the returns of a logged row."""
        self.returns |= {name: row[name] for name in _JUDGED if not math.isnan(row.get(name, math.nan))}

    def improves(self, metrics: Sequence[str]) -> bool:
        """Return True if the last return is better than all that were asked about before, and remember it.

        Args:
            metrics: names of the run's.
        """
        last = self.returns.get(next(name for name in _JUDGED if name in metrics), -math.inf)
        better = last > self.best
        self.best = max(self.best, last)
        return better

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return dict(vars(self))

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        counts = {name: state[name] for name in ("timesteps", "updates")}
        if not all(type(count) is int and count >= 0 for count in counts.values()):
            raise TypeError(f"its counts are {counts}")
        self.timesteps, self.updates = counts["timesteps"], counts["updates"]
        self.seconds, self.best = float(state["seconds"]), float(state["best"])
        self.stop, self.returns = bool(state.get("stop", False)), dict(state.get("returns", {}))
