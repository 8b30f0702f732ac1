"""Functional environments for tests."""

import numpy as np
import tensorflow as tf
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv


class Clock(FuncEnv):
    """Counts the steps of an episode, pays them out, and ends after `length`. At step `bad_at` the reward is not a number."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    reward_threshold = None

    def __init__(self, length=5, bad_at=None, max_episode_steps=100):
        self.length, self.bad_at, self.max_episode_steps = length, bad_at, max_episode_steps

    def initial(self, rng, params=None):
        return tf.zeros(tf.shape(rng)[:-1], tf.int32) + 0 * rng[..., 0]

    def transition(self, state, action, rng, params=None):
        return state + 1

    def observation(self, state, rng, params=None):
        return tf.cast(state, tf.float32)[..., None] / self.length

    def reward(self, state, action, next_state, rng, params=None):
        paid = tf.cast(next_state, tf.float32)
        return paid if self.bad_at is None else tf.where(next_state == self.bad_at, np.nan, paid)

    def terminal(self, state, rng, params=None):
        return state >= self.length


class Everything(FuncEnv):
    """Pays 1 for each part of the action that has the dtype and range of its space."""

    observation_space = spaces.Dict(count=spaces.Discrete(1000), picture=spaces.Box(0, 255, (6, 6, 1), np.uint8))
    action_space = spaces.Dict(
        choice=spaces.Discrete(3, start=5), push=spaces.Box(-1.0, 1.0, (2,)), switches=spaces.MultiBinary(4)
    )
    max_episode_steps = 1000
    reward_threshold = None

    def initial(self, rng, params=None):
        return {"count": 0 * rng[..., 0], "noise": rng[..., 0]}

    def transition(self, state, action, rng, params=None):
        return {"count": state["count"] + 1, "noise": rng[..., 0]}

    def observation(self, state, rng, params=None):
        picture = tf.cast(state["noise"] % 256, tf.uint8)[..., None, None, None]
        return {
            "count": tf.cast(state["count"], tf.int64),
            "picture": tf.tile(picture, [*[1] * (state["count"].shape.rank), 6, 6, 1]),
        }

    def reward(self, state, action, next_state, rng, params=None):
        right = [
            (action["choice"] >= 5) & (action["choice"] < 8),
            tf.reduce_all(tf.abs(action["push"]) <= 1.0, axis=-1),
            tf.reduce_all((action["switches"] == 0) | (action["switches"] == 1), axis=-1),
        ]
        assert action["switches"].dtype == tf.int8
        return tf.add_n([tf.cast(r, tf.float32) for r in right])

    def terminal(self, state, rng, params=None):
        return state["count"] < 0
