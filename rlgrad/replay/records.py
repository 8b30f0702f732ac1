"""The options of an agent that learns from what was stored: its replay, its slow copies, and how it explores."""

import math
import numbers
from typing import Any

from rlgrad.core.checks import require, require_at_most
from rlgrad.core.schedules import Schedule, factor
from rlgrad.hyperparameters import Record

MOST_STEPS = 2**30
"""The most steps of a replay. Rows are numbered by int32."""


class Replay(Record):
    """Steps played earlier, from which batches are drawn."""

    capacity: int = 1_000_000
    """Steps kept, over all environments together. The last observation of each episode takes the room of a step, and so do the
    older frames of its first stack, where stacks are stored a frame a step."""
    batch_size: int = 256
    """Steps drawn for each gradient step."""
    warmup: int = 1_000
    """Steps played with uniformly random actions before the first gradient step, over all environments together."""
    updates_per_step: float = 1.0
    """Gradient steps for each environment step. Fractions are carried over to the next rollout."""
    n_steps: int = 1
    """Steps whose rewards are added up before the value of the state after them is taken; fewer where an episode ends."""
    frames: int | None = None
    """Frames that observations stack, the oldest first (`FrameStackObservation`): each is kept once. `None`: all are kept."""
    prioritized: bool = False
    """Draw steps in proportion to a power of their priority instead of uniformly."""
    priority_exponent: float = 0.6
    """Power of the priority, if prioritized: 0 draws uniformly, 1 in proportion to the priority."""
    importance_exponent: float = 0.4
    """Power of the importance weights at the start of training, if prioritized; it rises linearly to 1 at the end."""
    hindsight: float = 0.0
    """Share of the drawn steps whose goal is replaced by one that their episode reached later, with the reward that the
    environment's `compute_reward` gives for it. For Dict observations with `achieved_goal` and `desired_goal`; 0.8 is usual.
    0: none."""
    data: str | None = None
    """Learn from recorded episodes alone: a folder of them (`rlgrad record-data`), or the id of a Minari dataset on this
    machine. Nothing is played for training then, all of the data is kept, and a step of the run is a gradient step."""
    data_digest: str | None = None
    """SHA-256 digest of the data, which a run writes down when it begins; other data are refused. `None`: any are taken."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        if self.data is None and self.data_digest is not None:
            raise ValueError("data_digest is of data, and there are none: set data, or leave it out.")
        if self.data is not None and self.prioritized:
            raise ValueError(
                "prioritized is of steps that a run plays: leave it out for data, which are drawn uniformly."
            )
        require(0.0 <= self.hindsight <= 1.0, "hindsight", "between 0 and 1", self.hindsight)
        others = {
            "prioritized": self.prioritized,
            "n_steps above 1": self.n_steps > 1,
            "frames": self.frames is not None,
        }
        for name in (name for name, is_set in others.items() if is_set and self.hindsight):
            raise ValueError(f"hindsight relabels single steps that are drawn uniformly: leave {name} out.")
        for name in ("capacity", "batch_size", "n_steps"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.frames is None or self.frames >= 2, "frames", "at least 2, or None", self.frames)
        require(self.warmup >= 0, "warmup", "at least 0", self.warmup)
        require(
            0.0 < self.updates_per_step <= 2**16, "updates_per_step", "above 0, at most 65,536", self.updates_per_step
        )
        require_at_most(self, capacity=MOST_STEPS, batch_size=2**24, n_steps=2**10)
        for name in ("priority_exponent", "importance_exponent"):
            require(0.0 <= getattr(self, name) <= 1.0, name, "between 0 and 1", getattr(self, name))
        if self.warmup > self.capacity:
            raise ValueError(
                f"warmup is at most capacity, {self.capacity:,}, since more steps are never held at once; got {self.warmup:,}."
            )


_MOMENTS = 100


class Target(Record):
    """Copies of weights that follow them slowly: θ′ ← θ′ + rate · (θ − θ′)."""

    rate: float = 0.005
    """Share of the way to the current weights that the copies go at once. 1: they become equal."""
    every: int = 1
    """Gradient steps from one such move to the next."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        require(0.0 < self.rate <= 1.0, "rate", "above 0, at most 1", self.rate)
        require(self.every >= 1, "every", "at least 1", self.every)
        require_at_most(self, every=2**30)


class Linear(Record):
    """A number that goes from `start` to `end`, linearly unless its schedule says otherwise, and stays there."""

    start: float = 1.0
    """Value at the start of training."""
    end: float = 0.0
    """Value from then on."""
    over: float = 1.0
    """Share of training, counted in environment steps, after which `end` is reached."""
    schedule: Schedule = "linear"
    """How it goes there: its factor 1 is `start`, and 0 is `end`."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        for name in ("start", "end"):
            require(math.isfinite(getattr(self, name)), name, "a finite number", getattr(self, name))
        require(0.0 < self.over <= 1.0, "over", "above 0, at most 1", self.over)

    def at(self, progress: Any) -> Any:
        """Return the value at a moment of training.

        Args:
            progress: share of the run's environment steps already taken, 0 … 1: a number, or a tensor of them.
        """
        if isinstance(progress, numbers.Real):
            done = min(float(progress) / self.over, 1.0)
        else:
            import tensorflow as tf

            done = tf.minimum(progress / self.over, 1.0)
        if self.schedule == "linear":
            return self.start + (self.end - self.start) * done
        return self.end + (self.start - self.end) * factor(self.schedule, done)


class Exploration(Record):
    """How acting for training differs from the policy."""

    random: float | Linear = 0.0
    """Share of actions that are drawn uniformly instead (ε of ε-greedy)."""
    noise: float | Linear = 0.0
    """Standard deviation of Gaussian noise on continuous actions."""

    def __post_init__(self) -> None:
        """Check the fields, at the start and at the end of a schedule."""
        for value in _course(self.random):
            require(0.0 <= value <= 1.0, "random", "between 0 and 1", value)
        for value in _course(self.noise):
            require(0.0 <= value < math.inf, "noise", "a number ≥ 0", value)

    def share(self, progress: Any) -> Any:
        """Return the share of actions that are random at a moment of training. See `Linear.at`."""
        return _at(self.random, progress)

    def deviation(self, progress: Any) -> Any:
        """Return the standard deviation of the noise at a moment of training. See `Linear.at`."""
        return _at(self.noise, progress)


def _course(value: float | Linear) -> list[float]:
    """Return the values of a number over training: all that it may have, or those at a hundred moments."""
    if not isinstance(value, Linear):
        return [value]
    return [value.start, value.end, *(float(value.at(i / _MOMENTS)) for i in range(_MOMENTS + 1))]


def _at(value: float | Linear, progress: Any) -> Any:
    return value.at(progress) if isinstance(value, Linear) else value
