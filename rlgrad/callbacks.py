"""Callbacks follow a run while it trains, and see the part of it that `RunView` names. Two ship: evaluation and early stop."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rlgrad.core.checks import require
from rlgrad.core.faults import OutputFault
from rlgrad.environments.types import EnvironmentSettings
from rlgrad.metrics import EVALUATION_METRICS, WINDOW

if TYPE_CHECKING:
    import numpy as np

    from rlgrad.agent import Agent
    from rlgrad.policies.policy import Policy

_log = logging.getLogger("rlgrad")

__all__ = ["Callback", "EarlyStop", "Evaluate", "RunView"]


class RunSettings(EnvironmentSettings, Protocol):
    """The part of a run's config that a callback may read. `rlgrad.config.Config` documents each setting."""

    @property
    def agent(self) -> "Agent":
        """The agent, with its hyper-parameters."""

    @property
    def env_name(self) -> str:
        """The environment's id, or the name of its class or function."""

    @property
    def seed(self) -> int:
        """The seed of all random streams."""

    @property
    def total_timesteps(self) -> int:
        """Environment steps to take in all."""


class Evaluated(Protocol):
    """The result of an evaluation."""

    @property
    def mean_return(self) -> float:
        """Mean return of the episodes."""

    @property
    def lengths(self) -> "np.ndarray[Any, Any]":
        """Steps of each episode, (episodes,)."""


class RunView(Protocol):
    """The part of a run that callbacks and logs may use.

    Attributes:
        stop: set it to `True` to end training after this update.
    """

    stop: bool

    @property
    def path(self) -> Path:
        """The run's folder."""

    @property
    def config(self) -> RunSettings:
        """The run's settings."""

    @property
    def policy(self) -> "Policy":
        """The policy at its current weights."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that are logged, in order."""

    @property
    def history(self) -> Mapping[str, Sequence[float]]:
        """Metrics by name, one number for each row so far."""

    @property
    def timesteps(self) -> int:
        """Environment steps taken."""

    @property
    def updates(self) -> int:
        """Updates made."""

    @property
    def episodes(self) -> int:
        """Training episodes finished."""

    @property
    def finished(self) -> bool:
        """True if no further rollout fits into `config.total_timesteps`."""

    @property
    def env_calls(self) -> Sequence[Any]:
        """The calls of `call_envs` and `set_env_attr` so far."""

    def evaluate(self, episodes: int = 100, greedy: bool = True) -> Evaluated:
        """Play fresh episodes at the current weights. Training is not affected."""

    def call_envs(self, name: str, *arguments: Any, **options: Any) -> list[Any]:
        """Call a method of every environment, evaluations included. Return the result of each."""

    def set_env_attr(self, name: str, value: Any) -> None:
        """Set an attribute of every environment, evaluations included."""


