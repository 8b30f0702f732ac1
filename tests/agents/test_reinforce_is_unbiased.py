"""The expectation of the gradient that rlgrad computes, by enumeration of everything that can happen, against ∇J."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.slow import mostly_slow

import rlgrad
from rlgrad import gradients
from rlgrad.agents import Reinforce
from rlgrad.gradients import LogProb
from rlgrad.rollouts import Rollout
from rlgrad.updates import Ascent

# A decision process whose four episodes have lengths 1, 2, 3 and 3: (state, action) -> (reward, next state or None).
PROCESS = {
    (0, 0): (1.0, None),
    (0, 1): (0.0, 1),
    (1, 0): (3.0, None),
    (1, 1): (-1.0, 2),
    (2, 0): (2.0, None),
    (2, 1): (0.5, None),
}
EPISODES = [[(0, 0)], [(0, 1), (1, 0)], [(0, 1), (1, 1), (2, 0)], [(0, 1), (1, 1), (2, 1)]]
LENGTH, GAMMA = 3, 0.7
LOGITS = np.array([[0.3, -0.2], [0.1, 0.6], [-0.5, 0.4]])


def probabilities(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def chance(episode, logits):
    return np.prod([probabilities(logits)[s, a] for s, a in episode])


def discounted(episode):
    return sum(GAMMA**t * PROCESS[step][0] for t, step in enumerate(episode))


def objective(logits):
    return sum(chance(e, logits) * discounted(e) for e in EPISODES)


def gradient_of_objective():
    """∇J by central differences in float64, no automatic differentiation."""
    gradient, step = np.zeros_like(LOGITS), 1e-6
    for index in np.ndindex(LOGITS.shape):
        shift = np.zeros_like(LOGITS)
        shift[index] = step
        gradient[index] = (objective(LOGITS + shift) - objective(LOGITS - shift)) / (2 * step)
    return gradient


def tabular_policy():
    """One logit for each state and action: states are one-hot, the network a matrix."""
    table = keras.layers.Dense(2, use_bias=False, kernel_initializer=lambda *a, **k: LOGITS.astype(np.float32))
    value = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model = keras.Sequential([keras.Input((3,)), table])
    return rlgrad.make_policy(spaces.Box(0, 1, (3,)), spaces.Discrete(2), model=model, value_model=value)


def rollout_of(episodes):
    shape = (LENGTH, len(episodes))
    observations = np.zeros((*shape, 3), np.float32)
    final = np.zeros_like(observations)
    actions, rewards = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    ends, mask = np.zeros(shape, bool), np.zeros(shape, np.float32)
    for column, episode in enumerate(episodes):
        for t, (state, action) in enumerate(episode):
            observations[t, column, state] = 1
            actions[t, column], mask[t, column] = action, 1
            rewards[t, column], following = PROCESS[state, action]
            ends[t, column] = following is None
            if following is not None:
                final[t, column, following] = 1
    zeros = np.zeros(shape, np.float32)
    return Rollout(observations, actions, rewards, ends, np.zeros(shape, bool), final, zeros, mask, zeros, zeros)


def expected_gradient(agent):
    """Σ over pairs of episodes of their probability times the step that the learner takes, at learning rate 1."""
    policy = tabular_policy()
    learner = rlgrad.Learner(agent, policy, num_envs=2)
    start = [v.numpy() for v in policy.variables]
    total = np.zeros_like(LOGITS)
    for pair in itertools.product(EPISODES, repeat=2):
        learner.learn(rollout_of(pair), 0.0, [0, 0])
        moved = policy.network.trainable_variables[0].numpy() - LOGITS.astype(np.float32)
        total += np.prod([chance(e, LOGITS) for e in pair]) * moved
        for variable, value in zip(policy.variables, start, strict=True):
            variable.assign(value)
    return total


OPTIONS = {
    "gamma": GAMMA,
    "num_envs": 2,
    "update": Ascent(optimizer=keras.optimizers.SGD(1.0)),
    "discount_from_start": True,
    "baseline": "none",
}


def reinforce(**options):
    return Reinforce(**OPTIONS | options)


class DividedBySteps(Reinforce):
    """What a mean over all steps of the batch computes."""

    def credit(self, batch, now):
        steps = tf.reduce_sum(tf.cast(batch.weights > 0, tf.float32))
        return {"log_prob": batch.advantages * self.num_envs / steps}


class CutOff(Reinforce):
    """Rewards after the second step are lost."""

    def estimate(self, rollout):
        rewards = rollout.rewards * np.array([[1.0], [1.0], [0.0]], np.float32)
        return super().estimate(rollout._replace(rewards=rewards))


UNBIASED = {
    "none": reinforce(),
    "leave_one_out": reinforce(baseline="leave_one_out"),
    "value": reinforce(baseline="value"),
}
BIASED = {
    "without the power of gamma": reinforce(discount_from_start=False),
    "standardized": reinforce(standardize_advantages=True),
    "with an entropy bonus": reinforce(entropy_coefficient=0.1),
    "divided by the number of steps": DividedBySteps(**OPTIONS),
    "cut off": CutOff(**OPTIONS),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_the_expected_gradient_is_the_gradient_of_the_objective(name):
    np.testing.assert_allclose(expected_gradient(UNBIASED[name]), gradient_of_objective(), atol=2e-6)


@mostly_slow("name", BIASED.keys(), quick=2)
def test_biased_variants_fail_the_same_check(name):
    assert np.abs(expected_gradient(BIASED[name]) - gradient_of_objective()).max() > 1e-2


def test_on_the_short_corridor_the_expectation_over_visits_is_the_gradient_of_the_value():
    """Example 13.1 of Sutton & Barto: visits and action values by linear solves, ∇J from v(p) = (2p − 4)/(p(1 − p))."""
    theta = np.array([0.2, -0.4])
    left, right = np.exp(theta) / np.exp(theta).sum()
    chain = np.array([[left, right, 0.0], [right, 0.0, left], [0.0, left, 0.0]])
    visits = np.linalg.solve(np.eye(3) - chain.T, [1.0, 0.0, 0.0])
    values = np.linalg.solve(np.eye(3) - chain, -np.ones(3))
    assert values[0] == pytest.approx((2 * right - 4) / (right * (1 - right)))
    after = {(0, 0): 0, (0, 1): 1, (1, 0): 2, (1, 1): 0, (2, 0): 1}
    policy = rlgrad.make_policy(
        spaces.Box(0, 1, (1,)),
        spaces.Discrete(2),
        model=keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(2, use_bias=False, kernel_initializer=lambda *a, **k: theta[None])]
        ),
        value=False,
    )
    pairs = list(itertools.product(range(3), range(2)))
    returns = np.array([-1.0 + (values[after[pair]] if pair in after else 0.0) for pair in pairs])
    weights = np.array([visits[s] * (left, right)[a] for s, a in pairs])
    actions = np.array([a for _, a in pairs])
    credit = (weights * returns).astype(np.float32)
    observations = np.ones((6, 1), np.float32)
    got = gradients.gradient(policy, observations, output=LogProb(actions), sample_weight=credit)
    # dv/dp by the quotient rule; dp/dθ_right = p (1 − p) = −dp/dθ_left.
    p = right
    slope = (2 * p * (1 - p) - (2 * p - 4) * (1 - 2 * p)) / (p * (1 - p)) ** 2
    expected = slope * p * (1 - p) * np.array([[-1.0, 1.0]])
    np.testing.assert_allclose(next(iter(got.values())), expected, rtol=1e-5)


def test_the_optimal_policy_of_the_short_corridor_is_where_the_gradient_vanishes():
    p = 2 - np.sqrt(2)
    assert 2 * p * (1 - p) - (2 * p - 4) * (1 - 2 * p) == pytest.approx(0.0, abs=1e-12)
