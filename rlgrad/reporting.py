"""What a run tells while it goes: the terminal, metrics.csv, TensorBoard."""

import csv
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
_PLAIN_EVERY = 5.0


class Callback:
    """Something that looks on while a run trains. Override what you need.

    Example:
        >>> class Patience(Callback):
        ...     def on_update(self, run, metrics):
        ...         if metrics["train/return"] >= 500:
        ...             run.stop = True

    Attributes:
        metrics: names of what it adds to the rows, in `on_update`; callbacks of yours come before the logs.
    """

    metrics: tuple[str, ...] = ()

    def on_start(self, run: "Run") -> None:
        """Before the first update."""

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """After each logged row of metrics, by name."""

    def on_end(self, run: "Run") -> None:
        """After the last update, also when training stopped with an error."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, and `restore` is given when the run is gone on with: what JSON can hold."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""


class CSVLog(Callback):
    """metrics.csv: one row a log interval, one column a metric; empty where a metric has no value yet."""

    def on_start(self, run: "Run") -> None:
        """Open the file; a continued run appends."""
        path = run.path / "metrics.csv"
        new = not path.exists()
        self._file = path.open("a", newline="")
        self._writer = csv.writer(self._file)
        if new:
            self._writer.writerow(run.metrics)

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """Write a row."""
        row = [metrics.get(name, math.nan) for name in run.metrics]
        self._writer.writerow("" if math.isnan(value) else f"{value:.7g}" for value in row)
        self._file.flush()

    def on_end(self, run: "Run") -> None:
        """Close the file."""
        self._file.close()


class TensorBoardLog(Callback):
    """Event files for TensorBoard, against environment steps."""

    def on_start(self, run: "Run") -> None:
        """Open an event file in the run's folder."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(run.path))

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """Write the scalars, as one event: one for each of them takes ten times as long."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_FLOAT

        kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
        values = [
            Summary.Value(tag=name, tensor=TensorProto(dtype=DT_FLOAT, float_val=[value]), metadata=kind)
            for name, value in metrics.items()
            if math.isfinite(value)
        ]
        self._writer.add_event(Event(wall_time=time.time(), step=run.timesteps, summary=Summary(value=values)))

    def on_end(self, run: "Run") -> None:
        """Close the event file."""
        self._writer.close()


class Progress(Callback):
    """A bar with steps/s, return and time left; plain lines where the output is no terminal, notebooks included."""

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
    """metrics.csv as columns; empty cells are not-a-number.

    Args:
        path: the file.
        timesteps: rows after more environment steps are left out.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]  # the last one may be half written
    names = rows[0].keys() if rows else METRICS
    rows = [row for row in rows if float(row["time/timesteps"]) <= timesteps]
    return {name: [float(row[name]) if row[name] else math.nan for row in rows] for name in names}
