"""The contents of a checkpoint of a run: its variables, and the state of everything that goes on from it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rlgrad.config import Config
from rlgrad.core import plain_files
from rlgrad.learning.learner import Learner
from rlgrad.metrics import Journal, read_csv
from rlgrad.policies.policy import Policy
from rlgrad.rollouts.base import Collector
from rlgrad.runs import checkpoints
from rlgrad.runs.diagnosing import Watch
from rlgrad.runs.env_calls import EnvCalls
from rlgrad.runs.folders import changes
from rlgrad.runs.following import Followers
from rlgrad.runs.replays import KeptReplay
from rlgrad.runs.standing import Standing
from rlgrad.updates.base import slots_in

_log = logging.getLogger("rlgrad")


@dataclass(frozen=True)
class Contents:
    """The parts of a run that its checkpoints hold.

    Attributes:
        path: the run's folder.
        replay: of the learner, whose files the checkpoints share.
    """

    path: Path
    policy: Policy
    learner: Learner
    collector: Collector
    standing: Standing
    journal: Journal
    watch: Watch
    followers: Followers
    replay: KeptReplay
    env_calls: EnvCalls

    def save(self, config: Config, best: bool = False) -> Path:
        """Write a checkpoint, and return its file; see `Run.save`."""
        if (self.path / "metrics.csv").is_file():
            plain_files.sync(self.path / "metrics.csv")  # rows before the checkpoint that stands on them
        state = self._state(config) | self.replay.state()
        file = checkpoints.save(self._folder, self.standing.timesteps, self._variables(), state, best=best)
        self.replay.prune(self._folder)
        return file

    def restore(self, config: Config, file: Path | None) -> dict[str, Any]:
        """Load a checkpoint, and return the settings that the run had when it was written; see `Run.restore`."""
        update, mine, variables = config.agent.update.kind, self.collector.state().keys(), self._variables()
        begins_anew = False  # the episodes of the checkpoint cannot continue in this collector

        def check(state: Mapping[str, Any]) -> None:
            before = state.get("update")
            if before is not None and before != update:
                raise ValueError(
                    f"{self.path} was trained by {before}, and the agent has {update}: what one remembers says nothing to the "
                    "other. Begin a new run, with this run's policy as its model."
                )
            nonlocal begins_anew
            theirs = state.get("collector")
            begins_anew = bool(mine and theirs) and isinstance(theirs, Mapping) and mine.isdisjoint(theirs)
            if begins_anew:
                variables.pop("slots", None)

        readers = {"update": partial(slots_in, self.learner.state)}
        if file is None:
            state = checkpoints.load_newest(self._folder, variables, check, readers)
            checkpoints.complete(self._folder, state)
        else:
            state = checkpoints.load(file, variables, check, readers)
        try:
            return self._continue_from(state, config, begins_anew)
        except (AttributeError, LookupError, TypeError, ArithmeticError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"The checkpoint of {self.path} holds no state of such a run ({what}).") from error

    @property
    def _folder(self) -> Path:
        return self.path / "checkpoints"

    def _variables(self) -> dict[str, Any]:
        saved = {"policy": self.policy.variables, "update": self.learner.state.slots, **self.learner.memories}
        if collected := self.collector.variables(self.policy):
            saved["slots"] = collected
        return saved

    def _state(self, config: Config) -> dict[str, Any]:
        return {
            "settings": config.flat,
            "update": config.agent.update.kind,
            **self.standing.state(),
            "watch": self.watch.state(),
            "rows": len(self.journal.history["time/timesteps"]),
            "journal": self.journal.state(),
            "callbacks": self.followers.state(),
            "env_calls": self.env_calls.state(),
            "collector": self.collector.state(),
        }

    def _continue_from(self, state: Mapping[str, Any], config: Config, begins_anew: bool) -> dict[str, Any]:
        self.standing.restore(state)
        file = self.path / "metrics.csv"
        logged = read_csv(file, self.standing.timesteps) if file.is_file() else {}
        self.journal.restore(state["journal"], logged)
        if "returns" not in state:  # an older checkpoint
            self.standing.note({name: column[-1] for name, column in self.journal.history.items() if column})
        self._require_rows(state.get("rows"))
        self.watch.restore(state["watch"])
        self.env_calls.restore(state.get("env_calls", []))  # before the episodes that run are replayed
        if begins_anew:
            _log.warning(
                "The environments of this run were stepped in another way than those it is given, compiled or not: weights, "
                "optimizer and counters continue, and new episodes begin."
            )
        else:
            self.collector.restore(state["collector"])
        self.replay.take(state)
        settings: dict[str, Any] = state.get("settings", {})
        if hasattr(self.learner.state, "renew") and changes(settings, config):
            self.learner.state.renew()
        self.followers.restore(state["callbacks"])
        return settings

    def _require_rows(self, count: int | None) -> None:
        logged = len(self.journal.history["time/timesteps"])
        if count is not None and logged < count:
            _log.warning(
                "%s has %d rows up to this checkpoint, and %d were written: the others are lost. Training does not need them.",
                self.path / "metrics.csv",
                logged,
                count,
            )
