"""The mountain car with a throttle that costs: the hill of `mountain_car.py`, an action that is a number.

    v ← v + 0.0015 a − 0.0025 cos 3x,  a kept in ±1; the rest as there, with the goal at x ≥ 0.45
    reward 100 on arrival, less 0.1 a² a step, of the action as it was given

To stand still earns 0, more than any drive that does not arrive: the local optimum in which agents get caught.

Source: the rules of Gymnasium's `MountainCarContinuous-v0`, which its documentation gives. Equal to it, which keeps its state
in float32 too, to rounding, 1e-6, and the reward to 1e-5 (a test holds both beside each other).
"""

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.experimental.functional import FuncEnv

from rlgrad.envs import pictures
from rlgrad.envs.mountain_car import MountainCar, at_rest, drive

_POWER, _GOAL, _ARRIVED, _COST = 0.0015, 0.45, 100.0, 0.1


class MountainCarContinuous(FuncEnv[Any, Any, Any, Any, Any, Any, Any]):
    """State and observation: float32 (…, 2). Action: float32 (…, 1), the throttle. Reward: 100 on arrival, less its cost.

    Args:
        goal_velocity: the least velocity at which the car must reach the goal.
    """

    observation_space = MountainCar.observation_space
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    max_episode_steps = 999
    reward_threshold = 90.0

    def __init__(self, goal_velocity: float = 0.0) -> None:
        super().__init__()
        self.goal_velocity = goal_velocity

    def initial(self, rng: Any, params: Any = None) -> tf.Tensor:
        """Return a car at rest near the bottom."""
        return at_rest(rng)

    def transition(self, state: Any, action: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Apply the throttle, then the hill."""
        return drive(state, _POWER * tf.clip_by_value(action[..., 0], -1.0, 1.0))

    def observation(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return the state."""
        return tf.identity(state)

    def reward(self, state: Any, action: Any, next_state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return the prize, less the cost of the throttle."""
        return tf.where(self.terminal(next_state, rng), _ARRIVED, 0.0) - _COST * tf.square(action[..., 0])

    def terminal(self, state: Any, rng: Any, params: Any = None) -> tf.Tensor:
        """Return True on the hill, if the car is fast enough."""
        return (state[..., 0] >= _GOAL) & (state[..., 1] >= self.goal_velocity)

    def render(self, state: Any) -> pictures.Picture:
        """Return a picture of a state, as Gymnasium's `MountainCarContinuous-v0` draws it."""
        return pictures.by_gymnasium("MountainCarContinuous-v0", state)
