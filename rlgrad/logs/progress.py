"""The line in the terminal while a run trains."""

import logging
import math
import os
import sys
import time
from typing import Any

from rlgrad.callbacks import Callback, RunView

_PLAIN_EVERY = 5.0


class Progress(Callback):
    """Shows a bar with steps, steps/s, return and time left; outside of a terminal, notebooks included, plain lines.

    docs/progress.md shows both.
    """

    only_looks = True

    def on_start(self, run: RunView) -> None:
        """Show the bar, or print what begins."""
        from rich.console import Console

        console = Console(stderr=False)
        self._last, self._line = time.perf_counter(), _steps(run)
        self._first: tuple[int, float] | None = None  # steps and seconds at the first row, when all is compiled
        agent, total = run.config.agent, run.config.total_timesteps
        name = type(agent).__name__
        say(f"{name} on {run.config.env_name}, {total:,} steps in {agent.num_envs} environments. Into {run.path}")
        self._bar: Any = None
        if console.is_terminal and not console.is_jupyter:
            self._show_bar(run, console)

    def on_update(self, run: RunView, metrics: dict[str, float]) -> None:
        """Move the bar, or print a line every few seconds."""
        value, rate = metrics["train/return"], self._rate(run.timesteps, metrics["time/seconds"])
        shown = "–" if math.isnan(value) else f"{value:.1f}"
        self._line, left = f"{_steps(run)}  return {shown}", ""
        if rate is not None:
            self._line = f"{_steps(run)}  {rate:,.0f} steps/s  return {shown}"
            left = f"  {_clock(max(0, run.config.total_timesteps - run.timesteps) / rate)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=run.timesteps, line=f"{self._line}{left}")
        elif time.perf_counter() - self._last >= _PLAIN_EVERY:
            self._last = time.perf_counter()
            say(f"{self._line}{left}")

    def on_end(self, run: RunView) -> None:
        """Leave the bar as it is, and continue below it."""
        if self._bar is not None:
            self._bar.update(self._task, line=self._line)
            self._bar.stop()
            for handler, stream in self._moved:
                handler.setStream(stream)

    def _rate(self, timesteps: int, seconds: float) -> float | None:
        """Return steps per second since the first row, which compilation came before; `None`: this is the first."""
        steps, begun = self._first = self._first or (timesteps, seconds)
        return (timesteps - steps) / (seconds - begun) if timesteps > steps and seconds > begun else None

    def _show_bar(self, run: RunView, console: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        columns = [TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[line]}")]
        self._bar = Progress(*columns, console=console, expand=True)
        before = sys.stdout, sys.stderr
        self._bar.start()
        self._task = self._bar.add_task(
            run.config.env_name, total=run.config.total_timesteps, completed=run.timesteps, line=self._line
        )
        # The bar has replaced both streams, to print their text above itself. Logging handlers still write to the old ones.
        after = dict(zip(before, (sys.stdout, sys.stderr), strict=True))
        handlers = [
            h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler) and h.stream in after
        ]
        self._moved = [(handler, handler.setStream(after[handler.stream])) for handler in handlers]


def say(text: str) -> None:
    """Print a line. If its reader has ended, say so once on stderr, and let training continue.

    Characters that the output cannot hold are replaced.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, errors="replace").decode(encoding), flush=True)
    except BrokenPipeError:
        # All later output goes nowhere, and raises nothing at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("rlgrad: nothing reads the output any more. Training continues, and says no more.", file=sys.stderr)
    except (OSError, ValueError):  # a full disk, a closed stream: no reason to lose the training
        pass


def _steps(run: RunView) -> str:
    total = f"{run.config.total_timesteps:,}"
    return f"{run.timesteps:>{len(total)},} of {total} steps"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
