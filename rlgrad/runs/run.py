"""A run: a policy, what trains it, and the folder that keeps both."""

import contextlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from rlgrad.analysis.plotting import plot_runs
from rlgrad.callbacks import Callback
from rlgrad.config import Config
from rlgrad.core import plain_files
from rlgrad.core.settings import count
from rlgrad.diagnostics.diagnosis import DIAGNOSTICS, Diagnosis, layer_metrics
from rlgrad.learning.learner import Learner
from rlgrad.metrics import METRICS, Journal, read_csv
from rlgrad.policies.policy import Policy
from rlgrad.rollouts.base import Collector
from rlgrad.runs import checkpoints, provenance
from rlgrad.runs.diagnosing import Watch
from rlgrad.runs.evaluation import Evaluation, evaluate
from rlgrad.runs.folders import changes, settings_of, write_continued
from rlgrad.runs.interrupting import Interruption, interruption
from rlgrad.runs.locking import locked
from rlgrad.runs.loop import Clock, Keeper, Made, Pace, Updater

_log = logging.getLogger("rlgrad")
_JUDGED = "eval/return_greedy", "train/return"  # the first of them that a run has decides which checkpoint is the best


class Run:
    """A policy, its training, and its folder; `rlgrad.train` and `rlgrad.load` return one.

    Attributes:
        policy: acts, and goes into every function of `rlgrad.gradients`.
        config: the settings of the run.
        path: the run's folder.
        device: the device it computes on, `"CPU:0"` or `"GPU:0"`.
        metrics: names of the metrics in a logged row.
        timesteps: environment steps taken.
        updates: updates made.
        stop: set it to true in a callback to end training after this update.
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
        learned = tuple(f"train/{name}" for name in learner.metrics)
        diagnosed = diagnostic_metrics(learner) if config.diagnose else ()
        added = (name for callback in self.callbacks for name in callback.metrics)
        self.metrics = (*METRICS, *learned, *diagnosed, *dict.fromkeys(added))
        self._journal = Journal(self.metrics)
        self.timesteps = self.updates = 0
        self.seconds = 0.0
        self.stop = False
        self._begins_anew = False  # True if the checkpoint's episodes cannot continue in this collector
        self._undeclared: set[str] = set()  # what callbacks added to rows without declaring it
        self._restored = False  # True between loading a checkpoint and training
        self._settings: dict[str, Any] = {}  # those of the checkpoint that was loaded
        self._locked = False  # True while the folder is this run's alone
        self._returns: dict[str, float] = {}  # the last that were logged, in all digits
        self._best = -math.inf  # return at the checkpoint that best.npz is a copy of
        self._updater = Updater(collector, policy, learner, self._watch, config.seed)

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
        if self._restored:
            write_continued(self.path, self.config, self.timesteps, self._settings)
            provenance.write_resumed(
                self.path,
                self.config,
                self.timesteps,
                command=command,
                device=self.device,
                vectorization_mode=self.collector.vectorization_mode,
            )
            self._restored = False

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
        self._updater.begin(pace.updates_per_row, fusible)
        with self._followed() as interrupted:
            clock, first = Clock(self.seconds, self.config.time_budget), self.timesteps
            keeper = Keeper(pace, self.save, self._save_milestone)
            while pace.has_room(self.timesteps) and not (self.stop or interrupted.asked):
                before, noted = self.timesteps, len(self._journal.updates)
                self._take(self._updater.advance(pace, self.updates, noted, before))
                self.seconds = clock.read()
                if clock.is_over or pace.completes_row(len(self._journal.updates), before, self.timesteps):
                    self._report((self.timesteps - first) / clock.since_begin)
                self.stop |= clock.is_over
                keeper.keep(before, self.timesteps)
            self.save()
        if interrupted.asked:
            _log.info("Stopped after %s steps. Resume with: rlgrad resume %s", f"{self.timesteps:,}", self.path)
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _followed(self) -> Iterator[Interruption]:
        """Start the callbacks, and end those that were started whatever happens, also in another one's end."""
        with contextlib.ExitStack() as ends, interruption() as interrupted:
            for callback in self.callbacks:
                callback.on_start(self)
                ends.callback(callback.on_end, self)
            yield interrupted

    def evaluate(self, episodes: int = 100, greedy: bool = True, *, max_episode_steps: int | None = None) -> Evaluation:
        """Play fresh episodes at the current weights.

        Args:
            episodes: number of episodes.
            greedy: take the most likely action instead of sampling one.
            max_episode_steps: a time limit of these episodes. `None`: the run's.

        Returns:
            `mean_return`, `std_return`, `episodes`, and `returns` and `lengths` of each.
        """
        config, episodes = self.config, count(episodes, "episodes")
        with tf.device(self.device):
            return evaluate(
                self.policy,
                config.env,
                collector=config.collector,
                episodes=episodes,
                greedy=greedy,
                seed=config.seed,
                env_kwargs=config.env_kwargs,
                wrappers=config.wrappers,
                max_episode_steps=max_episode_steps or config.max_episode_steps,
                vectorization_mode=config.vectorization_mode,
            )

    def write_evaluation(self, episodes: int | None = None, *, max_episode_steps: int | None = None) -> dict[str, Any]:
        """Evaluate greedily and sampled, and write evaluation.json.

        Args:
            episodes: number of episodes of each kind. `None`: the config's.
            max_episode_steps: a time limit of these episodes, which the file then mentions. `None`: the run's.

        Returns:
            The content of the file. `solved` is true if the greedy mean reaches the reward threshold of the environment's
            specification, and `None` if it has no threshold.
        """
        episodes = episodes or self.config.evaluation_episodes
        threshold = self.collector.reward_threshold
        greedy, sampled = (
            self.evaluate(episodes, greedy=greedy, max_episode_steps=max_episode_steps) for greedy in (True, False)
        )
        results = {
            "greedy": greedy.summary(),
            "sampled": sampled.summary(),
            "reward_threshold": threshold,
            "solved": None if threshold is None else greedy.mean_return >= threshold,
            "timesteps": self.timesteps,
        }
        if max_episode_steps is not None:
            results["max_episode_steps"] = max_episode_steps
        checkpoints.write_text(self.path / "evaluation.json", json.dumps(results, indent=2) + "\n")
        return results

    @property
    def is_evaluated(self) -> bool:
        """True if evaluation.json is of the current step, or the config asks for no evaluation."""
        file = self.path / "evaluation.json"
        if not self.config.evaluation_episodes:
            return True
        return file.is_file() and plain_files.read_json(file).get("timesteps") == self.timesteps

    def plot(self) -> Path:
        """Draw learning_curve.png in the run's folder."""
        return plot_runs([self.path], self.path / "learning_curve.png")

    def save(self, best: bool = False) -> Path:
        """Write a checkpoint.

        Args:
            best: copy it to `best.npz`, too.
        """
        if (self.path / "metrics.csv").is_file():
            plain_files.sync(self.path / "metrics.csv")  # rows before the checkpoint that stands on them
        return checkpoints.save(self.path / "checkpoints", self.timesteps, self._variables(), self._state(), best=best)

    def restore(self, checkpoint: Path | None = None) -> None:
        """Load a checkpoint: weights, slots, normalizer, counters, random streams, and the state of running episodes.

        Args:
            checkpoint: the file. `None`: the newest of the run's folder that is not damaged.

        Raises:
            DamagedError: the file was cut or changed since it was written.
            ValueError: it holds the state of another kind of run.
        """
        variables = self._variables()
        mine = self.collector.state().keys()

        def check(state: Mapping[str, Any]) -> None:
            self._require_update(state)
            theirs = state.get("collector")
            self._begins_anew = bool(mine and theirs) and isinstance(theirs, Mapping) and mine.isdisjoint(theirs)
            if self._begins_anew:
                variables.pop("slots", None)

        if checkpoint is None:
            state = checkpoints.load_newest(self.path / "checkpoints", variables, check)
            checkpoints.complete(self.path / "checkpoints", state)
        else:
            state = checkpoints.load(checkpoint, variables, check)
        try:
            self._continue_from(state)
        except (AttributeError, LookupError, TypeError, ArithmeticError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"The checkpoint of {self.path} holds no state of such a run ({what}).") from error

    def _continue_from(self, state: Mapping[str, Any]) -> None:
        """Take over the state that a checkpoint kept beside the variables."""
        counts = {name: state[name] for name in ("timesteps", "updates")}
        if not all(type(count) is int and count >= 0 for count in counts.values()):
            raise TypeError(f"its counts are {counts}")
        self.timesteps, self.updates = counts["timesteps"], counts["updates"]
        self.seconds, self._best = float(state["seconds"]), float(state["best"])
        self.stop = bool(state.get("stop", False))
        self._watch.restore(state["watch"])
        file = self.path / "metrics.csv"
        logged = read_csv(file, self.timesteps) if file.is_file() else {}
        self._journal.restore(state["journal"], logged)
        self._require_rows(state.get("rows"))
        older = {name: self.history[name][-1:] for name in _JUDGED if name in self.history}
        self._returns = state.get("returns", {name: values[0] for name, values in older.items() if values})
        if self._begins_anew:
            _log.warning(
                "The environments of this run were stepped in another way than those of now, compiled or not: weights, "
                "optimizer and counters continue, and new episodes begin."
            )
        else:
            self.collector.restore(state["collector"])
        self._restored, self._settings = True, state.get("settings", {})
        if hasattr(self.learner.state, "renew") and changes(self._settings, self.config):
            self.learner.state.renew()
        for key, callback in self._callbacks_by_key():
            if key in state["callbacks"]:
                callback.restore(state["callbacks"][key])

    def _require_update(self, state: Mapping[str, Any]) -> None:
        before, now = state.get("update"), self.config.agent.update.kind
        if before is not None and before != now:
            raise ValueError(
                f"{self.path} was trained by {before}, and the agent has {now}: what one remembers says nothing to the other. "
                "Begin a new run, with this run's policy as its model."
            )

    def _require_rows(self, count: int | None) -> None:
        logged = len(self.history["time/timesteps"])
        if count is not None and logged < count:
            _log.warning(
                "%s has %d rows up to this checkpoint, and %d were written: the others are lost. Training does not need them.",
                self.path / "metrics.csv",
                logged,
                count,
            )

    def close(self) -> None:
        """Close the environments."""
        self.collector.close()

    def diagnose(self) -> Diagnosis:
        """Collect one rollout at the current weights and diagnose its gradients. The weights stay as they are."""
        progress = min(1.0, self.timesteps / self.config.total_timesteps)
        with tf.device(self.device):
            return self.learner.diagnose(self.collector.collect(self.policy), progress, self.timesteps)

    def _take(self, made: Made) -> None:
        self._journal.note(made.metrics, self.collector.drain_episodes())
        self.timesteps += made.timesteps
        self.updates += len(made.metrics)

    def _report(self, rate: float) -> None:
        metrics = {
            "time/timesteps": float(self.timesteps),
            "time/updates": float(self.updates),
            "time/seconds": self.seconds,
            "time/steps_per_second": rate,
        }
        metrics |= self._journal.row() | self._watch.take()
        for callback in self.callbacks:
            callback.on_update(self, metrics)
        if undeclared := metrics.keys() - {*self.metrics, *self._undeclared}:
            self._undeclared |= undeclared
            _log.warning(
                "A callback added %s to the metrics, which is not logged: a column is declared, as in `metrics = (%r,)` in its "
                "class.",
                ", ".join(sorted(undeclared)),
                min(undeclared),
            )
        self._journal.log(metrics)
        self._returns |= {name: metrics[name] for name in _JUDGED if not math.isnan(metrics.get(name, math.nan))}
        if not all(callback.only_looks for callback in self.callbacks):
            self._updater.forget_weights()

    def _save_milestone(self) -> None:
        """Write a checkpoint, and keep it apart if the row before it is the best of all rows before such checkpoints."""
        self.collector.begin_anew()
        name = next(name for name in _JUDGED if name in self.history)
        last = self._returns.get(name, -math.inf)
        best = last > self._best
        if best:
            self._best = last
        self.save(best)

    def _variables(self) -> dict[str, Any]:
        scale = self.learner.reward_scale
        saved = {"policy": self.policy.variables, "update": self.learner.state.slots}
        if collected := self.collector.variables(self.policy):
            saved["slots"] = collected
        return saved if scale is None else saved | {"reward_scale": scale.variables}

    def _callbacks_by_key(self) -> Iterator[tuple[str, Callback]]:
        """Yield each callback with the key of its state in a checkpoint: its class's name, with `#2`, `#3` for further ones."""
        counts: Counter[str] = Counter()
        for callback in self.callbacks:
            name = type(callback).__name__
            counts[name] += 1
            yield name if counts[name] == 1 else f"{name}#{counts[name]}", callback

    def _state(self) -> dict[str, Any]:
        return {
            "settings": settings_of(self.config),
            "update": self.config.agent.update.kind,
            "timesteps": self.timesteps,
            "updates": self.updates,
            "seconds": self.seconds,
            "watch": self._watch.state(),
            "best": self._best,
            "stop": self.stop,
            "returns": self._returns,
            "rows": len(self.history["time/timesteps"]),
            "journal": self._journal.state(),
            "callbacks": {key: state for key, callback in self._callbacks_by_key() if (state := callback.state())},
            "collector": self.collector.state(),
        }


def diagnostic_metrics(learner: Learner) -> tuple[str, ...]:
    """Return the names of the metrics that diagnosing adds: the same for each agent, then those of its layers."""
    layers = learner.layers
    return DIAGNOSTICS + layer_metrics(layers.get("log_prob", []), layers.get("value", []))
