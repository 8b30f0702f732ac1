"""A run: a policy, what trains it, and the folder that keeps both."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from rlgrad.callbacks import Callback
from rlgrad.config import Config
from rlgrad.diagnostics.diagnosis import Diagnosis
from rlgrad.learning.learner import Learner
from rlgrad.metrics import INFO, METRICS, Journal
from rlgrad.policies.policy import Policy
from rlgrad.rollouts.base import Collector
from rlgrad.runs import provenance, showing
from rlgrad.runs.contents import Contents
from rlgrad.runs.diagnosing import Watch, diagnostic_metrics
from rlgrad.runs.env_calls import EnvCall, EnvCalls
from rlgrad.runs.folders import write_continued
from rlgrad.runs.following import Followers
from rlgrad.runs.interrupting import interruption
from rlgrad.runs.locking import locked
from rlgrad.runs.loop import Clock, Keeper, Made, Pace, Updater
from rlgrad.runs.playable import Playable
from rlgrad.runs.replays import KeptReplay
from rlgrad.runs.standing import Standing

_log = logging.getLogger("rlgrad")


class Run(Playable):
    """A policy, its training, and its folder; `rlgrad.train` and `rlgrad.load` return one.

    Attributes:
        policy: acts, and goes into every function of `rlgrad.gradients`.
        config: the settings of the run.
        path: the run's folder.
        device: the device it computes on, `"CPU:0"` or `"GPU:0"`.
        metrics: names of the metrics in a logged row.
    """

    def __init__(
        self,
        config: Config,
        policy: Policy,
        learner: Learner,
        collector: Collector,
        path: Path,
        callbacks: Sequence[Callback],
        device: str = "CPU:0",
    ) -> None:
        self.config, self.policy, self.learner, self.collector, self.path = config, policy, learner, collector, path
        self.callbacks, self.device = list(callbacks), device
        self._watch = Watch(learner, path, config.diagnose)
        self._followers = Followers(self.callbacks)
        learned = tuple(f"train/{name}" for name in learner.metrics)
        diagnosed = diagnostic_metrics(learner) if config.diagnose else ()
        infos = tuple(f"{INFO}{name}" for name in config.log_info)
        collected = getattr(collector, "metrics", ())
        self.metrics = tuple(
            dict.fromkeys((*METRICS, *collected, *learned, *diagnosed, *infos, *self._followers.metrics))
        )
        self._journal, self._standing = Journal(self.metrics), Standing()
        self._env_calls = EnvCalls(collector)
        self._replay = KeptReplay(learner, path / "replay", collector)
        parts = self._standing, self._journal, self._watch, self._followers, self._replay, self._env_calls
        self._contents = Contents(path, policy, learner, collector, *parts)
        self._resumed_from: dict[str, Any] | None = None  # between loading a checkpoint and training: its settings
        self._locked = False  # True while the folder is this run's alone
        self._updater = Updater(collector, policy, learner, self._watch, config.seed)

    def __repr__(self) -> str:
        return showing.run_text(self)

    def _repr_html_(self) -> str:
        return showing.run_html(self)

    @property
    def updates(self) -> int:
        """Updates made."""
        return self._standing.updates

    @property
    def seconds(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._standing.seconds

    @property
    def stop(self) -> bool:
        """True if training ended early. Set it to true in a callback to end training after this update."""
        return self._standing.stop

    @stop.setter
    def stop(self, stop: bool) -> None:
        self._standing.stop = stop

    @property
    def history(self) -> dict[str, list[float]]:
        """The logged metrics by name, one entry a row."""
        return self._journal.history

    @property
    def diagnosis(self) -> Diagnosis | None:
        """The last diagnosis made while training with `diagnose=True`. `None`: there was none yet."""
        return self._watch.last

    @property
    def episodes(self) -> int:
        """Number of episodes that ended while training."""
        return self._journal.episodes

    @property
    def resolved(self) -> dict[str, Any]:
        """Choices that fixed rules made for this run, for its config.yaml."""
        mode = self.collector.vectorization_mode
        return {
            "vectorization_mode": mode,
            "actor": self.policy.acts_in if self.collector.fusible is None else "compiled",
            "xla": self.learner.xla,
            "device": self.device,
            "trained_outputs": list(self.learner.credited),
            "weights": int(sum(v.value.shape.num_elements() for v in self.learner.variables)),
        }

    @property
    def finished(self) -> bool:
        """True if no further rollout fits into the config's `total_timesteps`."""
        return self.timesteps + self._needed > self.config.total_timesteps

    @property
    def ended(self) -> bool:
        """True if training ended before its steps were taken: by `stop_at_return`, `patience`, `time_budget` or a callback."""
        return self.stop and not self.finished

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in the run's folder while the context lasts.

        Raises:
            FileExistsError: another process trains there.
        """
        with contextlib.nullcontext() if self._locked else locked(self.path):
            before, self._locked = self._locked, True
            try:
                yield
            finally:
                self._locked = before

    @property
    def _needed(self) -> int:
        """Steps that must be left for a rollout to begin."""
        return self.collector.max_rollout_steps if self.config.agent.num_steps is not None else 1

    def train(self, total_timesteps: int | None = None, *, command: str = "rlgrad.load(...).train(...)") -> "Run":
        """Train until `total_timesteps` environment steps have been taken, counting those before a resume.

        Rollouts of a fixed number of steps never take more. A rollout of whole episodes ends with its last episode.

        Args:
            total_timesteps: environment steps of the whole run. `None`: the config's; a run that has taken them stays as it is.
            command: the command that run.json records if the run was loaded from a checkpoint.

        Returns:
            This run.

        Raises:
            NonFiniteError: a gradient was not finite. The weights are the last finite ones; no checkpoint was changed.
            FileExistsError: another process trains in this run's folder.
            ValueError: no rollout fits into the steps that are left; the run ended early, and `total_timesteps` is not given.
            KeyboardInterrupt: Ctrl-C was pressed; the current update was completed and a checkpoint written.
        """
        if total_timesteps is not None:
            self.config = replace(self.config, total_timesteps=total_timesteps)
        elif self.ended:
            raise ValueError(
                f"This run ended early, after {self.timesteps:,} steps (stop_at_return, patience, time_budget or a callback): "
                "pass total_timesteps to continue all the same."
            )
        elif self.finished and self.timesteps:
            _log.info("All %s steps of %s are taken: nothing is left to train.", f"{self.timesteps:,}", self.path)
            return self
        self._require_room()
        with self.locked(), tf.device(self.device):
            self._begin(command)
            self._train(self.config.total_timesteps)
        return self

    def _begin(self, command: str) -> None:
        """Write down that a run is resumed, and with which settings."""
        if self._resumed_from is not None:
            write_continued(self.path, self.config, self.timesteps, self._resumed_from)
            provenance.write_resumed(
                self.path,
                self.config,
                self.timesteps,
                command=command,
                device=self.device,
                vectorization_mode=self.collector.vectorization_mode,
            )
            self._resumed_from = None

    def _require_room(self) -> None:
        if self.finished:
            raise ValueError(
                f"total_timesteps={self.config.total_timesteps:,} leaves no room for a rollout of {self._needed:,} steps after "
                f"the {self.timesteps:,} taken: raise it, or lower num_envs or num_steps."
            )

    def _train(self, total: int) -> None:
        fusible = None if self._watch.on else self.collector.fusible
        by_steps = self.config.agent.num_steps is not None
        pace = Pace.of(total, self._needed, by_steps=by_steps, fused=fusible is not None)
        self.stop = False
        self._replay.recall()
        self._updater.begin(pace.updates_per_row, fusible)
        with interruption() as interrupted, self._followers.following(self):
            clock, first = Clock(self.seconds, self.config.time_budget), self.timesteps
            keeper = Keeper(pace, self.save, self._save_milestone)
            while pace.has_room(self.timesteps) and not (self.stop or interrupted.asked):
                before, noted = self.timesteps, len(self._journal.updates)
                self._take(self._updater.advance(pace, self.updates, noted, before))
                self._standing.seconds = clock.read()
                if clock.is_over or pace.completes_row(len(self._journal.updates), before, self.timesteps):
                    self._report((self.timesteps - first) / clock.since_begin)
                self.stop |= clock.is_over
                keeper.keep(before, self.timesteps)
            self.save()
        if interrupted.asked:
            _log.info("Stopped after %s steps. Resume with: rlgrad resume %s", f"{self.timesteps:,}", self.path)
            raise KeyboardInterrupt

    def call_envs(self, name: str, *arguments: Any, **options: Any) -> list[Any]:
        """Call a method of every environment: those of training now, those of every later evaluation, and of a resumed run.

        Running episodes go on. Call it between rollouts, as in a callback's `on_update`.

        Args:
            name: of the method.
            arguments: numbers, texts, lists and dicts of them, which a checkpoint can hold.
            options: keyword arguments, likewise.

        Returns:
            The result of each training environment.

        Raises:
            ValueError: the environments have no such method, or it raised.

        Example:
            >>> class Curriculum(rlgrad.Callback):
            ...     def on_update(self, run, metrics):
            ...         if metrics["train/return"] > 100 * (self.level + 1):
            ...             self.level += 1
            ...             run.call_envs("set_level", self.level)
        """
        return self._env_calls.make(EnvCall(name, list(arguments), options))

    def set_env_attr(self, name: str, value: Any) -> None:
        """Set an attribute of every environment, as `call_envs` calls a method. The attribute must be there already."""
        self._env_calls.make(EnvCall(name, [value], {}, sets=True))

    @property
    def env_calls(self) -> tuple[EnvCall, ...]:
        """The calls of `call_envs` and `set_env_attr` so far, which every environment like those of the run has to be told."""
        return tuple(self._env_calls.made)

    def tell_evaluation(self, results: dict[str, Any]) -> None:
        """Show the evaluation at the end to the callbacks that have followed the training before it."""
        self._followers.evaluated(self, results)

    def save(self, best: bool = False) -> Path:
        """Write a checkpoint.

        Args:
            best: copy it to `best.npz`, too.
        """
        return self._contents.save(self.config, best)

    def restore(self, checkpoint: Path | None = None) -> None:
        """Load a checkpoint: weights, slots, normalizer, counters, random streams, and the state of running episodes.

        Args:
            checkpoint: the file. `None`: the newest of the run's folder that is not damaged.

        Raises:
            DamagedError: the file was cut or changed since it was written.
            ValueError: it holds the state of another kind of run.
        """
        self._resumed_from = self._contents.restore(self.config, checkpoint)
        self.metrics = tuple(dict.fromkeys((*self.metrics, *self._journal.added)))

    def close(self) -> None:
        """Close the environments, and end other learners."""
        self.collector.close()
        self.learner.close()

    def _take(self, made: Made) -> None:
        infos = self.collector.drain_infos() if self.config.log_info else None  # type: ignore[attr-defined]
        self._journal.note(made.metrics, self.collector.drain_episodes(), infos)
        self._standing.timesteps += made.timesteps
        self._standing.updates += len(made.metrics)

    def _add_metric(self, name: str) -> None:
        self.metrics = (*self.metrics, name)
        self._journal.add(name)

    def _report(self, rate: float) -> None:
        metrics = {
            "time/timesteps": float(self.timesteps),
            "time/updates": float(self.updates),
            "time/seconds": self.seconds,
            "time/steps_per_second": rate,
        }
        metrics |= self._journal.row() | self._watch.take()
        weights_kept = self._followers.update(self, metrics, self._add_metric, self._journal.added)
        self._journal.log(metrics)
        self._standing.note(metrics)
        if not weights_kept:
            self._updater.forget_weights()

    def _save_milestone(self) -> None:
        """Write a checkpoint, and keep it apart if the row before it is the best of all rows before such checkpoints."""
        self.collector.begin_anew()
        self.save(best=self._standing.improves(self.metrics))
