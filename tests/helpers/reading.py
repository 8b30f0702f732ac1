"""A module of a user's own: an environment of texts, and the encoder of its observations."""

MODULE = '''
import gymnasium
import keras
import numpy as np
from gymnasium import spaces

import rlgrad


class Letters(rlgrad.spaces.Encoder):
    """Each letter a vector of 4 numbers."""

    serves = spaces.Text

    def layout(self):
        return (self.space.max_length,), np.int16

    def to_array(self, text):
        codes = [1 + self.space.character_index(letter) for letter in text]
        return np.array(codes + [0] * (self.space.max_length - len(codes)), np.int16)

    def range(self):
        return 0, len(self.space.character_set)

    def prepare(self, x):
        return keras.ops.cast(x, "int32")

    def encode(self, x, seed, name):
        return [keras.layers.Flatten()(keras.layers.Embedding(1 + len(self.space.character_set), 4)(x))]


class Reading(gymnasium.Env):
    """1 for the action that says whether the text begins with an a; four texts an episode."""

    observation_space = spaces.Text(min_length=1, max_length=5, charset="abcd")
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._text(), {}

    def step(self, action):
        reward, self.steps = float(action == self.text.startswith("a")), self.steps + 1
        return self._text(), reward, self.steps == 4, False, {}

    def _text(self):
        first = "abcd"[self.np_random.integers(4) * self.np_random.integers(2)]
        rest = self.np_random.choice(list("abcd"), self.np_random.integers(5))
        self.text = first + "".join(rest)
        return self.text
'''
