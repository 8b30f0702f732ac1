"""Updates of QR-DQN against NumPy, and its credit against the quantile loss that others differentiate."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.slow import mostly_slow
from helpers.values import (
    SLOTS,
    assert_gradient_of_loss,
    assert_same_weights,
    both_ways,
    credited_gradient,
    drawn_batch,
    policy_for,
    q_values,
    target_model,
)

import rlgrad
from rlgrad.agents import DQN, QRDQN
from rlgrad.replay import Replay, Target
from rlgrad.updates import Ascent

REPLAY = {"capacity": 60, "batch_size": 6, "warmup": 0, "updates_per_step": 0.3}  # three updates of each rollout
SETTINGS = {
    "gamma": 0.9,
    "num_envs": SLOTS,
    "num_steps": 5,
    "quantiles": 3,
    "replay": Replay(**REPLAY),
    "target": Target(rate=1.0, every=2),
    "update": Ascent(learning_rate=0.02, max_grad_norm=0.1),
}


def qrdqn(**changes):
    return QRDQN(**SETTINGS | changes)


def credit_by_hand(agent, theta, target, rows):
    """Dabney et al. (2018), algorithm 1: − the slope of (1/K) Σ_i Σ_j ρ^κ_τi(u_ij), divided by κ as in equation 10."""
    x, a, total, discount, after = rows
    z, count = q_values(theta, x, agent), agent.quantiles
    live, slow = q_values(theta, after, agent), q_values(target, after, agent)
    credit = np.zeros((len(x), count))
    for n in range(len(x)):
        best = int(np.argmax((live if agent.double else slow)[n].mean(-1)))
        for i in range(count):
            tau = (2 * i + 1) / (2 * count)
            for j in range(count):
                u = total[n] + discount[n] * slow[n, best, j] - z[n, a[n], i]
                slope = np.sign(u) if agent.error_clip is None else np.clip(u, -agent.error_clip, agent.error_clip)
                slope /= agent.error_clip or 1.0
                credit[n, i] += abs(tau - (u < 0)) * slope / count
    return credit


SWITCHES = {
    "plain": {},
    "double": {"double": True},
    "dueling": {"dueling": True},
    "no κ": {"error_clip": None},
    "prioritized": {"replay": Replay(**REPLAY, prioritized=True)},
    "all": {
        "double": True,
        "dueling": True,
        "error_clip": 0.4,
        "replay": Replay(**REPLAY, prioritized=True, n_steps=3),
        "target": Target(rate=0.5),
    },
}


@mostly_slow("changes", SWITCHES, quick=["all"])
def test_six_updates_equal_numpy(changes):
    learner, metrics, theta, target, log = both_ways(qrdqn(**changes), credit_by_hand, progress=0.5)
    assert_same_weights(learner, theta, target)
    for i, numbers in enumerate(metrics):
        updates = log[3 * i : 3 * i + 3]
        means = [(u["weights"] * u["q"].mean(-1)).sum() / u["weights"].sum() for u in updates]
        assert numbers["q_mean"] == pytest.approx(np.mean(means), rel=1e-4)


@pytest.mark.slow
@pytest.mark.xla
def test_six_updates_of_a_program_of_xla_equal_numpy():
    learner, _, theta, target, _ = both_ways(qrdqn(**SWITCHES["all"]), credit_by_hand, xla=True)
    assert_same_weights(learner, theta, target)


def quantile_loss(model, target, batch, *, double, huber, count):
    """Σ_i mean_j |τ_i − 1(u < 0)| L(u_ij) / κ, as others write it."""
    slow = target(batch.next_observations)
    best = tf.argmax(tf.reduce_mean(model(batch.next_observations) if double else slow, -1), axis=-1)
    y = batch.rewards[:, None] + batch.discounts[:, None] * tf.gather(slow, best, batch_dims=1)
    z = tf.gather(model(batch.observations), batch.actions, batch_dims=1)
    u = tf.stop_gradient(y)[:, None, :] - z[:, :, None]
    tau = (tf.range(count, dtype=tf.float32) + 0.5) / count
    size = tf.abs(u)
    huber_loss = lambda kappa: tf.where(size <= kappa, 0.5 * tf.square(u), kappa * (size - 0.5 * kappa)) / kappa
    loss = size if huber is None else huber_loss(huber)
    side = tf.abs(tau[None, :, None] - tf.stop_gradient(tf.cast(u < 0, tf.float32)))
    return tf.reduce_sum(tf.reduce_mean(side * loss, axis=2), axis=1)


@pytest.mark.parametrize(
    ("double", "error_clip", "dueling"), [(False, 1.0, False), (True, 0.3, True), (False, None, False)]
)
def test_the_credited_gradient_is_that_of_the_quantile_loss(double, error_clip, dueling):
    loss = lambda *models: quantile_loss(*models, double=double, huber=error_clip, count=3)
    assert_gradient_of_loss(qrdqn(double=double, error_clip=error_clip, dueling=dueling), loss)


def test_one_quantile_within_kappa_is_half_of_dqn():
    """|½ − [u < 0]| is ½ and ψ(u) = u / κ where nothing is clipped."""
    kappa = 1e3
    one, plain = qrdqn(quantiles=1, error_clip=kappa), DQN(double=False, gamma=0.9)
    policy, batch = policy_for(plain), drawn_batch()
    model, placed = target_model(policy)
    expected = credited_gradient(plain, policy, batch, placed)
    quantile = policy_for(one)
    copies = target_model(quantile)[1]
    for mine, theirs in zip(quantile.network.trainable_variables, policy.network.trainable_variables, strict=True):
        mine.assign(theirs)
    same = {key: model.trainable_variables[i].value for i, key in enumerate(copies)}
    got = credited_gradient(one, quantile, batch, same)
    for a, b in zip(got.values(), expected.values(), strict=True):
        np.testing.assert_allclose(2 * kappa * a, b, rtol=1e-4, atol=1e-6)


def test_one_quantile_without_kappa_is_regression_to_a_median():
    policy, batch = policy_for(qrdqn(quantiles=1)), drawn_batch(discounts=np.zeros(24))
    _, placed = target_model(policy)
    got = credited_gradient(qrdqn(quantiles=1, error_clip=None), policy, batch, placed)
    q = tf.gather(policy.network(batch.observations), batch.actions, batch_dims=1)[:, 0]
    with tf.GradientTape() as tape:
        z = tf.gather(policy.network(batch.observations), batch.actions, batch_dims=1)[:, 0]
        objective = tf.reduce_sum(batch.weights * 0.5 * tf.sign(batch.rewards - q) * z)
    expected = tape.gradient(objective, [v.value for v in policy.network.trainable_variables])
    for a, b in zip(got.values(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_without_kappa_quantiles_of_the_returns_are_where_the_mean_credit_is_0():
    """Of returns 1 … 100 the quantiles ⅙, ½ and ⅚ lie between the 16th and 17th, the 50th and 51st, and the 83rd and 84th."""
    agent = qrdqn(error_clip=None)
    returns = np.arange(1.0, 101.0, dtype=np.float32)

    class Asked(rlgrad.Outputs):
        def target(self, observations, actions=None):
            return rlgrad.Outputs(q_values=tf.zeros((100, 5, 3)), expected=tf.zeros((100, 5)))

    def mean_credit(z):
        rows = np.tile(np.array(z, np.float32), (100, 1))
        batch = drawn_batch(100, rewards=returns.astype(float), discounts=np.zeros(100))
        return np.asarray(agent.credit(batch, Asked(q=tf.constant(rows)))["q"]).mean(0)

    np.testing.assert_allclose(mean_credit([17.5, 50.5, 83.5]), [-1 / 300, 0.0, 1 / 300], atol=1e-5)
    assert (mean_credit([5.0, 30.0, 60.0]) > 0.05).all()
    assert (mean_credit([40.0, 70.0, 95.0]) < -0.05).all()


def test_the_priority_of_a_step_is_the_mean_size_of_its_credits():
    agent, batch = qrdqn(), drawn_batch(2)
    credit = {"q": tf.constant([[1.0, -2.0, 3.0], [0.0, 0.0, -0.3]])}
    np.testing.assert_allclose(agent.priority(batch, rlgrad.Outputs(), credit), [2.0, 0.1], rtol=1e-6)


def test_fields_are_checked():
    with pytest.raises(ValueError, match="quantiles"):
        QRDQN(quantiles=0)
    with pytest.raises(ValueError, match="error_clip"):
        QRDQN(error_clip=0.0)
