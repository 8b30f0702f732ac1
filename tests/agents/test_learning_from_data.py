"""BC, AWAC and IQL: credits against the losses that others differentiate, identities between them, and their bounds."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from helpers.continuous import (
    ACTION,
    OBSERVATION,
    assert_minus_gradient_of,
    at,
    credited_gradient,
    critics,
    drawn_batch,
    noise,
    other_weights,
    policy_for,
)

import rlgrad
from rlgrad.agents import AWAC, BC, IQL
from rlgrad.data import Outputs
from rlgrad.gradients import LogProb

HALF, MIDDLE = (ACTION.high - ACTION.low) / 2, (ACTION.high + ACTION.low) / 2


def told(actions):
    """Actions of a Gaussian that is clipped into the space, as critics are told them: −1 … 1."""
    return (tf.clip_by_value(actions, ACTION.low, ACTION.high) - MIDDLE) / HALF


def log_prob(policy, x, actions):
    """log N(a; μ, σ), written out."""
    z = (actions - policy.network(x)) / tf.exp(policy.log_std.value)
    return tf.reduce_sum(-0.5 * z**2 - policy.log_std.value - 0.5 * np.log(2 * np.pi), axis=-1)


def smallest(policy, x, actions):
    return tf.reduce_min(critics(policy, x, told(actions)), axis=-1)


def own(policy, x, epsilon):
    return policy.network(x) + tf.exp(policy.log_std.value) * epsilon


def loss_of_bc(agent, policy, slow, batch):
    return -log_prob(policy, batch.observations, batch.actions)


def loss_of_awac(agent, policy, slow, batch):
    """½ (y − q_i)², and the weighted log-likelihood. Samples have the numbers of the first and of the fourth question."""
    x, after = batch.observations, batch.next_observations
    y = batch.rewards + batch.discounts * smallest(slow, after, own(policy, after, noise(batch, 1)))
    of_critics = 0.5 * tf.reduce_sum(
        (tf.stop_gradient(y)[:, None] - critics(policy, x, told(batch.actions))) ** 2, axis=-1
    )
    advantage = smallest(policy, x, batch.actions) - smallest(policy, x, own(policy, x, noise(batch, 3)))
    weight = tf.minimum(tf.exp(advantage / agent.beta), agent.max_weight)
    return of_critics - tf.stop_gradient(weight) * log_prob(policy, x, batch.actions)


def loss_of_iql(agent, policy, slow, batch):
    x, value = batch.observations, lambda x: policy.value_network(x)[:, 0]
    better = smallest(slow, x, batch.actions) - value(x)
    of_value = 0.5 * tf.abs(agent.expectile - tf.cast(better < 0, tf.float32)) * better**2
    y = tf.stop_gradient(batch.rewards + batch.discounts * value(batch.next_observations))
    of_critics = 0.5 * tf.reduce_sum((y[:, None] - critics(policy, x, told(batch.actions))) ** 2, axis=-1)
    weight = tf.stop_gradient(tf.minimum(tf.exp(better / agent.beta), agent.max_weight))
    return of_value + of_critics - weight * log_prob(policy, x, batch.actions)


@pytest.mark.parametrize("jit", [None, pytest.param(True, marks=pytest.mark.xla)])
@pytest.mark.parametrize(
    ("agent", "loss"),
    [
        (BC(), loss_of_bc),
        (AWAC(beta=2.0, max_weight=1.5), loss_of_awac),
        (IQL(expectile=0.8, beta=0.5, max_weight=3.0), loss_of_iql),
    ],
    ids=["bc", "awac", "iql"],
)
def test_the_credited_gradient_is_that_of_the_losses(agent, loss, jit):
    policy, batch = policy_for(agent, value=isinstance(agent, IQL)), drawn_batch()
    placed = other_weights(policy)
    got = credited_gradient(agent, policy, batch, placed, jit)
    slow = at(policy, placed)
    assert_minus_gradient_of(lambda: tf.reduce_sum(batch.weights * loss(agent, policy, slow, batch)), policy, got)


class Answer:
    def __init__(self, **values):
        self.__dict__.update({name: tf.constant(value, tf.float32) for name, value in values.items()})


class Numbers(Outputs):
    """Outputs of two rows, which answer any question with the same numbers."""

    def at(self, observations, actions=None):
        return Answer(q=[[1.0, 2.0], [5.0, 4.0]], value=[0.5, 0.25], action=[[0.0], [0.0]])

    def target(self, observations, actions=None):
        return Answer(q=[[2.0, 3.0], [0.0, 1.0]])


NOW = Numbers(q=tf.constant([[3.0, 1.5], [4.0, 6.0]]), value=tf.constant([1.0, 1.0]))


class Rows:
    observations = next_observations = actions = None
    rewards, discounts = tf.constant([1.0, 2.0]), tf.constant([0.9, 0.0])


def test_the_credits_of_awac_and_iql_on_two_rows_computed_by_hand():
    credit = AWAC(beta=2.0).credit(Rows, NOW)
    # y = 1 + 0.9 · 2 and 2 + 0; A = 1.5 − 1 and 4 − 4.
    np.testing.assert_allclose(credit["q"], [[2.8 - 3.0, 2.8 - 1.5], [2.0 - 4.0, 2.0 - 6.0]], rtol=1e-6)
    np.testing.assert_allclose(credit["log_prob"], np.exp([0.25, 0.0]), rtol=1e-6)
    credit = IQL(expectile=0.9, beta=0.5, max_weight=5.0).credit(Rows, NOW)
    # u = 2 − 1 and 0 − 1; y = 1 + 0.9 · 0.5 and 2.
    np.testing.assert_allclose(credit["value"], [0.9, -0.1], rtol=1e-5)
    np.testing.assert_allclose(credit["q"], [[1.45 - 3.0, 1.45 - 1.5], [2.0 - 4.0, 2.0 - 6.0]], rtol=1e-5)
    np.testing.assert_allclose(credit["log_prob"], [5.0, np.exp(-2.0)], rtol=1e-6)


def test_awac_and_iql_at_an_infinite_temperature_clone():
    for agent in (AWAC(beta=1e9), IQL(beta=1e9)):
        np.testing.assert_allclose(agent.credit(Rows, NOW)["log_prob"], 1.0, rtol=1e-6)


def test_iql_at_an_expectile_of_one_half_values_whoever_acted():
    """The credit on v is then half of the error, of whichever sign: v tends to the mean of the recorded actions' values."""
    np.testing.assert_allclose(IQL(expectile=0.5).credit(Rows, NOW)["value"], [0.5, -0.5], rtol=1e-6)


