"""Environments with goals: bits to flip, one goal at a time, and a point to bring somewhere, many at once."""

import gymnasium
import numpy as np
from gymnasium import spaces


class BitFlip(gymnasium.Env):
    """Flip one of n bits a step until they are the goal's. Its reward takes one goal alone, and reaching it ends the task."""

    def __init__(self, bits=4):
        bit = spaces.MultiBinary(bits)
        self.observation_space = spaces.Dict({"observation": bit, "achieved_goal": bit, "desired_goal": bit})
        self.action_space, self.bits = spaces.Discrete(bits), bits

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.goal = self.np_random.integers(0, 2, (2, self.bits)).astype(np.int8)
        self.steps = 0
        return self.seen(), {}

    def seen(self):
        return {"observation": self.state.copy(), "achieved_goal": self.state.copy(), "desired_goal": self.goal.copy()}

    def step(self, action):
        self.state[action] ^= 1
        self.steps += 1
        reward, over = (ask(self.state, self.goal, {}) for ask in (self.compute_reward, self.compute_terminated))
        return self.seen(), reward, over, self.steps >= 2 * self.bits, {}

    def compute_reward(self, achieved, desired, info):
        return 0.0 if bool(np.array_equal(achieved, desired)) else -1.0

    def compute_terminated(self, achieved, desired, info):
        return bool(np.array_equal(achieved, desired))


class Reach(gymnasium.Env):
    """Bring a point near a goal in the plane. Its reward takes many goals, and nothing ends the task but time."""

    def __init__(self, limit=8):
        point = spaces.Box(-2.0, 2.0, (2,), np.float64)
        self.observation_space = spaces.Dict({"observation": point, "achieved_goal": point, "desired_goal": point})
        self.action_space, self.limit = spaces.Box(-1.0, 1.0, (2,)), limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.goal = np.zeros(2), self.np_random.uniform(-1, 1, 2)
        self.steps = 0
        return self.seen(), {}

    def seen(self):
        return {"observation": self.at.copy(), "achieved_goal": self.at.copy(), "desired_goal": self.goal.copy()}

    def step(self, action):
        self.at = np.clip(self.at + 0.2 * np.asarray(action, np.float64), -2, 2)
        self.steps += 1
        return self.seen(), float(self.compute_reward(self.at, self.goal, {})), False, self.steps >= self.limit, {}

    def compute_reward(self, achieved, desired, info):
        return -(np.linalg.norm(achieved - desired, axis=-1) > 0.15).astype(np.float32)


class Doubled(gymnasium.RewardWrapper):
    """Pays twice what the environment's `compute_reward` says."""

    def reward(self, reward):
        return 2.0 * float(reward)
