"""Event files for TensorBoard, against environment steps: scalars, and on request histograms and videos."""

import hashlib
import logging
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlgrad.callbacks import Callback, RunView
from rlgrad.core import plain_files, settings
from rlgrad.core.faults import writing
from rlgrad.logs import event_files, events, videos
from rlgrad.logs.histograms import Histograms

_log = logging.getLogger("rlgrad")


class TensorBoardLog(Callback):
    """Event files in the run's folder.

    Args:
        histograms: show the weights, and what they changed by, at each row.
        videos: how many greedy episodes to film, evenly spaced over the run, the last at its end.
    """

    only_looks = True

    def __init__(self, *, histograms: bool = False, videos: int = 0) -> None:
        self._histograms = Histograms() if histograms else None
        self._videos, self._filmed = videos, 0
        self._scalars: dict[str, tuple[bytes, bytes]] = {}  # encoded once: only the number between the two changes

    def on_start(self, run: RunView) -> None:
        """Open an event file. Older ones lose the events of steps that are still to come."""
        event_files.take_back(run.path, run.timesteps)
        # TensorBoard's own writer writes from a thread, where a full disk goes unnoticed.
        self._path = run.path / f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        with writing(self._path):
            self._file = self._path.open("xb")
        self._write(0, events.version("brain.Event:2"))
        self._write(run.timesteps + 1, events.start())  # for a TensorBoard that has read the removed events
        self._write_settings(run)
        self._filmed = self._due(run)
        if self._histograms is not None:
            self._histograms.start(run.policy)

    def on_update(self, run: RunView, metrics: dict[str, float]) -> None:
        """Write a row, whole: what stayed in a buffer would be lost with a killed process."""
        values = self._encoded({name: value for name, value in metrics.items() if math.isfinite(value)})
        if self._histograms is not None:
            values += self._histograms.summaries(run.policy)
        if self._due(run) > self._filmed:
            self._filmed = self._due(run)
            values += self._film(run)
        self._write(run.timesteps, events.summary(*values))

    def on_end(self, run: RunView) -> None:
        """Film the final policy, if training came to its end, and close the event file."""
        if self._filmed < self._videos and (run.finished or run.stop):
            self._write(run.timesteps, events.summary(*self._film(run)))
        if self._said_settings:
            self._write(run.timesteps, events.summary(events.hparams_end(run.finished or run.stop, time.time())))
        with writing(self._path):
            self._file.close()

    def on_evaluation(self, run: RunView, results: Mapping[str, Any]) -> None:
        """Add the evaluation at the end of training, under the names that evaluations during training have."""
        numbers = {}
        for kind in ("greedy", "sampled"):
            numbers[f"eval/return_{kind}"] = float(results[kind]["mean_return"])
            numbers[f"eval/length_{kind}"] = float(np.mean(results[kind]["lengths"]))
        with writing(self._path):
            self._file = self._path.open("ab")
            self._write(run.timesteps, events.summary(*self._encoded(numbers)))
            self._file.close()

    def _write_settings(self, run: RunView) -> None:
        """Write config.yaml as a text, and its settings for the HParams page, where runs of other seeds are repetitions."""
        file = run.path / "config.yaml"
        self._said_settings = file.is_file()
        if not self._said_settings:
            return
        content = settings.read(file, follow=False)
        text = plain_files.read_bytes(file, plain_files.SETTINGS).decode()
        indented = "".join(f"    {line}\n" for line in text.splitlines())  # Markdown shows such lines as they are
        known = {n: _for_hparams(v) for n, v in settings.flat(_without_notes(content)).items() if v is not None}
        group = hashlib.sha256(repr([(n, v) for n, v in known.items() if n != "seed"]).encode()).hexdigest()[:16]
        values = (
            events.value("settings", "text", events.strings([indented.encode()])),
            events.hparams_start(known, group, time.time()),
        )
        self._write(run.timesteps, events.summary(*values))

    def _due(self, run: RunView) -> int:
        """Return how many videos there should be at this step. The last one is made at the end."""
        return min(self._videos * run.timesteps // run.config.total_timesteps, max(0, self._videos - 1))

    def _film(self, run: RunView) -> list[bytes]:
        try:
            return [videos.summary(run.config, run.policy, run.env_calls)]
        except Exception as error:  # a renderer may raise anything, and training continues
            _log.warning("No videos from here on, training continues: %s", error)
            self._videos = 0
            return []

    def _encoded(self, metrics: dict[str, float]) -> list[bytes]:
        with np.errstate(over="ignore"):  # a number beyond float32 is shown as infinite
            numbers = np.fromiter(metrics.values(), np.float64, len(metrics)).astype("<f4").tobytes()
        values: list[bytes] = []
        for i, name in enumerate(metrics):
            if name not in self._scalars:
                self._scalars[name] = events.scalar(name)
            before, after = self._scalars[name]
            values += (before, numbers[4 * i : 4 * i + 4], after)
        return values

    def _write(self, step: int, content: bytes) -> None:
        with writing(self._path):
            self._file.write(event_files.record(events.event(time.time(), step, content)))
            self._file.flush()


def _without_notes(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without what is no setting, and without where their numbers go."""
    return {name: value for name, value in content.items() if name not in ("resolved", "changed", "logs")}


def _for_hparams(value: Any) -> float | bool | str:
    return value if isinstance(value, bool | int | float | str) else str(value)
