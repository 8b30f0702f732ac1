"""An environment that counts its steps, so that every number of a rollout is known; and settings of a short training."""

import gymnasium
import numpy as np
from gymnasium import spaces

QUICK = {
    "num_envs": 2,
    "num_steps": 10,
    "hidden_sizes": (4,),
    "evaluation_episodes": 0,
    "verbose": False,
    "logs": ("csv",),
}


class Count(gymnasium.Env):
    """Observes the steps of its episode, and pays 1 for each.

    Args:
        ends: steps after which the task ends.
        cut: steps after which time is over.
        pay: reward of a step; or a function of its number.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, ends=10**9, cut=10**9, pay=1.0):
        self.ends, self.cut, self.pay, self.taken = ends, cut, pay, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        self.taken.append(action)
        pay = self.pay(self.count) if callable(self.pay) else self.pay
        return self.observe(), pay, self.count >= self.ends, self.count >= self.cut, {}

    def observe(self):
        return np.array([self.count], np.float32)
