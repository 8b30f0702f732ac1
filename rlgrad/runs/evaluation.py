"""Evaluation of a policy: returns of fresh episodes."""

import contextlib
import copy
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from rlgrad.analysis.statistics import mean_interval
from rlgrad.policies.policy import Policy
from rlgrad.rollouts.factory import make_collector
from rlgrad.runs import showing
from rlgrad.runs.checkpoints import write_text
from rlgrad.runs.env_calls import EnvCall, apply

_MAX_SLOTS = 100
_MAX_BYTES = 500_000  # of one observation in all slots: compiled rollouts keep them all, a gigabyte in a thousand steps


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Returns of whole episodes: sums of raw rewards, undiscounted.

    Attributes:
        returns: float (episodes,).
        lengths: int (episodes,), steps.
        greedy: True if the most likely action was taken, False if actions were sampled.
    """

    returns: np.ndarray
    lengths: np.ndarray
    greedy: bool

    def __repr__(self) -> str:
        return showing.evaluation_text(self)

    def _repr_html_(self) -> str:
        return showing.evaluation_html(self)

    @property
    def mean_return(self) -> float:
        """Mean over episodes."""
        return float(np.mean(self.returns))

    @property
    def std_return(self) -> float:
        """Standard deviation over episodes."""
        return float(np.std(self.returns))

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.returns)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean, by Student's t; NaN for a single episode."""
        return mean_interval(self.mean_return, self.std_return, self.episodes)

    def summary(self) -> dict[str, Any]:
        """Return the entry of evaluation.json."""
        return {
            "mean_return": self.mean_return,
            "std_return": self.std_return,
            "episodes": self.episodes,
            "interval": None if math.isnan(self.interval[0]) else list(self.interval),
            "returns": self.returns.tolist(),
            "lengths": self.lengths.tolist(),
        }


def evaluate(policy: Policy, env: Any, *, episodes: int = 100, greedy: bool = True, **options: Any) -> Evaluation:
    """Play whole episodes in fresh environments, the same ones for the same seed.

    Args:
        policy: acts at its current weights; its normalizer is not updated.
        env: an id, an instance, or a function that makes one.
        episodes: number of episodes. Each slot plays a number fixed beforehand, so that short episodes are not favored.
        greedy: take the most likely action instead of sampling one.
        options: further ones of `evaluation_collector`.

    Returns:
        Returns and lengths.

    Raises:
        EndlessEpisode: an episode that no limit ends did not end in 20,000 steps.
        ValueError: `env` cannot be copied, or the options contradict it.
    """
    collected, slots = evaluation_collector(policy, env, episodes=episodes, **options)
    with contextlib.closing(collected):
        rounds = [collected.outcomes(policy, greedy=greedy) for _ in range(-(-episodes // slots))]
    # A slot's episodes follow each other, so that fewer episodes are the first of more.
    by_slot = [episode for slot in zip(*rounds, strict=True) for episode in slot][:episodes]
    returns, lengths = [episode.return_ for episode in by_slot], [episode.length for episode in by_slot]
    return Evaluation(np.array(returns, np.float64), np.array(lengths, np.int64), greedy)


def evaluation_collector(
    policy: Policy,
    env: Any,
    *,
    episodes: int,
    collector: str | Callable[..., Any] = "auto",
    seed: int = 0,
    env_kwargs: Any = None,
    wrappers: Sequence[str] = (),
    max_episode_steps: int | None = None,
    vectorization_mode: str = "auto",
    calls: Sequence[EnvCall] = (),
) -> tuple[Any, int]:
    """Return a collector of whole episodes in fresh environments, and its number of slots.

    Args:
        policy: that will act.
        env: an id, an instance, or a function that makes one.
        episodes: number of episodes.
        collector: see `rlgrad.train`.
        seed: for resets and samples; independent of the streams that training with this seed uses.
        env_kwargs: for the environment's constructor.
        wrappers: around each environment, see `rlgrad.train`.
        max_episode_steps: a time limit. `None`: the environment's own; if it has none, episodes are played as they end.
        vectorization_mode: see `rlgrad.train`.
        calls: to make in every environment first. A copy of an instance has their effects already.

    Raises:
        ValueError: `env` cannot be copied, or the options contradict it.
    """
    if episodes < 1:
        raise ValueError(f"episodes is at least 1, got {episodes}.")
    made = hasattr(env, "step") and not isinstance(env, type)
    slots = getattr(env, "num_envs", 1) if made else min(episodes, _most_slots(policy))
    collected = make_collector(
        _another(env) if made else env,
        collector=collector,
        num_envs=slots,
        episodes_per_env=1,
        max_episode_steps=max_episode_steps,
        seed=seed,
        streams=("evaluation", "evaluation"),
        env_kwargs=env_kwargs,
        wrappers=() if made else wrappers,
        # As many processes as there are slots would be too many, and the numbers are those of "sync".
        vectorization_mode="sync" if vectorization_mode == "async" else vectorization_mode,
    )
    try:
        if not (made and getattr(env, "spec", None) is None):
            apply(calls, collected)
    except BaseException:
        collected.close()
        raise
    return collected, slots


def evaluation_content(
    greedy: Evaluation, sampled: Evaluation, *, reward_threshold: float | None, timesteps: int, **asked: Any
) -> dict[str, Any]:
    """Return the content of evaluation.json; see `Run.write_evaluation`.

    Args:
        greedy: with the most likely actions.
        sampled: with sampled ones.
        reward_threshold: from which the task counts as solved. `None`: unknown.
        timesteps: environment steps of training before it.
        asked: by name, what was asked for besides; `None` is left out.
    """
    return {
        "greedy": greedy.summary(),
        "sampled": sampled.summary(),
        "reward_threshold": reward_threshold,
        "solved": None if reward_threshold is None else greedy.mean_return >= reward_threshold,
        "timesteps": timesteps,
        **{name: value for name, value in asked.items() if value is not None},
    }


def write_evaluation(file: Path, content: dict[str, Any]) -> None:
    """Write evaluation.json. Lists of numbers take one line."""
    text = re.sub(r"\[[^][{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), json.dumps(content, indent=2))
    write_text(file, text + "\n")


def _most_slots(policy: Policy) -> int:
    specs = tf.nest.flatten(policy.observation_spec)
    size: int = sum(spec.dtype.size * math.prod(spec.shape[1:]) for spec in specs)
    return max(1, min(_MAX_SLOTS, _MAX_BYTES // size))


def _another(env: Any) -> Any:
    """Return a second environment like the given one, which may be in the middle of an episode."""
    if isinstance(env, gymnasium.Env) and env.spec is not None:
        return gymnasium.make(env.spec)
    try:
        return copy.deepcopy(env)
    except Exception as error:
        raise ValueError(
            f"Evaluation needs an environment of its own, and this {type(env).__name__} cannot be copied: pass a function that "
            "makes one."
        ) from error
