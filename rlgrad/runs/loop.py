"""The training loop in four pieces: make an update, complete a row, keep a checkpoint, stop.

`Run.train` puts them together. Each piece decides by steps and by fixed rules, so that a run that is resumed does what it would
have done; only the time budget and the extra checkpoints of long stretches look at a clock.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from rlgrad import random
from rlgrad.learning.fused import Fused
from rlgrad.learning.learner import Learner
from rlgrad.policies.policy import Policy
from rlgrad.rollouts.base import Collector, Fusible
from rlgrad.runs.diagnosing import Watch

_ROWS = 250  # a run logs about this many rows, however many updates it makes
_FUSED_ROWS = 50  # where a call makes all updates of a row
_CHECKPOINTS = 10  # in shares of the run's steps
_SECONDS_BETWEEN_CHECKPOINTS = 60.0


@dataclass(frozen=True)
class Pace:
    """How often a run logs a row, diagnoses, and keeps a checkpoint.

    Attributes:
        total: environment steps of the whole run.
        needed: steps that must be left for a rollout to begin.
        updates_per_row: updates that a row summarizes.
        rows: of the run, where a row is complete when another share of the steps was taken: in whole episodes, whose number of
            steps is not known beforehand. 0: rows have `updates_per_row` updates.
    """

    total: int
    needed: int
    updates_per_row: int
    rows: int = 0

    @classmethod
    def of(cls, total: int, needed: int, *, by_steps: bool, fused: bool) -> "Pace":
        """Return the pace of a run.

        Args:
            total: environment steps of the whole run.
            needed: steps that must be left for a rollout to begin.
            by_steps: rollouts have a fixed number of steps; else they are whole episodes.
            fused: one call makes all updates of a row, or one of whole episodes.
        """
        rows = _FUSED_ROWS if fused else _ROWS
        return cls(total, needed, max(1, total // (needed * rows))) if by_steps else cls(total, needed, 1, rows)

    def has_room(self, timesteps: int) -> bool:
        """True if another rollout fits after `timesteps` steps."""
        return timesteps + self.needed <= self.total

    def completes_row(self, updates: int, before: int, after: int) -> bool:
        """True if a row is complete after `updates` of its updates, the last of which went from step `before` to `after`."""
        if not self.has_room(after):
            return True
        if self.rows:
            return before * self.rows // self.total != after * self.rows // self.total
        return updates >= self.updates_per_row

    def passes_checkpoint(self, before: int, after: int) -> bool:
        """True if a tenth of the run ended between two numbers of steps."""
        return before * _CHECKPOINTS // self.total != after * _CHECKPOINTS // self.total


class Clock:
    """Seconds of training, those before a resume included, and the budget for them.

    Args:
        seconds: spent before now.
        budget: seconds after which training ends, or `None`.
    """

    def __init__(self, seconds: float, budget: float | None) -> None:
        self._before, self._budget, self._begun = seconds, budget or math.inf, time.perf_counter()
        self.seconds = seconds

    def read(self) -> float:
        """Look at the clock, and return the seconds of training so far."""
        self.seconds = self._before + time.perf_counter() - self._begun
        return self.seconds

    @property
    def since_begin(self) -> float:
        """Seconds from the beginning of this clock to when it was last read."""
        return self.seconds - self._before

    @property
    def is_over(self) -> bool:
        """True if the budget was spent when the clock was last read."""
        return self.seconds >= self._budget


class Made(NamedTuple):
    """Updates that were made.

    Attributes:
        metrics: of each update.
        timesteps: environment steps that all of them took.
    """

    metrics: list[dict[str, float]]
    timesteps: int


class Updater:
    """Makes updates: one rollout and one update a call, or all of a row in one compiled program.

    Args:
        collector: plays the policy.
        policy: is trained.
        learner: moves the policy's weights.
        watch: diagnoses rollouts that complete a row.
        seed: of the run; shuffles draw from its stream.
    """

    def __init__(self, collector: Collector, policy: Policy, learner: Learner, watch: Watch, seed: int) -> None:
        self._collector, self._policy, self._learner, self._watch = collector, policy, learner, watch
        self._shuffles = random.Seeds(random.stream(seed, "shuffle"))
        self._fused: Fused | None = None
        self._actor: Callable[..., object] | None = None  # at the current weights; `None`: read from the policy

    def begin(self, updates_per_row: int, fusible: Fusible | None) -> None:
        """Prepare for training; the weights may have changed since the last update.

        Args:
            updates_per_row: the most updates in one call.
            fusible: the collector, if its rollouts and the updates are to be one compiled program.
        """
        self.forget_weights()
        if fusible is not None and self._fused is None:
            self._fused = Fused(fusible, self._learner, updates_per_row)

    def forget_weights(self) -> None:
        """Read the weights again before the next rollout: they may have been changed."""
        begins_at_once = getattr(self._collector, "begins_at_once", False)
        self._actor = self._learner.first_actor() if begins_at_once else None

    def advance(self, pace: Pace, updates: int, noted: int, timesteps: int) -> Made:
        """Make one update, or where rollout and update are fused, all that a row lacks.

        Args:
            pace: says which update completes a row.
            updates: made in the run so far.
            noted: of these, those of the row that is not complete.
            timesteps: environment steps taken so far.
        """
        if self._fused is not None:
            count = 1 if pace.rows else max(1, pace.updates_per_row - noted)
            made = self._fused.advance(count, timesteps, pace.total, self._shuffles(updates, count))
            return Made([update.metrics for update in made], sum(update.timesteps for update in made))
        progress = min(1.0, timesteps / pace.total)
        rollout = self._collector.collect(self._learner.acting(progress, timesteps), actor=self._actor)
        rehearsal = self._learner.rehearsal
        from_data = rehearsal is not None and rehearsal.from_data
        steps = self._collector.max_rollout_steps if from_data else int(rollout.mask.sum())
        if pace.completes_row(noted + 1, timesteps, timesteps + steps):
            self._watch.look(rollout, progress, timesteps)
        following = getattr(self._collector, "following", None) if self._learner.stream is not None else None
        metrics = self._learner.learn(rollout, progress, self._shuffles(updates, 1)[0], following)
        self._actor = self._learner.actor()
        if hasattr(self._collector, "measures"):
            metrics |= self._collector.measures()
        return Made([metrics], steps)


class Keeper:
    """Keeps checkpoints: at each tenth of the run, and after each minute without one.

    Args:
        pace: says where the tenths end.
        save: writes a checkpoint.
        save_milestone: writes one at the end of a tenth.
    """

    def __init__(self, pace: Pace, save: Callable[[], object], save_milestone: Callable[[], object]) -> None:
        self._pace, self._save, self._save_milestone = pace, save, save_milestone
        self._saved = time.perf_counter()

    def keep(self, before: int, after: int) -> None:
        """Write a checkpoint if one is due, after an update that went from step `before` to step `after`."""
        if self._pace.passes_checkpoint(before, after):
            self._save_milestone()
        elif time.perf_counter() - self._saved > _SECONDS_BETWEEN_CHECKPOINTS:
            self._save()
        else:
            return
        self._saved = time.perf_counter()
