"""A pole on a cart that is pushed left or right at every step: keep it upright (Barto, Sutton & Anderson, 1983).

State (x, ẋ, θ, θ̇), in metres and radians from the upright, which is also the observation. With push F = ±10 N, gravity g = 9.8,
cart and pole together M = 1.1 kg, the pole m = 0.1 kg and half as long as l = 0.5 m:

    u = (F + m l θ̇² sin θ) / M
    θ̈ = (g sin θ − u cos θ) / (l (4/3 − m cos² θ / M))
    ẍ = u − m l θ̈ cos θ / M

and one Euler step of 0.02 s. It is over where |x| > 2.4 or |θ| > 12°; each step earns 1. Episodes start uniformly within ±0.05.

Source: Barto, Sutton & Anderson (1983), "Neuronlike adaptive elements that can solve difficult learning control problems", with
the equations of Florian (2007), "Correct equations for the dynamics of the cart-pole system", without friction. Equal to
Gymnasium's `CartPole-v1`, which computes in float64, to the rounding of float32, 1e-6 (a test holds both beside each other).
"""

import math
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.experimental.functional import FuncEnv

from rlgrad import random
from rlgrad.envs import pictures

_GRAVITY, _PUSH, _SECONDS = 9.8, 10.0, 0.02
_POLE, _BOTH, _HALF_LENGTH = 0.1, 1.1, 0.5
_MOMENT = _POLE * _HALF_LENGTH
_MOST_X, _MOST_ANGLE = 2.4, math.radians(12)
_HIGH = np.array([2 * _MOST_X, np.inf, 2 * _MOST_ANGLE, np.inf], np.float32)


class CartPole(FuncEnv[Any, Any, Any, Any, Any, Any, Any]):
    """State and observation: float32 (…, 4). Action: 0 pushes left, 1 right. Reward: 1 a step.

    Args:
        sutton_barto_reward: as in Sutton & Barto's book, reward −1 for the step that ends the episode and 0 for the others.
    """

    observation_space = gymnasium.spaces.Box(-_HIGH, _HIGH, dtype=np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    max_episode_steps = 500
    reward_threshold = 475.0

    def __init__(self, sutton_barto_reward: bool = False) -> None:
        super().__init__()
        self.sutton_barto_reward = sutton_barto_reward

    def initial(self, rng: Any, params: Any = None) -> tf.Tensor:
        """Return a state almost upright and almost still."""
        return 0.1 * random.uniform(rng, (4,)) - 0.05

    def transition(self, state: Any, action: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Make one step of Euler's method: positions move by the old velocities."""
        _, x_velocity, angle, angle_velocity = tf.unstack(state, axis=-1)
        cos, sin = tf.cos(angle), tf.sin(angle)
        push = tf.where(tf.equal(action, 1), _PUSH, -_PUSH)
        u = (push + _MOMENT * angle_velocity**2 * sin) / _BOTH
        angle_acceleration = (_GRAVITY * sin - u * cos) / (_HALF_LENGTH * (4 / 3 - _POLE * cos**2 / _BOTH))
        x_acceleration = u - _MOMENT * angle_acceleration * cos / _BOTH
        velocities = tf.stack([x_velocity, x_acceleration, angle_velocity, angle_acceleration], axis=-1)
        return state + _SECONDS * velocities

    def observation(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return the state."""
        return tf.identity(state)

    def reward(self, state: Any, action: Any, next_state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return 1; with `sutton_barto_reward`, −1 for the step that ends the episode and 0 for others."""
        if self.sutton_barto_reward:
            return -tf.cast(self.terminal(next_state, rng), tf.float32)
        return tf.ones_like(next_state[..., 0])

    def terminal(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return True if the cart has left the track, or the pole leans too far."""
        return (tf.abs(state[..., 0]) > _MOST_X) | (tf.abs(state[..., 2]) > _MOST_ANGLE)

    def render(self, state: Any) -> pictures.Picture:
        """Return a picture of a state, as Gymnasium's `CartPole-v1` draws it."""
        return pictures.by_gymnasium("CartPole-v1", state)
