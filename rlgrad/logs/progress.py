"""The line in the terminal while a run trains."""

import logging
import math
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlgrad.runs.run import Run
from rlgrad.callbacks import Callback

_PLAIN_EVERY = 5.0


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
