"""The short corridor with switched actions, example 13.1 of Sutton & Barto (2018).

    S  0  1→←  2  G        −1 a step; in state 1, left goes right and right goes left

All states look alike, so the best policy is stochastic. With p the probability of right, the value of the start is
(2p − 4) / (p (1 − p)), largest, about −11.66, at p = 2 − √2 ≈ 0.586. A greedy policy never arrives.
"""

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.experimental.functional import FuncEnv

from rlgrad.envs import pictures

_GOAL = 3


class ShortCorridor(FuncEnv[Any, Any, Any, Any, Any, Any, Any]):
    """State: int32 (…), 0 to 3. Action: 0 left, 1 right. Observation: float32 (…, 1), always 1. Reward: −1 a step.

    Every function takes any number of batch axes.
    """

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    # The book has no time limit; a policy that always goes left would never end.
    max_episode_steps = 1000

    def initial(self, rng: Any, params: Any = None) -> tf.Tensor:
        """Return the leftmost state."""
        return tf.zeros(tf.shape(rng)[:-1], tf.int32)

    def transition(self, state: Any, action: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Make one step left or right; the wall on the left holds, and state 1 switches the actions."""
        step = 2 * tf.cast(action, tf.int32) - 1
        return tf.maximum(state + tf.where(tf.equal(state, 1), -step, step), 0)

    def observation(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return 1, whatever the state."""
        return tf.ones_like(state, tf.float32)[..., None]

    def reward(self, state: Any, action: Any, next_state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return −1."""
        return -tf.ones_like(next_state, tf.float32)

    def terminal(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return True at the goal."""
        return tf.equal(state, _GOAL)

    def render(self, state: Any) -> pictures.Picture:
        """Return a picture of the corridor: where the actor is, and in green the end."""
        here, end = np.arange(4) == state, np.arange(4) == 3
        return pictures.of_grid(np.stack([end, here], axis=-1)[None], [(0, 120, 0), (255, 255, 255)], 60)
