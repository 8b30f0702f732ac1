"""A pendulum to be swung up and held there by a motor too weak to lift it at once.

State (θ, θ̇), θ = 0 upright; observation (cos θ, sin θ, θ̇). With gravity g = 10, mass and length 1, and the torque u kept in ±2:

    θ̇ ← θ̇ + 0.05 (3 g / 2 · sin θ + 3 u),  kept in ±8
    θ ← θ + 0.05 θ̇

The reward −(θ² + 0.1 θ̇² + 0.001 u²) is that of the state before, θ in [−π, π], and the torque as it was kept. It is never over.
Episodes start with θ uniform in ±π and θ̇ in ±1.

Source: the equations of Gymnasium's `Pendulum-v1`, which its documentation gives. Equal to it, which computes in float64, to
the rounding of float32, 1e-6, and the reward to 1e-5 (a test holds both beside each other). There θ grows with the turns; here
it is wrapped at every step, so that float32 keeps its digits; observations and rewards are the same.
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

_SECONDS, _FASTEST, _STRONGEST = 0.05, 8.0, 2.0
_HIGH = np.array([1.0, 1.0, _FASTEST], np.float32)


class Pendulum(FuncEnv[Any, Any, Any, Any, Any, Any, Any]):
    """State: float32 (…, 2). Observation: float32 (…, 3). Action: float32 (…, 1), the torque. Reward: −16.3 to 0 a step.

    Args:
        g: gravity.
    """

    observation_space = gymnasium.spaces.Box(-_HIGH, _HIGH, dtype=np.float32)
    action_space = gymnasium.spaces.Box(-_STRONGEST, _STRONGEST, (1,), np.float32)
    max_episode_steps = 200
    reward_threshold = None

    def __init__(self, g: float = 10.0) -> None:
        super().__init__()
        self.g = g

    def initial(self, rng: Any, params: Any = None) -> tf.Tensor:
        """Return a pendulum at any angle, turning slowly."""
        return tf.constant([math.pi, 1.0]) * (2.0 * random.uniform(rng, (2,)) - 1.0)

    def transition(self, state: Any, action: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Change the velocity first; the angle moves by the new one."""
        angle, velocity = tf.unstack(state, axis=-1)
        acceleration = 1.5 * self.g * tf.sin(angle) + 3.0 * _torque(action)
        velocity = tf.clip_by_value(velocity + _SECONDS * acceleration, -_FASTEST, _FASTEST)
        return tf.stack([wrapped(angle + _SECONDS * velocity), velocity], axis=-1)

    def observation(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return the angle as a point on the circle, and the velocity."""
        angle, velocity = tf.unstack(state, axis=-1)
        return tf.stack([tf.cos(angle), tf.sin(angle), velocity], axis=-1)

    def reward(self, state: Any, action: Any, next_state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return the cost of the state and of the torque, as a negative number."""
        angle, velocity = tf.unstack(state, axis=-1)
        return -(wrapped(angle) ** 2 + 0.1 * velocity**2 + 0.001 * _torque(action) ** 2)

    def terminal(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return False: it is never over."""
        return tf.zeros_like(state[..., 0], tf.bool)

    def render(self, state: Any) -> pictures.Picture:
        """Return a picture of a state, as Gymnasium's `Pendulum-v1` draws it."""
        return pictures.by_gymnasium("Pendulum-v1", state, last_u=None)


def _torque(action: Any) -> tf.Tensor:
    return tf.clip_by_value(action[..., 0], -_STRONGEST, _STRONGEST)
