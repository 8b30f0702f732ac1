"""The replay of a run on disk: what its checkpoints say of it, and its files, which they share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlgrad.learning.learner import Learner
from rlgrad.learning.rehearsal import Rehearsal
from rlgrad.replay.disk import Segments
from rlgrad.rollouts.base import Collector
from rlgrad.runs import checkpoints
from rlgrad.runs.recorded_data import load_data

KEY = "replay"
"""Of a checkpoint's state: the manifest of the replay."""


class KeptReplay:
    """The replay of a learner, kept in a folder beside the checkpoints. Without a replay nothing is kept.

    Restoring waits until training goes on: whoever evaluates or exports a run needs no replay, nor the memory for it.

    A replay of recorded episodes never changes, so nothing of it is kept either: it is read again.

    Args:
        learner: has the replay.
        folder: for its files.
        collector: of the environment that recorded episodes are to be of.
    """

    def __init__(self, learner: Learner, folder: Path, collector: Collector) -> None:
        self._learner, self._segments, self._collector = learner, Segments(folder), collector
        self._waiting: Mapping[str, Any] | None = None  # the manifest of the checkpoint that was loaded
        self._read: dict[
            tuple[str, int], Mapping[str, Any]
        ] = {}  # states of checkpoints, which never change once written

    def state(self) -> dict[str, Any]:
        """Write what is new of the replay. Return the part of a checkpoint's state that finds it again."""
        rehearsal = self._kept
        if rehearsal is None:
            return {}
        return {KEY: self._segments.save(rehearsal.ring) if self._waiting is None else self._waiting}

    def take(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint that was loaded."""
        self._waiting = state.get(KEY) if self._kept is not None else None

    def recall(self) -> None:
        """Fill the replay with what the loaded checkpoint remembers, before training goes on.

        Raises:
            DamagedReplay: a file is missing, changed or of another replay; names it.
            ValueError: the recorded episodes are missing, or others than those that the run began with.
        """
        rehearsal, replay = self._learner.rehearsal, self._learner.agent.replay
        if rehearsal is not None and replay is not None and rehearsal.needs_filling:
            rehearsal.fill(load_data(replay, self._collector)[0], self._learner.policy)
        if self._waiting is not None and self._kept is not None:
            self._segments.restore(self._kept.ring, self._waiting)
        self._waiting = None

    def prune(self, folder: Path) -> None:
        """Remove the files that no checkpoint of a folder needs any more."""
        if self._kept is None:
            return
        paths = (*checkpoints.numbered(folder), folder / checkpoints.BEST)
        files = {(path.name, path.stat().st_mtime_ns): path for path in paths if path.is_file()}
        self._read = {key: self._read.get(key) or checkpoints.plain_state(path) for key, path in files.items()}
        states = self._read.values()
        needed = [state[KEY] for state in states if KEY in state]
        self._segments.prune([*needed, *([] if self._waiting is None else [self._waiting])])

    @property
    def _kept(self) -> Rehearsal | None:
        rehearsal = self._learner.rehearsal
        return None if rehearsal is None or rehearsal.from_data else rehearsal
