"""Callbacks: what follows a run while it trains. Two ship: evaluation while training, and early stop."""

import math
from typing import TYPE_CHECKING, Any

from rlgrad.core.checks import require
from rlgrad.metrics import EVALUATION_METRICS, WINDOW

if TYPE_CHECKING:
    from rlgrad.runs.run import Run

__all__ = ["Callback", "EarlyStop", "Evaluate"]


class Callback:
    """Something that looks on while a run trains. Override what you need.

    Attributes:
        metrics: names of what `on_update` adds to the metrics of a row; they become columns of the run's logs,
            which come after all other callbacks.
        only_looks: that it leaves the weights alone, as logs do: what is known about them then need not be read again.

    Example:
        >>> class Patience(Callback):
        ...     def on_update(self, run, metrics):
        ...         if metrics["train/return"] >= 500:
        ...             run.stop = True
    """

    metrics: tuple[str, ...] = ()
    only_looks = False

    def on_start(self, run: "Run") -> None:
        """Before the first update."""

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """After each logged row of metrics, by name. What is added here, under the names of `metrics`, is logged too."""

    def on_end(self, run: "Run") -> None:
        """After the last update, also when training stopped with an error."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, and `restore` is given when the run is gone on with: what JSON can hold."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""


class Evaluate(Callback):
    """Plays fresh episodes every so many steps, greedily and sampled, and adds their returns to the rows.

    The episodes are the same ones each time. They are played in environments of their own, at the weights of that moment, and
    change nothing in training.

    Args:
        interval: environment steps from one evaluation to the next; it comes with the first row after them.
        episodes: of each kind.

    Example:
        >>> rlgrad.train("a2c", "CartPole-v1", total_timesteps=100_000, callbacks=[Evaluate(10_000)])
    """

    metrics = EVALUATION_METRICS
    only_looks = True

    def __init__(self, interval: int, episodes: int = 20) -> None:
        require(interval >= 1, "interval", "at least 1", interval)
        require(episodes >= 1, "episodes", "at least 1", episodes)
        self._interval, self._episodes, self._next = interval, episodes, interval

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """Evaluate if it is time."""
        if run.timesteps < self._next:
            return
        self._next = (run.timesteps // self._interval + 1) * self._interval
        for kind in ("greedy", "sampled"):
            found = run.evaluate(self._episodes, greedy=kind == "greedy")
            metrics[f"eval/return_{kind}"] = found.mean_return
            metrics[f"eval/length_{kind}"] = float(found.lengths.mean())

    def state(self) -> dict[str, Any]:
        """When to evaluate next."""
        return {"next": self._next}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._next = state["next"]


class EarlyStop(Callback):
    """Ends training when it is good enough, or no longer gets better.

    It looks at `eval/return_greedy` where that is evaluated; else at `train/return`, once there are the 100 episodes that it is
    a mean of.

    Args:
        threshold: stop from this return on; none: never.
        patience: stop after so many looks in a row that brought no better return than before; none: never.
        metric: look at this one instead.

    Raises:
        ValueError: there is nothing to stop for.
    """

    only_looks = True

    def __init__(self, threshold: float | None = None, patience: int | None = None, metric: str | None = None) -> None:
        if threshold is None and patience is None:
            raise ValueError("EarlyStop needs a threshold, or a patience, to stop for.")
        require(patience is None or patience >= 1, "patience", "at least 1", patience)
        self._threshold, self._patience, self._metric = threshold, patience, metric
        self._best, self._waited = -math.inf, 0

    def on_start(self, run: "Run") -> None:
        """Choose what to look at.

        Raises:
            ValueError: the metric is none of this run's.
        """
        evaluated = "eval/return_greedy" in run.metrics
        self._watched = self._metric or ("eval/return_greedy" if evaluated else "train/return")
        if self._watched not in run.metrics:
            raise ValueError(f"This run has no metric {self._watched!r} to stop by. It has: {', '.join(run.metrics)}.")

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """Look, and stop the run if it is time."""
        value = metrics.get(self._watched, math.nan)
        if math.isnan(value) or (self._watched == "train/return" and run.episodes < WINDOW):
            return
        self._waited = 0 if value > self._best else self._waited + 1
        self._best = max(self._best, value)
        good = self._threshold is not None and value >= self._threshold
        if good or (self._patience is not None and self._waited >= self._patience):
            run.stop = True

    def state(self) -> dict[str, Any]:
        """The best return so far, and how many looks ago it was."""
        return {"best": self._best, "waited": self._waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._best, self._waited = state["best"], state["waited"]
