"""Environments with goals: what `compute_reward` and `compute_terminated` say of any goal, for many steps at once.

The observations of such an environment are a Dict with `achieved_goal` and `desired_goal`, as Gymnasium-Robotics defines them,
and `compute_reward(achieved, desired, info)` is the reward of a step that led to one where the other was desired.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import Env, Space, spaces

from rlgrad.environments.environment_options import EnvironmentOptions
from rlgrad.environments.ids import load_class
from rlgrad.environments.making import make

ACHIEVED, DESIRED = "achieved_goal", "desired_goal"
Array = np.ndarray[Any, Any]

_ENOUGH, _TOLERANCE, _MOST_WRONG = 100, 1e-4, 0.05


class GoalRewards:
    """The rewards and the ends of steps towards any goals.

    Args:
        env: an environment with `compute_reward`, which is never stepped.
        observation_space: as it is stored.

    Raises:
        ValueError: the environment has no goals.
    """

    def __init__(self, env: Env[Any, Any], observation_space: Space[Any]) -> None:
        parts = _with_goals(observation_space)
        if not env.has_wrapper_attr("compute_reward"):
            raise ValueError(
                "replay.hindsight asks the environment's compute_reward(achieved_goal, desired_goal, info), and it has none: "
                "add it, or leave hindsight out."
            )
        goal: Any = parts[ACHIEVED]
        goal.seed(0)
        samples = [np.stack([goal.sample() for _ in range(8)]) for _ in range(2)]
        samples[1][::2] = samples[0][::2]  # goals that are reached
        self._reward = at_once(env.get_wrapper_attr("compute_reward"), *samples)
        has_end = env.has_wrapper_attr("compute_terminated")
        self._end = at_once(env.get_wrapper_attr("compute_terminated"), *samples) if has_end else None
        self.knows_ends = has_end
        self._seen, self._wrong = 0, 0

    def rewards(self, achieved: Array, desired: Array) -> Array:
        """Return the rewards of steps that led to achieved goals, float32 (M,)."""
        return np.asarray(self._reward(achieved, desired), np.float32)

    def terminated(self, achieved: Array, desired: Array) -> Array:
        """Return whether the task ends there, bool (M,); only if the environment `knows_ends`."""
        assert self._end is not None
        return np.asarray(self._end(achieved, desired), np.bool_)

    def check(self, achieved: Array, desired: Array, rewards: Array) -> None:
        """Compare with rewards that were paid, (M,), until enough were compared.

        Raises:
            ValueError: they are others, as where a wrapper changes rewards.
        """
        if self._seen >= _ENOUGH or not len(rewards):
            return
        wrong = np.abs(self.rewards(achieved, desired) - rewards) > _TOLERANCE * np.maximum(1.0, np.abs(rewards))
        self._seen, self._wrong = self._seen + len(rewards), self._wrong + int(wrong.sum())
        if self._seen >= _ENOUGH and self._wrong > _MOST_WRONG * self._seen:
            raise ValueError(
                f"The environment paid other rewards than its compute_reward says, in {self._wrong:,} of {self._seen:,} steps, "
                "so rewards of other goals would be wrong: leave out wrappers that change rewards, or set hindsight to 0."
            )


def _with_goals(space: Space[Any]) -> Mapping[str, Space[Any]]:
    """Return the parts of a space of observations that have goals."""
    parts = space.spaces if isinstance(space, spaces.Dict) else {}
    if not {ACHIEVED, DESIRED} <= {*parts} or parts[ACHIEVED].shape != parts[DESIRED].shape:
        raise ValueError(
            f"replay.hindsight is for observations that are a Dict with {ACHIEVED} and {DESIRED} of one shape, and these "
            f"are {space}: leave it out."
        )
    return parts


def at_once(function: Callable[..., Any], achieved: Array, desired: Array) -> Callable[[Array, Array], Any]:
    """Return a function of many goals, (M, …): the environment's own if it takes many, else one that asks row by row.

    Args:
        function: of an achieved and a desired goal, and an info.
        achieved: some goals to try it with.
        desired: likewise.
    """

    def by_row(achieved: Array, desired: Array) -> Any:
        return np.array([function(one, other, {}) for one, other in zip(achieved, desired, strict=True)])

    expected = by_row(achieved, desired)
    try:
        found = np.asarray(function(achieved, desired, {}))
        takes_many = found.shape == expected.shape and bool((found == expected).all())
    except Exception:  # whatever a function of one goal does with many
        takes_many = False
    return (lambda achieved, desired: function(achieved, desired, {})) if takes_many else by_row


def goals_of(
    env: Any, observation_space: Space[Any], env_kwargs: Mapping[str, Any], wrappers: Sequence[str]
) -> GoalRewards:
    """Return the rewards of an environment's goals, from one of its kind that is made for this.

    Args:
        env: as for `rlgrad.train`.
        observation_space: as it is stored.
        env_kwargs: for its constructor.
        wrappers: around it.

    Raises:
        ValueError: it has no goals.
    """
    _with_goals(observation_space)
    if isinstance(env, Env):
        return GoalRewards(env, observation_space)
    options = EnvironmentOptions(num_envs=1, vectorization_mode="sync", env_kwargs=dict(env_kwargs), wrappers=wrappers)
    made: Any = make(load_class(env), options).vector
    while not hasattr(made, "envs"):
        if not hasattr(made, "env"):
            raise ValueError(
                "replay.hindsight asks a single environment's compute_reward, and this is a vector of them."
            )
        made = made.env
    return GoalRewards(made.envs[0], observation_space)
