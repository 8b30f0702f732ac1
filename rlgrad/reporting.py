"""What a run tells while it goes: names of its metrics, callbacks, and the line in the terminal. rlgrad.logs keeps it."""

import csv
import logging
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgrad.logs.files import table

if TYPE_CHECKING:
    from rlgrad.run import Run

# What every run reports, before what its learner has to say (Learner.metrics) and, with diagnose=True, what the gradients tell
# (rlgrad.diagnostics.diagnosis). docs/metrics.md defines each, with its unit; a test holds the two together.
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
_PLAIN_EVERY = 5.0


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


class Progress(Callback):
    """A bar with steps, steps/s, return and time left; plain lines where the output is no terminal, notebooks included.

    docs/progress.md shows both.
    """

    only_looks = True

    def on_start(self, run: "Run") -> None:
        """Show the bar, or say what begins."""
        from rich.console import Console

        console = Console(stderr=False)
        self._last, self._line = time.perf_counter(), _steps(run)
        agent, total = run.config.agent, run.config.total_timesteps
        name = type(agent).__name__
        print(f"{name} on {run.config.env_name}, {total:,} steps in {agent.num_envs} environments. Into {run.path}")
        self._bar: Any = None
        if console.is_terminal and not console.is_jupyter:
            self._show_bar(run, console)

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """Move the bar, or every few seconds write a line."""
        value = metrics["train/return"]
        shown, rate = "–" if math.isnan(value) else f"{value:.1f}", metrics["time/steps_per_second"]
        left = _clock(max(0, run.config.total_timesteps - run.timesteps) / rate)
        self._line = f"{_steps(run)}  {rate:,.0f} steps/s  return {shown}"
        if self._bar is not None:
            self._bar.update(self._task, completed=run.timesteps, line=f"{self._line}  {left} left")
        elif time.perf_counter() - self._last >= _PLAIN_EVERY:
            self._last = time.perf_counter()
            print(f"{self._line}  {left} left", flush=True)

    def on_end(self, run: "Run") -> None:
        """Leave the bar where it is, and go below it."""
        if self._bar is not None:
            self._bar.update(self._task, line=self._line)
            self._bar.stop()
            for handler, stream in self._moved:
                handler.setStream(stream)
        sys.stdout.flush()

    def _show_bar(self, run: "Run", console: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        columns = [TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[line]}")]
        self._bar = Progress(*columns, console=console, expand=True)
        before = sys.stdout, sys.stderr
        self._bar.start()
        self._task = self._bar.add_task(
            run.config.env_name, total=run.config.total_timesteps, completed=run.timesteps, line=self._line
        )
        # The bar has taken the place of both streams, to write what comes above itself. Handlers hold on to the old ones.
        after = dict(zip(before, (sys.stdout, sys.stderr), strict=True))
        handlers = [
            h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler) and h.stream in after
        ]
        self._moved = [(handler, handler.setStream(after[handler.stream])) for handler in handlers]


def _steps(run: "Run") -> str:
    total = f"{run.config.total_timesteps:,}"
    return f"{run.timesteps:>{len(total)},} of {total} steps"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def read_csv(path: Path, timesteps: float = math.inf) -> dict[str, list[float]]:
    """metrics.csv as columns; empty cells are not-a-number. What is only half written, or damaged, is left out.

    Args:
        path: the file.
        timesteps: rows after more environment steps are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
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
