"""A run: a policy, what trains it, and the folder that keeps both."""

import contextlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from rlgrad import random
from rlgrad.analysis.plotting import plot_runs
from rlgrad.callbacks import Callback
from rlgrad.config import Config
from rlgrad.diagnostics.diagnosis import DIAGNOSTICS, Diagnosis, layer_metrics
from rlgrad.learning.fused import Fused
from rlgrad.learning.learner import Learner
from rlgrad.logs.csv import read_csv
from rlgrad.metrics import METRICS, Journal
from rlgrad.policies.policy import Policy
from rlgrad.rollouts.base import Collector
from rlgrad.runs import checkpoints, provenance
from rlgrad.runs.diagnosing import Watch
from rlgrad.runs.evaluation import Evaluation, evaluate
from rlgrad.runs.interrupting import interruption

_log = logging.getLogger("rlgrad")
_ROWS = 250  # about as many rows does a run log, however many updates it makes
_FUSED_ROWS = 50  # where a row ends a call that makes all its updates
_CHECKPOINTS = 10  # of those whose steps are fixed beforehand
_SECONDS_BETWEEN_CHECKPOINTS = 60.0


class Run:
    """What `rlgrad.train` and `rlgrad.load` return.

    Attributes:
        policy: acts, and goes into every function of `rlgrad.gradients`.
        config: what the run was asked to do.
        path: the run's folder.
        device: what it computes on, `"CPU:0"` or `"GPU:0"`.
        metrics: names of what is logged.
        timesteps: environment steps taken.
        updates: updates made.
        stop: set it to true, in a callback, to end training after this update.
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
        self._restored = False  # from a checkpoint, and not trained since
        self._best = -math.inf  # of the checkpoints that are kept for it
        self._shuffles = random.Seeds(random.stream(config.seed, "shuffle"))  # of updates
        self._fused: Fused | None = None
        self._actor: Any = None  # at the weights of now, where they were just handed out; else they are read

    @property
    def history(self) -> dict[str, list[float]]:
        """Metrics by name, one entry a logged row."""
        return self._journal.history

    @property
    def diagnosis(self) -> Diagnosis | None:
        """The last one made while training with `diagnose=True`, or none."""
        return self._watch.last

    @property
    def episodes(self) -> int:
        """Finished while training."""
        return self._journal.episodes

    @property
    def finished(self) -> bool:
        """Whether no rollout fits into the config's `total_timesteps` any more."""
        return self.timesteps + self._needed > self.config.total_timesteps

    @property
    def _needed(self) -> int:
        """Steps that must be left for a rollout to begin."""
        return self.collector.max_rollout_steps if self.config.agent.num_steps is not None else 1

    def train(self, total_timesteps: int | None = None, *, command: str = "rlgrad.load(...).train(...)") -> "Run":
        """Train until so many environment steps have been taken in all.

        Rollouts of a fixed number of steps never take more; one of whole episodes ends with its last episode.

        Args:
            total_timesteps: none: the config's.
            command: what run.json says went on with the run, where that is from a checkpoint.

        Returns:
            This run.

        Raises:
            NonFiniteError: a gradient was not finite. The weights are the last good ones, and the checkpoints stay as they are.
            ValueError: not even one rollout fits.
            KeyboardInterrupt: Ctrl-C, after the update that was being made; a checkpoint holds all of it.
        """
        if total_timesteps is not None:
            self.config = replace(self.config, total_timesteps=total_timesteps)
        self._require_room()
        if self._restored:
            provenance.write_resumed(self, command)
            self._restored = False
        with tf.device(self.device):
            self._train(self.config.total_timesteps)
        return self

    def _require_room(self) -> None:
        if self.finished:
            raise ValueError(
                f"total_timesteps={self.config.total_timesteps:,} leaves no room for a rollout of {self._needed:,} steps after "
                f"the {self.timesteps:,} taken: raise it, or lower num_envs or num_steps."
            )

    def _train(self, total: int) -> None:
        by_steps, needed = self.config.agent.num_steps is not None, self._needed
        fusible = None if self._watch.on else self.collector.fusible
        every = max(1, total // (needed * (_ROWS if fusible is None else _FUSED_ROWS))) if by_steps else 1
        spacing = 0.0 if by_steps else total / _ROWS  # of diagnoses
        self.stop, self._actor = False, None
        if fusible is not None:
            self._fused = self._fused or Fused(fusible, self.learner, every)
        with contextlib.ExitStack() as ends, interruption() as interrupted:
            for callback in self.callbacks:
                callback.on_start(self)
                ends.callback(callback.on_end, self)  # whatever happens, also in another one's
            begun = saved = time.perf_counter()
            first, before, budget = self.timesteps, self.seconds, self.config.time_budget or math.inf
            while self.timesteps + needed <= total and not (self.stop or interrupted.asked):
                begins, wanted = self.timesteps, every - len(self._journal.updates)
                ends_a_row = wanted == 1 or self.timesteps + 2 * needed > total
                self._advance(wanted, total, spacing if ends_a_row else None)
                self.seconds = before + time.perf_counter() - begun
                in_time = self.seconds < budget
                if len(self._journal.updates) == every or self.timesteps + needed > total or not in_time:
                    self._report((self.timesteps - first) / (self.seconds - before))
                self.stop |= not in_time
                if begins * _CHECKPOINTS // total != self.timesteps * _CHECKPOINTS // total:
                    self.collector.begin_anew()
                    self._save_best()
                    saved = time.perf_counter()
                elif time.perf_counter() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                    self.save()
                    saved = time.perf_counter()
            self.save()
        if interrupted.asked:
            _log.info("Stopped after %s steps. Go on with: rlgrad resume %s", f"{self.timesteps:,}", self.path)
            raise KeyboardInterrupt

    def evaluate(self, episodes: int = 100, greedy: bool = True) -> Evaluation:
        """Play fresh episodes at the present weights.

        Args:
            episodes: how many.
            greedy: take the most likely action, instead of a sample.

        Returns:
            `mean_return`, `std_return`, `episodes`, and `returns` and `lengths` of each.
        """
        config = self.config
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
                max_episode_steps=config.max_episode_steps,
                vectorization_mode=config.vectorization_mode,
            )

    def write_evaluation(self, episodes: int | None = None) -> dict[str, Any]:
        """Evaluate greedily and sampled, and write evaluation.json.

        Args:
            episodes: of each kind; none: the config's.

        Returns:
            What was written. `solved` says whether the greedy mean reaches the threshold of the environment's
            specification, and is none where there is no threshold.
        """
        episodes = episodes or self.config.evaluation_episodes
        threshold = self.collector.reward_threshold
        greedy, sampled = self.evaluate(episodes), self.evaluate(episodes, greedy=False)
        results = {
            "greedy": greedy.summary(),
            "sampled": sampled.summary(),
            "reward_threshold": threshold,
            "solved": None if threshold is None else greedy.mean_return >= threshold,
            "timesteps": self.timesteps,
        }
        checkpoints.write_text(self.path / "evaluation.json", json.dumps(results, indent=2) + "\n")
        return results

    def plot(self) -> Path:
        """Draw learning_curve.png in the run's folder."""
        return plot_runs([self.path], self.path / "learning_curve.png")

    def save(self, best: bool = False) -> Path:
        """Write a checkpoint.

        Args:
            best: keep it as `best.npz` too.
        """
        return checkpoints.save(self.path / "checkpoints", self.timesteps, self._variables(), self._state(), best=best)

    def restore(self, checkpoint: Path | None = None) -> None:
        """Take over a checkpoint: weights, slots, normalizer, counters, random streams, and where the episodes stand.

        Args:
            checkpoint: none: the newest of the run's folder that is not damaged.

        Raises:
            DamagedError: the file was cut or changed since it was written.
        """
        variables = self._variables()
        if checkpoint is None:
            state = checkpoints.load_newest(self.path / "checkpoints", variables)
        else:
            state = checkpoints.load(checkpoint, variables)
        self.timesteps, self.updates, self.seconds = state["timesteps"], state["updates"], state["seconds"]
        self._best = state["best"]
        self._watch.restore(state["watch"])
        file = self.path / "metrics.csv"
        logged = read_csv(file, self.timesteps) if file.is_file() else {}
        self._journal.restore(state["journal"], logged)
        self.collector.restore(state["collector"])
        self._restored = True
        for callback in self.callbacks:
            if type(callback).__name__ in state["callbacks"]:
                callback.restore(state["callbacks"][type(callback).__name__])

    def close(self) -> None:
        """Close the environments."""
        self.collector.close()

    def diagnose(self) -> Diagnosis:
        """Collect one rollout at the present weights, which stay as they are, and say what its gradients tell."""
        progress = min(1.0, self.timesteps / self.config.total_timesteps)
        with tf.device(self.device):
            return self.learner.diagnose(self.collector.collect(self.policy), progress, self.timesteps)

    def _advance(self, count: int, total: int, spacing: float | None) -> None:
        """Make one update, or up to `count` where they are fused.

        With a spacing the update ends a row: it is diagnosed if the last diagnosis is as many steps ago.
        """
        if self._fused is not None:
            made = self._fused.advance(count, self.timesteps, total, self._shuffles(self.updates, count))
            self._count([update.metrics for update in made], sum(update.timesteps for update in made))
            return
        rollout = self.collector.collect(self.policy, actor=self._actor)
        progress = min(1.0, self.timesteps / total)
        if spacing is not None:
            self._watch.look(rollout, progress, self.timesteps, spacing)
        metrics = self.learner.learn(rollout, progress, self._shuffles(self.updates, 1)[0])
        self._actor = self.learner.actor()
        self._count([metrics], int(rollout.mask.sum()))

    def _count(self, updates: list[dict[str, float]], timesteps: int) -> None:
        self._journal.note(updates, self.collector.drain_episodes())
        self.timesteps += timesteps
        self.updates += len(updates)

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
        self._journal.log(metrics)
        if not all(callback.only_looks for callback in self.callbacks):
            self._actor = None  # a callback may have changed the weights

    def _save_best(self) -> None:
        """Save; and keep it apart, if what was logged last is the best so far of all that were saved this way."""
        names = [name for name in ("eval/return_greedy", "train/return") if name in self.history]
        logged = [value for value in self.history[names[0]] if not math.isnan(value)]
        best = bool(logged) and logged[-1] > self._best
        if best:
            self._best = logged[-1]
        self.save(best)

    def _variables(self) -> dict[str, Any]:
        scale = self.learner.reward_scale
        saved = {"policy": self.policy.variables, "update": self.learner.state.slots}
        if collected := self.collector.variables(self.policy):
            saved["slots"] = collected
        return saved if scale is None else saved | {"reward_scale": scale.variables}

    def _state(self) -> dict[str, Any]:
        return {
            "timesteps": self.timesteps,
            "updates": self.updates,
            "seconds": self.seconds,
            "watch": self._watch.state(),
            "best": self._best,
            "journal": self._journal.state(),
            "callbacks": {type(callback).__name__: state for callback in self.callbacks if (state := callback.state())},
            "collector": self.collector.state(),
        }


def diagnostic_metrics(learner: Learner) -> tuple[str, ...]:
    """What is logged besides when training is diagnosed: the same names for each agent, then its layers."""
    layers = learner.layers
    return DIAGNOSTICS + layer_metrics(layers.get("log_prob", []), layers.get("value", []))
