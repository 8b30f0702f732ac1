"""Event files for TensorBoard, against environment steps: scalars, and on request histograms and videos."""

import logging
import math
import os
import socket
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rlgrad.callbacks import Callback
from rlgrad.core.faults import writing
from rlgrad.logs import event_files, videos
from rlgrad.logs.histograms import Histograms

if TYPE_CHECKING:
    from rlgrad.runs.run import Run

_log = logging.getLogger("rlgrad")


class TensorBoardLog(Callback):
    """Event files in the run's folder.

    Args:
        histograms: of the weights, and of what they changed by, at each row.
        videos: how many greedy episodes to film, evenly spaced over the run, the last at its end.
    """

    only_looks = True

    def __init__(self, *, histograms: bool = False, videos: int = 0) -> None:
        self._histograms = Histograms() if histograms else None
        self._videos, self._filmed = videos, 0
        self._scalars: dict[str, Any] = {}  # by name, made once: all that changes in them is one number

    def on_start(self, run: "Run") -> None:
        """Open an event file. What older ones hold of steps that are still to come is removed."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        event_files.take_back(run.path, run.timesteps)
        # TensorBoard's own writer writes from a thread, where nobody hears that the disk is full.
        self._path = run.path / f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        with writing(self._path):
            self._writer = RecordWriter(self._path.open("wb"))
        self._add(0, file_version="brain.Event:2")
        # For a TensorBoard that is open and has read them already.
        self._add(run.timesteps + 1, session_log=SessionLog(status=SessionLog.START))
        self._filmed = self._due(run)
        if self._histograms is not None:
            self._histograms.start(run.policy)

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """Write a row, whole: were it left in the writer's buffer, a killed process would take it along."""
        found = [self._scalar(name, value) for name, value in metrics.items() if math.isfinite(value)]
        if self._histograms is not None:
            found += self._histograms.summaries(run.policy)
        if self._due(run) > self._filmed:
            self._filmed = self._due(run)
            found += self._film(run)
        self._write(run, found)

    def on_end(self, run: "Run") -> None:
        """Film what training came to, if it came to its end, and close the event file."""
        if self._filmed < self._videos and (run.finished or run.stop):
            self._write(run, self._film(run))
        with writing(self._path):
            self._writer.close()

    def _due(self, run: "Run") -> int:
        """How many videos there are by now, but for the last one, which is made at the end."""
        return min(self._videos * run.timesteps // run.config.total_timesteps, max(0, self._videos - 1))

    def _film(self, run: "Run") -> list[Any]:
        try:
            return [videos.summary(run.config, run.policy)]
        except Exception as error:  # whatever a renderer does, training goes on
            _log.warning("No videos from here on, training goes on: %s", error)
            self._videos = 0
            return []

    def _scalar(self, name: str, value: float) -> Any:
        if name not in self._scalars:
            from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
            from tensorboard.compat.proto.tensor_pb2 import TensorProto
            from tensorboard.compat.proto.types_pb2 import DT_FLOAT

            kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
            empty = TensorProto(dtype=DT_FLOAT, float_val=[0.0])
            self._scalars[name] = Summary.Value(tag=name, tensor=empty, metadata=kind)
        scalar = self._scalars[name]
        scalar.tensor.float_val[0] = value
        return scalar

    def _write(self, run: "Run", values: Iterable[Any]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        # One event for all of them: one for each takes ten times as long.
        self._add(run.timesteps, summary=Summary(value=values))

    def _add(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        with writing(self._path):
            self._writer.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())
            self._writer.flush()