class Callback:
    """Looks on while a run trains. Override the methods that you need.

    Attributes:
        metrics: names that `on_update` adds to the metrics of a row; they become columns of the run's logs, which are called
            after all other callbacks.
        only_looks: `True` if the callback never changes the weights. The run can then reuse its copy of them.

    Example:
        >>> class Patience(Callback):
        ...     def on_update(self, run, metrics):
        ...         if metrics["train/return"] >= 500:
        ...             run.stop = True
    """

    metrics: tuple[str, ...] = ()
    only_looks = False

    def log(self, name: str, value: Any) -> None:
        """Log a number under a name, in every log of the run, with the next row.

        Of several values before a row, the row has the mean. Rows before the first value of a name have none. Logs, which are
        called last, write what callbacks before them have logged.

        Args:
            name: such as `"mine/level"`; none of the run's own metrics.
            value: a number.

        Raises:
            TypeError: the value is no single number, or the name no text.
        """
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise TypeError(f"log(name, value) takes a printable text as the name, got {name!r}.")
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"log({name!r}, value) takes one number, got {value!r}.") from error
        vars(self).setdefault("_logged", {}).setdefault(name, []).append(number)

    def take_logged(self) -> dict[str, float]:
        """Return the means of what was logged since the last call. The run calls this after `on_update`."""
        logged: dict[str, list[float]] = vars(self).pop("_logged", {})
        return {name: math.fsum(values) / len(values) for name, values in logged.items()}

    def on_start(self, run: RunView) -> None:
        """Act before the first update, and before the first one after a resume."""

    def on_update(self, run: RunView, metrics: dict[str, float]) -> None:
        """Act on a row of metrics, by name. Numbers added under the names of `metrics`, and those of `log`, are logged too."""

    def on_end(self, run: RunView) -> None:
        """Act after the last update, also if training stopped with an error."""

    def on_evaluation(self, run: RunView, results: Mapping[str, Any]) -> None:
        """Act on the evaluation at the end of a run, after `on_end`: the content of evaluation.json."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint should keep, as JSON can hold it. A resumed run passes it to `restore`."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""


class Evaluate(Callback):
    """Plays fresh episodes at regular intervals, greedily and sampled, and adds their returns to the rows.

    Every evaluation plays the same episodes, in environments of its own, at the current weights. Training is not affected. If
    an evaluation is not possible, as where an episode without a time limit does not end, its numbers stay empty, a warning says
    why, and the next attempt comes after twice as many intervals.

    Args:
        interval: environment steps between evaluations. Each comes with the first row after them.
        episodes: how many of each kind.

    Example:
        >>> rlgrad.train("a2c", "CartPole-v1", total_timesteps=100_000, callbacks=[Evaluate(10_000)])
    """

    metrics = EVALUATION_METRICS
    only_looks = True

    def __init__(self, interval: int, episodes: int = 20) -> None:
        require(interval >= 1, "interval", "at least 1", interval)
        require(episodes >= 1, "episodes", "at least 1", episodes)
        self._interval, self._episodes, self._next = interval, episodes, interval
        self._wait = 1  # intervals until the next evaluation

    def on_update(self, run: RunView, metrics: dict[str, float]) -> None:
        """Evaluate if an evaluation is due."""
        if run.timesteps < self._next:
            return
        failed = False
        for kind in ("greedy", "sampled"):
            try:
                found = run.evaluate(self._episodes, greedy=kind == "greedy")
            except OutputFault:  # a fault of the environment, which training would meet, too
                raise
            except ValueError as error:
                if self._wait == 1 and not failed:
                    _log.warning("Training continues without an evaluation at step %s: %s", f"{run.timesteps:,}", error)
                failed = True
                continue
            metrics[f"eval/return_{kind}"] = found.mean_return
            metrics[f"eval/length_{kind}"] = float(found.lengths.mean())
        self._wait = 2 * self._wait if failed else 1
        self._next = (run.timesteps // self._interval + self._wait) * self._interval

    def state(self) -> dict[str, Any]:
        """Return the step of the next evaluation, and the intervals from the last one to it."""
        return {"next": self._next, "wait": self._wait}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._next, self._wait = int(state["next"]), int(state.get("wait", 1))


class EarlyStop(Callback):
    """Ends training when the return is high enough, or stops improving.

    It looks at `eval/return_greedy` if the run is evaluated during training, and otherwise at `train/return` once that is over
    100 episodes.

    Args:
        threshold: stop from this return on. `None`: never.
        patience: stop after this many looks in a row without a better return than before. `None`: never.
        metric: look at this metric instead.

    Raises:
        ValueError: neither a threshold nor a patience is given.
    """

    only_looks = True

    def __init__(self, threshold: float | None = None, patience: int | None = None, metric: str | None = None) -> None:
        if threshold is None and patience is None:
            raise ValueError("EarlyStop needs a threshold, or a patience, to stop for.")
        require(patience is None or patience >= 1, "patience", "at least 1", patience)
        self._threshold, self._patience, self._metric = threshold, patience, metric
        self._best, self._waited = -math.inf, 0

    def on_start(self, run: RunView) -> None:
        """Choose the metric.

        Raises:
            ValueError: the run has no metric of this name.
        """
        evaluated = "eval/return_greedy" in run.metrics
        self._watched = self._metric or ("eval/return_greedy" if evaluated else "train/return")
        if self._watched not in run.metrics:
            raise ValueError(f"This run has no metric {self._watched!r} to stop by. It has: {', '.join(run.metrics)}.")

    def on_update(self, run: RunView, metrics: dict[str, float]) -> None:
        """Look at the metric, and stop the run if it is good enough or no longer improves."""
        value = metrics.get(self._watched, math.nan)
        if math.isnan(value) or (self._watched == "train/return" and run.episodes < WINDOW):
            return
        self._waited = 0 if value > self._best else self._waited + 1
        self._best = max(self._best, value)
        good = self._threshold is not None and value >= self._threshold
        if good or (self._patience is not None and self._waited >= self._patience):
            run.stop = True

    def state(self) -> dict[str, Any]:
        """Return the best return so far, and the number of looks since."""
        return {"best": self._best, "waited": self._waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._best, self._waited = float(state["best"]), int(state["waited"])


def make_callbacks(
    *, evaluation_interval: int | None, stop_at_return: float | None, patience: int | None
) -> list[Callback]:
    """Make the callbacks that the settings of a run ask for.

    Args:
        evaluation_interval: environment steps between evaluations. `None`: none during training.
        stop_at_return: end training from this return on. `None`: never.
        patience: end training after this many looks without a better return. `None`: never.
    """
    callbacks: list[Callback] = []
    if evaluation_interval is not None:
        callbacks.append(Evaluate(evaluation_interval))
    if stop_at_return is not None or patience is not None:
        callbacks.append(EarlyStop(stop_at_return, patience))
    return callbacks
