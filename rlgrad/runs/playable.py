"""A run as it is now: it is played, evaluated, diagnosed and drawn, and no weight moves."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from rlgrad.analysis.curve_pictures import plot_runs
from rlgrad.config import Config
from rlgrad.core import plain_files
from rlgrad.core.settings import count
from rlgrad.diagnostics.diagnosis import Diagnosis
from rlgrad.learning.learner import Learner
from rlgrad.policies.policy import Policy
from rlgrad.rollouts.base import Collector
from rlgrad.runs import checkpoints
from rlgrad.runs.env_calls import EnvCalls
from rlgrad.runs.evaluation import Evaluation, evaluate, evaluation_collector, evaluation_content, write_evaluation
from rlgrad.runs.q_bias import QBias, measure_q_bias
from rlgrad.runs.replays import KeptReplay
from rlgrad.runs.standing import Standing


class Playable:
    """The part of `Run` that asks a policy what it is worth, at its current weights.

    Attributes:
        config: the settings of the run.
        policy: acts.
        learner: of the policy.
        collector: of the environments of training.
        path: the run's folder.
        device: the device it computes on.
    """

    config: Config
    policy: Policy
    learner: Learner
    collector: Collector
    path: Path
    device: str
    _standing: Standing
    _env_calls: EnvCalls
    _replay: KeptReplay

    @property
    def timesteps(self) -> int:
        """Environment steps taken."""
        return self._standing.timesteps

    def evaluate(
        self,
        episodes: int = 100,
        greedy: bool = True,
        *,
        seed: int | None = None,
        max_episode_steps: int | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
    ) -> Evaluation:
        """Play fresh episodes at the current weights.

        Args:
            episodes: number of episodes.
            greedy: take the most likely action instead of sampling one.
            seed: of the episodes; the same ones for the same seed. `None`: the run's.
            max_episode_steps: a time limit of these episodes. `None`: the run's.
            env_kwargs: keyword arguments of the environment, added to the run's.

        Returns:
            `mean_return`, its 95 % `interval`, `std_return`, `episodes`, and `returns` and `lengths` of each.
        """
        options = self._episodes(seed=seed, max_episode_steps=max_episode_steps, env_kwargs=env_kwargs)
        with tf.device(self.device):
            return evaluate(
                self.policy, self.config.env, episodes=count(episodes, "episodes"), greedy=greedy, **options
            )

    def q_bias(self, episodes: int = 10, *, seed: int | None = None) -> QBias:
        """Compare what the critics say of each step of fresh episodes with the discounted returns that follow.

        The policy plays as it is, without exploration; entropy counts as reward for agents that learn a temperature. Episodes
        that a time limit cuts go on with what the critics say of their last step.

        Args:
            episodes: number of episodes.
            seed: of the episodes; the same ones for the same seed. `None`: the run's.

        Raises:
            NotImplementedError: the agent credits no q.
        """
        with tf.device(self.device):
            collector, slots = evaluation_collector(
                self.policy, self.config.env, episodes=count(episodes, "episodes"), **self._episodes(seed=seed)
            )
            return measure_q_bias(self.learner, self.policy, collector, -(-episodes // slots))

    def _episodes(
        self,
        *,
        seed: int | None,
        max_episode_steps: int | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the options of fresh episodes in the run's environment."""
        config = self.config
        return {
            "collector": config.collector,
            "seed": config.seed if seed is None else count(seed, "seed"),
            "env_kwargs": {**config.env_kwargs, **(env_kwargs or {})},
            "wrappers": config.wrappers,
            "max_episode_steps": max_episode_steps or config.max_episode_steps,
            "vectorization_mode": config.vectorization_mode,
            "calls": self._env_calls.made,
        }

    def write_evaluation(
        self,
        episodes: int | None = None,
        *,
        seed: int | None = None,
        max_episode_steps: int | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        checkpoint: str | int = "last",
    ) -> dict[str, Any]:
        """Evaluate greedily and sampled, and write evaluation.json.

        The file is about the last weights in the run's own environment. The result of another checkpoint, or of an environment
        with other keyword arguments, is returned and not written.

        Args:
            episodes: number of episodes of each kind. `None`: the config's.
            seed: of the episodes. `None`: the run's.
            max_episode_steps: a time limit of these episodes, which the result then mentions. `None`: the run's.
            env_kwargs: keyword arguments of the environment, added to the run's.
            checkpoint: `"last"`, `"best"`, or the environment steps of a checkpoint that is kept.

        Returns:
            The content of the file. `solved` is true if the greedy mean reaches the reward threshold of the environment's
            specification, and `None` if it has no threshold.
        """
        asked: dict[str, Any] = {"seed": seed, "max_episode_steps": max_episode_steps, "env_kwargs": None}
        asked["env_kwargs"] = dict(env_kwargs) if env_kwargs else None
        episodes = episodes or self.config.evaluation_episodes
        with self.weights_at(checkpoint) as timesteps:
            played = [self.evaluate(episodes, greedy, **asked) for greedy in (True, False)]
        threshold = None if asked["env_kwargs"] else self.collector.reward_threshold  # of the run's own environment
        content = evaluation_content(*played, reward_threshold=threshold, timesteps=timesteps, **asked)
        if checkpoint != "last":
            return content | {"checkpoint": checkpoint}
        if asked["env_kwargs"] is None:
            write_evaluation(self.path / "evaluation.json", content)
        return content

    @contextlib.contextmanager
    def weights_at(self, checkpoint: str | int) -> Iterator[int]:
        """Give the policy the weights of another checkpoint while the context lasts, to play it. Nothing else changes.

        Args:
            checkpoint: `"last"` for the current weights, `"best"` for those of the best return, or the environment steps of a
                checkpoint that is kept.

        Yields:
            Environment steps of training at these weights.

        Raises:
            ValueError: the run keeps no such checkpoint; the message has those that it keeps.
        """
        if checkpoint == "last":
            yield self.timesteps
            return
        file, variables = checkpoints.find(self.path / "checkpoints", checkpoint), self.policy.variables
        before = [variable.numpy() for variable in variables]
        try:
            yield int(checkpoints.load(file, {"policy": variables})["timesteps"])
        finally:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)

    @property
    def is_evaluated(self) -> bool:
        """True if evaluation.json is of the current step, or the config asks for no evaluation."""
        file = self.path / "evaluation.json"
        if not self.config.evaluation_episodes:
            return True
        return file.is_file() and plain_files.read_json(file).get("timesteps") == self.timesteps

    def diagnose(self) -> Diagnosis:
        """Diagnose the gradients of a rollout collected now, or of a batch of the replay. The weights stay as they are.

        Raises:
            NotImplementedError: the agent's steps have no gradients of their own.
            ValueError: the replay holds fewer steps than a batch.
        """
        progress = min(1.0, self.timesteps / self.config.total_timesteps)
        with tf.device(self.device):
            if self.learner.rehearsal is not None:
                self._replay.recall()
                return self.learner.diagnose(None, progress, self.timesteps)
            return self.learner.diagnose(self.collector.collect(self.policy), progress, self.timesteps)

    def plot(self) -> Path:
        """Draw learning_curve.png in the run's folder."""
        return plot_runs([self.path], self.path / "learning_curve.png")
