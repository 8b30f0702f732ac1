"""A car too weak for the hill must first swing back (Moore, 1990; Sutton & Barto, 2018, example 10.1).

State (position x, velocity v), which is also the observation. With the throttle a of −1, 0 or 1:

    v ← v + 0.001 a − 0.0025 cos 3x,   kept in ±0.07
    x ← x + v,                         kept in [−1.2, 0.6]; the car that meets the left end stops

It is over where x ≥ 0.5 and v is at least the goal velocity; each step earns −1. Episodes start at rest, x uniform in
[−0.6, −0.4].

Source: Moore (1990), "Efficient memory-based learning for robot control". Equal to Gymnasium's `MountainCar-v0`, which computes
in float64, to the rounding of float32, 1e-6 (a test holds both beside each other).
"""

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.experimental.functional import FuncEnv

from rlgrad import random
from rlgrad.envs import pictures

GRAVITY, FASTEST, LEFT_END, RIGHT_END = 0.0025, 0.07, -1.2, 0.6
_THROTTLE, _GOAL = 0.001, 0.5


class MountainCar(FuncEnv[Any, Any, Any, Any, Any, Any, Any]):
    """State and observation: float32 (…, 2). Action: 0 back, 1 nothing, 2 forward. Reward: −1 a step.

    Args:
        goal_velocity: the least velocity at which the car must reach the goal.
    """

    observation_space = gymnasium.spaces.Box(
        np.array([LEFT_END, -FASTEST], np.float32), np.array([RIGHT_END, FASTEST], np.float32), dtype=np.float32
    )
    action_space = gymnasium.spaces.Discrete(3)
    max_episode_steps = 200
    reward_threshold = -110.0

    def __init__(self, goal_velocity: float = 0.0) -> None:
        super().__init__()
        self.goal_velocity = goal_velocity

    def initial(self, rng: Any, params: Any = None) -> tf.Tensor:
        """Return a car at rest near the bottom."""
        return at_rest(rng)

    def transition(self, state: Any, action: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Apply the throttle, then the hill."""
        return drive(state, _THROTTLE * (tf.cast(action, tf.float32) - 1.0))

    def observation(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return the state."""
        return tf.identity(state)

    def reward(self, state: Any, action: Any, next_state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return −1."""
        return -tf.ones_like(next_state[..., 0])

    def terminal(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return True on the hill, if the car is fast enough."""
        return (state[..., 0] >= _GOAL) & (state[..., 1] >= self.goal_velocity)

    def render(self, state: Any) -> pictures.Picture:
        """Return a picture of a state, as Gymnasium's `MountainCar-v0` draws it."""
        return pictures.by_gymnasium("MountainCar-v0", state)


def at_rest(rng: Any) -> tf.Tensor:
    """Return states of cars at rest near the bottom, for seeds (…, 2): float32 (…, 2)."""
    position = 0.2 * random.uniform(rng) - 0.6
    return tf.stack([position, tf.zeros_like(position)], axis=-1)


def drive(state: Any, force: Any) -> tf.Tensor:
    """Make one step under a force, float32 (…). Both mountain cars use it."""
    position, velocity = tf.unstack(state, axis=-1)
    velocity = tf.clip_by_value(velocity + force - GRAVITY * tf.cos(3.0 * position), -FASTEST, FASTEST)
    position = tf.clip_by_value(position + velocity, LEFT_END, RIGHT_END)
    velocity = tf.where(tf.equal(position, LEFT_END), tf.maximum(velocity, 0.0), velocity)
    return tf.stack([position, velocity], axis=-1)
