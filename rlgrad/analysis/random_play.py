"""Episodes of random actions, and a summary of what they showed."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from rlgrad.spaces.masks import MASK, has_mask, nothing_allowed
from rlgrad.spaces.trees import arrays

Env = gymnasium.Env[Any, Any]
_GAMMA = 0.99


@dataclass(frozen=True)
class Played:
    """Episodes that were played with random actions.

    Attributes:
        rewards: float (steps,).
        returns: float (episodes,), of finished episodes, undiscounted.
        discounted: float (steps,), Σ γᵏ r of the steps before, within an episode; its deviation is the scale of returns.
        lengths: int (episodes,).
        truncated: number of episodes that a limit cut.
        observations: summary of their numbers, by leaf.
        seconds: median time of a step.
        allowed: mean share of the choices that a mask allowed. `None`: the environment has no mask.
    """

    rewards: np.ndarray
    returns: np.ndarray
    discounted: np.ndarray
    lengths: np.ndarray
    truncated: int
    observations: dict[str, "Numbers"]
    seconds: float
    allowed: float | None = None


class Numbers(NamedTuple):
    """Summary of the numbers in many observations, which may be pictures, too many to keep.

    Attributes:
        finite: True if all are finite.
        whole: True if all are whole numbers.
        size: the largest absolute value.
    """

    finite: bool = True
    whole: bool = True
    size: float = 0.0

    def with_more(self, values: np.ndarray) -> "Numbers":
        """Return the summary with another observation added."""
        finite = bool(np.isfinite(values).all())
        whole = np.issubdtype(values.dtype, np.integer) or bool(np.array_equal(values, np.rint(values)))
        size = float(np.abs(values.astype(np.float64)).max(initial=0.0))
        return Numbers(self.finite and finite, self.whole and whole, max(self.size, size))


def play_randomly(env: Env, steps: int, seed: int = 0) -> Played:
    """Play random actions for `steps` steps."""
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    rewards, returns, discounted, lengths, seconds, truncations = [], [], [], [], [], 0
    seen: dict[str, Numbers] = {}
    total, so_far, length = 0.0, 0.0, 0
    shares: list[float] = []
    for step in range(steps):
        for name, leaf in arrays(observation, "observation"):
            seen[name] = seen.get(name, Numbers()).with_more(np.asarray(leaf))
        if (mask := _mask(env, observation, info)) is not None:
            shares.append(float(np.mean(np.asarray(mask, np.bool_))))
        action = random_action(env, observation, info, step)
        begun = time.perf_counter()
        observation, reward, terminated, truncated, info = env.step(action)
        seconds.append(time.perf_counter() - begun)
        total, so_far, length = total + float(reward), _GAMMA * so_far + float(reward), length + 1
        rewards.append(float(reward))
        discounted.append(so_far)
        if terminated or truncated:
            returns.append(total)
            lengths.append(length)
            truncations += bool(truncated and not terminated)
            total, so_far, length = 0.0, 0.0, 0
            observation, info = env.reset()
    return Played(
        rewards=np.array(rewards),
        returns=np.array(returns),
        discounted=np.array(discounted),
        lengths=np.array(lengths),
        truncated=truncations,
        observations=seen,
        seconds=float(np.median(seconds)),
        allowed=float(np.mean(shares)) if shares else None,
    )


def _mask(env: Env, observation: Any, info: dict[str, Any]) -> Any:
    return (observation if has_mask(env.observation_space) else info).get(MASK)


def random_action(env: Env, observation: Any, info: dict[str, Any], step: int) -> Any:
    """Draw an action that the mask allows.

    Raises:
        OutputFault: the mask allows no action.
    """
    space, mask = env.action_space, _mask(env, observation, info)
    if mask is None or not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return space.sample()
    allowed = np.asarray(mask, np.int8)
    counts = space.nvec if isinstance(space, spaces.MultiDiscrete) else np.array([space.n])
    choices = np.split(allowed, np.cumsum(counts)[:-1])
    if not all(choice.any() for choice in choices):
        raise nothing_allowed(0, step)
    if isinstance(space, spaces.Discrete):
        return space.sample(mask=allowed)
    return space.sample(mask=_nested(counts, iter(choices)))


def _nested(counts: np.ndarray, choices: Iterator[np.ndarray]) -> tuple[Any, ...]:
    """Nest the masks of all choices in tuples as deep as the space, as Gymnasium takes them."""
    return tuple(next(choices) if each.ndim == 0 else _nested(each, choices) for each in counts)
