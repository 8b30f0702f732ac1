"""Copies of a functional environment as a Gymnasium vector environment: one XLA program steps all of them."""

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rlgrad import random
from rlgrad.environments.functional import (
    AnyFuncEnv,
    as_action,
    as_numpy,
    begin_episodes,
    choose,
    compile_trees,
    draw_seeds,
    move,
)
from rlgrad.spaces.trees import slot_of


class FunctionalVectorEnv(VectorEnv[Any, Any, Any]):
    """Copies of an environment, each of which begins its next episode in the step that ends one (`AutoresetMode.SAME_STEP`).

    Only this mode needs no branch: every copy is stepped, every copy is reset, and each takes the result that counts.
    `infos["final_obs"]` holds the last observations of the episodes that ended, where `infos["_final_obs"]` is True.

    Args:
        functional: see `rlgrad.environments.functional`.
        num_envs: the number of copies.
        max_episode_steps: truncate episodes after so many steps. `None`: never.
    """

    def __init__(self, functional: AnyFuncEnv, num_envs: int, max_episode_steps: int | None = None) -> None:
        self.functional, self.num_envs, self.max_episode_steps = functional, num_envs, max_episode_steps
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = functional.observation_space
        self.single_action_space = functional.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._carry: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every copy.

        Raises:
            ValueError: `options` has a mask; copies cannot be reset one by one.
        """
        super().reset(seed=seed)
        if options and "reset_mask" in options:
            raise ValueError("These environments begin their next episodes themselves: reset takes no reset_mask.")
        begin, _ = _programs(self.functional, self.num_envs, self.max_episode_steps)
        self._carry, observations = begin(draw_seeds(self.np_random, (self.num_envs,)))
        return as_numpy(observations), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Make one transition of every copy."""
        if self._carry is None:
            raise gymnasium.error.ResetNeeded("Call reset before the first step.")
        _, step = _programs(self.functional, self.num_envs, self.max_episode_steps)
        self._carry, final, *stepped = step(self._carry, as_action(self.action_space, actions))
        observations, rewards, terminated, truncated = map(as_numpy, stepped)
        ended = terminated | truncated
        infos = self._infos(as_numpy(final), ended) if ended.any() else {}
        return observations, rewards, terminated, truncated, infos

    def _infos(self, final: Any, ended: np.ndarray[Any, Any]) -> dict[str, Any]:
        observations = np.full(self.num_envs, None, dtype=object)
        for slot in np.flatnonzero(ended).tolist():
            observations[slot] = slot_of(final, slot)
        # As Gymnasium's own vector environments do in this mode: an empty final info is an empty dict.
        return {"final_obs": observations, "_final_obs": ended, "final_info": {}, "_final_info": ended.copy()}


@functools.lru_cache(maxsize=64)
def _programs(functional: AnyFuncEnv, num_envs: int, limit: int | None) -> tuple[Any, Any]:
    import tensorflow as tf

    def begin(rng: Any) -> Any:
        now, later = tf.unstack(random.split(rng, 2), axis=-2)
        state, observation = begin_episodes(functional, now)
        return (state, later, tf.zeros((num_envs,), tf.int32)), observation

    def step(carry: Any, action: Any) -> Any:
        state, rng, steps = carry
        now, anew, later = tf.unstack(random.split(rng, 3), axis=-2)
        following, final, reward, terminated = move(functional, state, action, now)
        steps += 1
        truncated = tf.zeros_like(terminated) if limit is None else steps >= limit
        ended = terminated | truncated
        state, observation = choose(ended, begin_episodes(functional, anew), (following, final))
        return (state, later, tf.where(ended, 0, steps)), final, observation, reward, terminated, truncated

    space = batch_space(functional.action_space, num_envs)
    begun, (carry, _) = compile_trees(begin, tf.TensorSpec((num_envs, 2), tf.int32))
    stepped, _ = compile_trees(step, carry, tf.TensorSpec(space.shape, space.dtype))
    return begun, stepped
