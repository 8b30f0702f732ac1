"""Environments and policies that play a script, so that every number of a rollout is known beforehand; how rollouts compare."""

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.testing import assert_array_equal

from rlgrad.rollouts import GymCollector, Rollout

BY_STEPS, BY_EPISODES = {"num_steps": 40}, {"episodes_per_env": 2, "max_episode_steps": 60}

GO_ON, TERMINATE, TRUNCATE = 0, 1, 2


class ScriptedEnv(gymnasium.Env):
    """Observation: [resets so far − 1, steps since the reset]. Reward: 10 · episode + step, steps counted from 1."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self):
        self.episode, self.count, self.over = -1, 0, True

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.count, self.over = self.episode + 1, 0, False
        return self._observation(), {}

    def step(self, action):
        assert not self.over, "stepped after its episode ended"
        self.count += 1
        self.over = action != GO_ON
        reward = 10 * self.episode + self.count
        return self._observation(), reward, bool(action == TERMINATE), bool(action == TRUNCATE), {}

    def _observation(self):
        return np.array([self.episode, self.count], np.float64)


class Scripted:
    """A distribution whose parameters are the actions; the log-probability of slot n's is −n."""

    def noise(self, parameters, generator, count):
        return [None] * count

    def pick(self, parameters, noise):
        return parameters

    def numpy_log_prob(self, parameters, actions):
        return np.broadcast_to(-np.arange(actions.shape[-1], dtype=np.float32), actions.shape)

    def to_environment(self, actions):
        return actions


class ScriptedPolicy:
    """Ends episode e of slot n after `script[n][e] = (steps, how)`; the last entry holds for all later ones."""

    distribution = Scripted()

    def __init__(self, *script):
        self.script = script

    def actor(self):
        def act(observations):
            actions = np.zeros(len(observations), np.int64)
            for slot, (episode, count) in enumerate(observations.astype(int)):
                steps, how = self.script[slot][min(episode, len(self.script[slot]) - 1)]
                if count + 1 == steps:
                    actions[slot] = how
            return actions

        return act


class RoundPolicy(ScriptedPolicy):
    """The same where e counts the times that all slots began together, whatever the environments did in between."""

    def actor(self):
        act, rounds = super().actor(), -1

        def in_rounds(observations):
            nonlocal rounds
            rounds += bool((observations[:, 1] == 0).all())
            return act(np.stack([np.full(len(observations), rounds), observations[:, 1]], axis=1))

        return in_rounds


class RandomPolicy:
    """Uniform over `count` actions."""

    def __init__(self, count=2):
        self.distribution, self.count = Uniform(), count

    def actor(self):
        return lambda observations: np.full(len(next(iter(_leaves(observations)))), self.count)


class Uniform:
    def noise(self, parameters, generator, count):
        return generator.random((count, *parameters.shape))

    def pick(self, parameters, noise):
        return (noise * parameters).astype(np.int64)

    def numpy_log_prob(self, parameters, actions):
        return -np.log(parameters).astype(np.float32)

    def mode(self, parameters):
        return np.zeros(len(parameters), np.int64), np.zeros(len(parameters), np.float32)

    def to_environment(self, actions):
        return actions


def _leaves(tree):
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, tuple):
        for part in tree:
            yield from _leaves(part)
    else:
        yield tree


class TreeEnv(gymnasium.Env):
    """Every array of its observation counts steps. Ends after three."""

    observation_space = spaces.Dict(
        image=spaces.Box(0, 255, (2, 3), np.uint8),
        pair=spaces.Tuple([spaces.Discrete(50), spaces.Box(-np.inf, np.inf, (1,), np.float64)]),
        flags=spaces.MultiBinary(2),
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return self._observation(), {}

    def step(self, action):
        self.count += 1
        return self._observation(), 1.0, self.count == 3, False, {}

    def _observation(self):
        image = np.full((2, 3), self.count, np.uint8)
        return {"image": image, "pair": (self.count, np.array([self.count / 2])), "flags": np.array([1, 0], np.int8)}


def assert_same(first, second):
    """To the bit, and in type."""
    for rollout in (first, second):
        assert (rollout.values, rollout.next_values, rollout.initial_states) == (None, None, ())  # a learner fills them
    for name, a, b in list(zip(Rollout._fields, first, second, strict=True))[:-3]:
        assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype


def rollouts(count=3, policy=None, **options):
    """So many of CartPole's, and the episodes that ended in them."""
    with GymCollector("CartPole-v1", **{"num_envs": 3, **options}) as c:
        return [c.collect(policy or RandomPolicy()) for _ in range(count)], c.drain_episodes()
