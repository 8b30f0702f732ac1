"""The callbacks of a run, together."""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from rlgrad.callbacks import Callback, RunView

_log = logging.getLogger("rlgrad")


class Followers:
    """The callbacks of a run, in the order in which they are called.

    Args:
        callbacks: a list that may grow between two trainings.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = callbacks
        self._told: set[str] = set()  # what they added to rows without declaring it
        self._started: list[Callback] = []

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that they add to a row."""
        return tuple(dict.fromkeys(name for callback in self._callbacks for name in callback.metrics))

    @contextlib.contextmanager
    def following(self, run: RunView) -> Iterator[None]:
        """Start them, and end those that were started whatever happens, also in another one's end."""
        with contextlib.ExitStack() as ends:
            self._started = []
            for callback in self._callbacks:
                callback.on_start(run)
                self._started.append(callback)
                ends.callback(callback.on_end, run)
            yield

    def update(self, run: RunView, row: dict[str, float], add: Callable[[str], None], added: Collection[str]) -> bool:
        """Show them a row, to which they may add. Return False if they may have changed the weights.

        Args:
            run: the run.
            row: metrics by name.
            add: adds a metric to the run's.
            added: the metrics that it has added so far, also before a resume.

        Raises:
            ValueError: a callback logged under the name of one of the run's own metrics.
        """
        for callback in self._callbacks:
            callback.on_update(run, row)
            for name, value in callback.take_logged().items():
                if name not in run.metrics:
                    add(name)
                elif name not in {*added, *self.metrics}:
                    raise ValueError(
                        f"{type(callback).__name__}.log({name!r}): the run logs a metric of this name itself."
                    )
                row[name] = value
        if undeclared := row.keys() - {*run.metrics, *self._told}:
            self._told |= undeclared
            _log.warning(
                "A callback added %s to the metrics, which is not logged: a column is declared, as in `metrics = (%r,)` in its "
                "class, or made by self.log(name, value).",
                ", ".join(sorted(undeclared)),
                min(undeclared),
            )
        return all(callback.only_looks for callback in self._callbacks)

    def evaluated(self, run: RunView, results: Mapping[str, Any]) -> None:
        """Show the evaluation at the end to those that have followed this run from its beginning or since it was resumed."""
        for callback in self._started:
            callback.on_evaluation(run, results)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of each that has something to keep."""
        return {key: state for key, callback in self._by_key() if (state := callback.state())}

    def restore(self, states: Mapping[str, Any]) -> None:
        """Continue from `states`; those that have none begin anew."""
        for key, callback in self._by_key():
            if key in states:
                callback.restore(states[key])

    def _by_key(self) -> Iterator[tuple[str, Callback]]:
        """Yield each callback with its key in a checkpoint: its class's name, with `#2`, `#3` for further ones."""
        counts: Counter[str] = Counter()
        for callback in self._callbacks:
            name = type(callback).__name__
            counts[name] += 1
            yield name if counts[name] == 1 else f"{name}#{counts[name]}", callback