def test_the_value_of_iql_tends_to_the_expectile():
    """Where Σ |τ − 1(u < 0)| u = 0: of the values 0 and 1, equally often, that is τ."""
    v, q = 0.0, np.array([0.0, 1.0])
    for _ in range(2_000):
        now = Outputs(value=tf.constant([v, v], tf.float32), q=tf.zeros((2, 1)))
        now.target = lambda *_: Answer(q=q[:, None])
        now.at = lambda *_: Answer(value=[0.0, 0.0])
        v += 0.1 * float(np.mean(IQL(expectile=0.8).credit(Rows, now)["value"]))
    assert v == pytest.approx(0.8, abs=1e-3)


def test_the_credited_gradient_of_bc_on_choices_is_that_of_cross_entropy():
    policy = rlgrad.make_policy(OBSERVATION, gymnasium.spaces.Discrete(4), value=False, hidden_sizes=(5,), seed=3)
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    actions = np.array([0, 1, 2, 3, 3, 2, 1])
    got = rlgrad.gradients.gradient(policy, x, output=LogProb(actions))  # a credit of 1 on each row
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(actions, policy.network(x)))
    for mine, theirs in zip(got.values(), tape.gradient(loss, policy.trainable_variables), strict=True):
        np.testing.assert_allclose(mine, -theirs, rtol=1e-4, atol=1e-5)
    assert BC().credit(None, None) == {"log_prob": 1.0}


@pytest.mark.parametrize(
    "wrong", [(AWAC, {"beta": 0.0}), (AWAC, {"max_weight": -1.0}), (IQL, {"expectile": 1.0}), (IQL, {"beta": -1.0})]
)
def test_settings_out_of_range_are_named(wrong):
    kind, options = wrong
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)
