"""Two links hang from a bar, with a motor at the joint between them alone: swing the tip above the bar (Sutton, 1996).

State (θ₁, θ₂, θ̇₁, θ̇₂), θ₁ from hanging down, θ₂ from the direction of the first link; observation (cos θ₁, sin θ₁, cos θ₂,
sin θ₂, θ̇₁, θ̇₂). Both links have mass 1, length 1, their centre halfway, and moment of inertia 1; g = 9.8. With the torque τ of
−1, 0 or 1:

    d₁ = 7/2 + cos θ₂                                d₂ = 5/4 + ½ cos θ₂
    φ₂ = ½ g sin(θ₁ + θ₂)                            φ₁ = −½ θ̇₂ (θ̇₂ + 2 θ̇₁) sin θ₂ + 3/2 g sin θ₁ + φ₂
    θ̈₂ = (τ + φ₁ d₂/d₁ − ½ θ̇₁² sin θ₂ − φ₂) / (5/4 − d₂²/d₁)
    θ̈₁ = −(d₂ θ̈₂ + φ₁) / d₁

and one Runge-Kutta step of fourth order of 0.2 s, after which angles are wrapped into ±π and velocities kept in ±4π and
±9π. It is over where the tip is one length above the bar, −cos θ₁ − cos(θ₁ + θ₂) > 1; the step that arrives earns 0, the
others −1. Episodes start uniformly within ±0.1.

Source: Sutton (1996), "Generalization in reinforcement learning", with the equations of Sutton & Barto's book (1998, section
11.3). Equal to Gymnasium's `Acrobot-v1`, which computes in float64, to the rounding of float32, which the dynamics magnify
where the links are fast: of states from all over the space, 99 in 100 come within 1e-4 and all within 5e-3 (a test holds both
beside each other).
"""

import math
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.experimental.functional import FuncEnv

from rlgrad import random
from rlgrad.envs import pictures
from rlgrad.envs.angles import wrapped

_GRAVITY, _SECONDS = 9.8, 0.2
_FASTEST = (4 * math.pi, 9 * math.pi)
_HIGH = np.array([1.0, 1.0, 1.0, 1.0, *_FASTEST], np.float32)


class Acrobot(FuncEnv[Any, Any, Any, Any, Any, Any, Any]):
    """State: float32 (…, 4). Observation: float32 (…, 6). Action: 0, 1, 2, torque −1, 0, 1. Reward: −1 a step, 0 on arrival."""

    observation_space = gymnasium.spaces.Box(-_HIGH, _HIGH, dtype=np.float32)
    action_space = gymnasium.spaces.Discrete(3)
    max_episode_steps = 500
    reward_threshold = -100.0

    def initial(self, rng: Any, params: Any = None) -> tf.Tensor:
        """Return a state almost hanging and almost still."""
        return 0.2 * random.uniform(rng, (4,)) - 0.1

    def transition(self, state: Any, action: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Make one step of Runge and Kutta's method under a constant torque."""
        torque = tf.cast(action, tf.float32) - 1.0
        k_1 = _change(state, torque)
        k_2 = _change(state + _SECONDS / 2 * k_1, torque)
        k_3 = _change(state + _SECONDS / 2 * k_2, torque)
        k_4 = _change(state + _SECONDS * k_3, torque)
        following = state + _SECONDS / 6 * (k_1 + 2.0 * k_2 + 2.0 * k_3 + k_4)
        fastest = tf.constant(_FASTEST)
        velocities = tf.clip_by_value(following[..., 2:], -fastest, fastest)
        return tf.concat([wrapped(following[..., :2]), velocities], axis=-1)

    def observation(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return the angles as points on the circle, and the velocities."""
        first, second, *velocities = tf.unstack(state, axis=-1)
        return tf.stack([tf.cos(first), tf.sin(first), tf.cos(second), tf.sin(second), *velocities], axis=-1)

    def reward(self, state: Any, action: Any, next_state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return −1 until the tip is up."""
        return tf.where(self.terminal(next_state, rng), 0.0, -1.0)

    def terminal(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return True where the tip is one length above the bar."""
        first, second, _, _ = tf.unstack(state, axis=-1)
        return -tf.cos(first) - tf.cos(first + second) > 1.0

    def render(self, state: Any) -> pictures.Picture:
        """Return a picture of a state, as Gymnasium's `Acrobot-v1` draws it."""
        return pictures.by_gymnasium("Acrobot-v1", state)


def _change(state: Any, torque: Any) -> tf.Tensor:
    """Return the state's derivative in time, (…, 4), by the equations above."""
    first, second, first_velocity, second_velocity = tf.unstack(state, axis=-1)
    cos, sin = tf.cos(second), tf.sin(second)
    d_1, d_2 = 3.5 + cos, 1.25 + 0.5 * cos
    phi_2 = 0.5 * _GRAVITY * tf.sin(first + second)
    turning = 0.5 * second_velocity * (second_velocity + 2.0 * first_velocity) * sin
    phi_1 = 1.5 * _GRAVITY * tf.sin(first) + phi_2 - turning
    force = torque + d_2 / d_1 * phi_1 - 0.5 * first_velocity**2 * sin - phi_2
    second_acceleration = force / (1.25 - d_2**2 / d_1)
    first_acceleration = -(d_2 * second_acceleration + phi_1) / d_1
    return tf.stack([first_velocity, second_velocity, first_acceleration, second_acceleration], axis=-1)
