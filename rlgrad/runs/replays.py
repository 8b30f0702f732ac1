"""The replay of a run on disk: what its checkpoints say of it, and its files, which they share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlgrad.learning.learner import Learner
from rlgrad.replay.disk import Segments
from rlgrad.runs import checkpoints

KEY = "replay"
"""Of a checkpoint's state: the manifest of the replay."""


class KeptReplay:
    """The replay of a learner, kept in a folder beside the checkpoints. Without a replay nothing is kept.

    Restoring waits until training goes on: whoever evaluates or exports a run needs no replay, nor the memory for it.

    Args:
        learner: has the replay.
        folder: for its files.
    """

    def __init__(self, learner: Learner, folder: Path) -> None:
        self._learner, self._segments = learner, Segments(folder)
        self._waiting: Mapping[str, Any] | None = None  # the manifest of the checkpoint that was loaded
        self._read: dict[
            tuple[str, int], Mapping[str, Any]
        ] = {}  # states of checkpoints, which never change once written

    def state(self) -> dict[str, Any]:
        """Write what is new of the replay. Return the part of a checkpoint's state that finds it again."""
        rehearsal = self._learner.rehearsal
        if rehearsal is None:
            return {}
        return {KEY: self._segments.save(rehearsal.ring) if self._waiting is None else self._waiting}

    def take(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint that was loaded."""
        self._waiting = state.get(KEY) if self._learner.rehearsal is not None else None

    def recall(self) -> None:
        """Fill the replay with what the loaded checkpoint remembers, before training goes on.

        Raises:
            DamagedReplay: a file is missing, changed or of another replay; names it.
        """
        if self._waiting is not None and self._learner.rehearsal is not None:
            self._segments.restore(self._learner.rehearsal.ring, self._waiting)
        self._waiting = None

    def prune(self, folder: Path) -> None:
        """Remove the files that no checkpoint of a folder needs any more."""
        if self._learner.rehearsal is None:
            return
        paths = (*checkpoints.numbered(folder), folder / checkpoints.BEST)
        files = {(path.name, path.stat().st_mtime_ns): path for path in paths if path.is_file()}
        self._read = {key: self._read.get(key) or checkpoints.plain_state(path) for key, path in files.items()}
        states = self._read.values()
        needed = [state[KEY] for state in states if KEY in state]
        self._segments.prune([*needed, *([] if self._waiting is None else [self._waiting])])
