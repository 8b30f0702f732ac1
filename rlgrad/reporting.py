"""What a run tells while it goes: names of its metrics, callbacks, and the line in the terminal. rlgrad.logs keeps it."""

import csv
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgrad.logs.files import whole_lines

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
    """A bar with steps/s, return and time left; plain lines where the output is no terminal, notebooks included."""

    only_looks = True

    def on_start(self, run: "Run") -> None:
        """Show the bar, or say what begins."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=False)
        self._last = time.perf_counter()
        agent, total = run.config.agent, run.config.total_timesteps
        name = type(agent).__name__
        print(f"{name} on {run.config.env_name}, {total:,} steps in {agent.num_envs} environments. Into {run.path}")
        self._bar: Any = None
        if console.is_terminal and not console.is_jupyter:
            columns = [
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps  {task.fields[rate]} steps/s  return {task.fields[value]}"),
                TextColumn("left"),
                TimeRemainingColumn(),
            ]
            self._bar = Progress(*columns, console=console)
            self._bar.start()
            self._task = self._bar.add_task(
                run.config.env_name, total=total, completed=run.timesteps, rate="–", value="–"
            )

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """Move the bar, or every few seconds write a line."""
        value = metrics["train/return"]
        shown, rate = "–" if math.isnan(value) else f"{value:.1f}", metrics["time/steps_per_second"]
        if self._bar is not None:
            self._bar.update(self._task, completed=run.timesteps, rate=f"{rate:,.0f}", value=shown)
        elif time.perf_counter() - self._last >= _PLAIN_EVERY:
            self._last = time.perf_counter()
            total = run.config.total_timesteps
            left = (total - run.timesteps) / rate
            print(
                f"{run.timesteps:>10,} of {total:,} steps  {rate:,.0f} steps/s  return {shown}  {left:,.0f} s left",
                flush=True,
            )

    def on_end(self, run: "Run") -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.update(self._task, completed=run.timesteps, total=run.timesteps)
            self._bar.stop()
        sys.stdout.flush()


def read_csv(path: Path, timesteps: float = math.inf) -> dict[str, list[float]]:
    """metrics.csv as columns; empty cells are not-a-number. A last line that is only half there counts as not written.

    Args:
        path: the file.
        timesteps: rows after more environment steps are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    try:
        rows = list(csv.DictReader(whole_lines(path)))
        names = rows[0].keys() if rows else METRICS
        rows = [row for row in rows if float(row["time/timesteps"]) <= timesteps]
        return {name: [float(row[name]) if row[name] else math.nan for row in rows] for name in names}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} does not hold the metrics of a run: {error}.") from error
