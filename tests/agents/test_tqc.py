"""TQC and REDQ: what they change in SAC, against the losses that others differentiate and against counting."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.continuous import (
    assert_minus_gradient_of,
    at,
    credited_gradient,
    drawn_batch,
    noise,
    other_weights,
    policy_for,
    sample,
)

from rlgrad import random
from rlgrad.agents import REDQ, SAC, TQC
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.asking import Now


def stacked(policy, x, told):
    return tf.stack([critic([x, told]) for critic in policy.critics], axis=1)


def quantile_huber(target, z):
    """Dabney et al. (2018), equation 10, in NumPy's words: Σ over quantiles, mean over targets. target (M, T), z (M, K)."""
    count = z.shape[-1]
    tau = (np.arange(count, dtype=np.float32) + 0.5) / count
    u = target[:, None, :] - z[:, :, None]
    huber = tf.where(tf.abs(u) <= 1.0, 0.5 * u**2, tf.abs(u) - 0.5)
    asymmetric = tf.abs(tau[:, None] - tf.cast(tf.stop_gradient(u) < 0, tf.float32)) * huber
    return tf.reduce_sum(tf.reduce_mean(asymmetric, axis=-1), axis=-1)


@pytest.mark.parametrize(("quantiles", "dropped"), [(5, 1), (4, 0)])
def test_tqc_credits_the_slope_of_the_quantile_loss_against_truncated_targets(quantiles, dropped):
    agent = TQC(quantiles=quantiles, dropped=dropped, num_critics=3)
    policy, batch = policy_for(agent), drawn_batch()
    placed = other_weights(policy)
    slow, frozen = at(policy, placed), at(policy, {key: tf.identity(v.value) for v, key in keys_of(policy)})
    _, after, log_after = sample(policy, batch.next_observations, noise(batch, 1))
    pooled = np.sort(stacked(slow, batch.next_observations, after).numpy().reshape(12, -1), axis=-1)
    kept = pooled[:, : pooled.shape[1] - 3 * dropped]
    alpha = float(tf.exp(policy.scalars["log_alpha"].value))
    target = batch.rewards[:, None] + batch.discounts[:, None] * (kept - alpha * log_after.numpy()[:, None])

    def loss():
        z = stacked(policy, batch.observations, tf.tanh(batch.actions))
        of_critics = tf.add_n([quantile_huber(target, z[:, i]) for i in range(3)])
        _, action, log_prob = sample(policy, batch.observations, noise(batch, 0))
        of_actor = alpha * log_prob - tf.reduce_mean(stacked(frozen, batch.observations, action), axis=[1, 2])
        of_temperature = -policy.scalars["log_alpha"].value * (tf.stop_gradient(log_prob) - 2.0)
        return tf.reduce_sum(batch.weights * (of_critics + of_actor + of_temperature))

    assert_minus_gradient_of(loss, policy, credited_gradient(agent, policy, batch, placed))


def test_more_quantiles_left_out_make_lower_targets():
    policy = policy_for(TQC(quantiles=6))
    batch = drawn_batch()
    placed = other_weights(policy)
    credits = [TQC(quantiles=6, dropped=d).critic_credit(batch, now_of(policy, batch, placed)) for d in (0, 2, 5)]
    means = [float(tf.reduce_mean(c)) for c in credits]
    assert means == sorted(means, reverse=True)
    assert means[0] > means[2] + 1e-3


def now_of(policy, batch, placed):
    heads = policy.with_critics({"observations": batch.observations, "actions": batch.actions})
    outputs = {name: heads[name] for name in ("q", "log_alpha")}
    return Now(outputs, policy, batch.seeds, placed)


def test_redq_takes_the_smallest_of_a_random_pair_each_pair_equally_often():
    agent, rows = REDQ(num_critics=4), 6000
    q = tf.tile(tf.constant([[0.0, 1.0, 2.0, 3.0]]), (rows, 1))
    now = Now({}, policy_for(SAC()), random.split(tf.constant([1, 2]), rows))
    found = agent.following(q, now).numpy()
    shares = [
        (found == i).mean() for i in range(4)
    ]  # of the 6 pairs: 3 hold critic 0, 2 more critic 1, 1 more critic 2
    np.testing.assert_allclose(shares, [3 / 6, 2 / 6, 1 / 6, 0.0], atol=0.025)


def test_redq_with_all_critics_in_each_subset_has_the_targets_of_sac():
    both = [REDQ(num_critics=3, subset=3), SAC(num_critics=3)]
    policy, batch = policy_for(both[0]), drawn_batch()
    placed = other_weights(policy)
    mine, theirs = (agent.critic_credit(batch, now_of(policy, batch, placed)) for agent in both)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="dropped is 0 to 24"):
        TQC(dropped=25)
    with pytest.raises(ValueError, match="quantiles is at least 2"):
        TQC(quantiles=1)
    with pytest.raises(ValueError, match="subset is 1 to num_critics, 10"):
        REDQ(subset=11)
