"""SAC's credits against the three losses that others differentiate, and what its parts promise."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.continuous import (
    ACTION,
    assert_minus_gradient_of,
    at,
    credited_gradient,
    critics,
    drawn_batch,
    noise,
    other_weights,
    policy_for,
    sample,
)

from rlgrad.agents import SAC
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.asking import Now


def losses(agent, policy, slow, batch, kept):
    """½ (y − q)² of each critic, α log π − min q of the actor, −log α (log π + H̄) of the temperature."""
    stop, log_alpha = tf.stop_gradient, policy.scalars["log_alpha"].value
    alpha = stop(tf.exp(log_alpha))
    _, after, log_after = sample(policy, batch.next_observations, noise(batch, 1))
    following = tf.reduce_min(critics(slow, batch.next_observations, after), axis=-1) - alpha * log_after
    y = stop(batch.rewards + batch.discounts * following)
    told = tf.tanh(batch.actions)
    of_critics = 0.5 * tf.reduce_sum((y[:, None] - critics(policy, batch.observations, told)) ** 2, axis=-1)
    _, action, log_prob = sample(policy, batch.observations, noise(batch, 0))
    frozen = at(policy, {key: tf.identity(v.value) for v, key in keys_of(policy)})
    of_actor = alpha * log_prob - tf.reduce_min(critics(frozen, batch.observations, action), axis=-1)
    of_temperature = -log_alpha * stop(log_prob + kept)
    return tf.reduce_sum(batch.weights * (of_critics + of_actor + of_temperature))


@pytest.mark.parametrize("jit", [None, pytest.param(True, marks=pytest.mark.xla)])
@pytest.mark.parametrize(
    ("agent", "kept"),
    [(SAC(), -2.0), pytest.param(SAC(num_critics=3, target_entropy=-0.5), -0.5, marks=pytest.mark.slow)],
)
def test_the_credited_gradient_is_that_of_the_three_losses(agent, kept, jit):
    policy, batch = policy_for(agent), drawn_batch()
    placed = other_weights(policy)
    slow = at(policy, placed)
    got = credited_gradient(agent, policy, batch, placed, jit)
    assert_minus_gradient_of(lambda: losses(agent, policy, slow, batch, kept), policy, got)


def test_the_credits_on_mean_and_log_std_are_those_of_the_table():
    """∇ₐq − 2 α tanh u on each mean, and α + that · σ ε on each log σ, with q's slope in u."""
    agent = SAC()
    policy, batch = policy_for(agent, hidden_sizes=()), drawn_batch()
    placed = other_weights(policy)
    got = credited_gradient(agent, policy, batch, placed)
    x, epsilon = batch.observations, noise(batch, 0)
    u, action, _ = sample(policy, x, epsilon)
    with tf.GradientTape() as tape:
        tape.watch(u)
        q = tf.reduce_min(critics(policy, x, tf.tanh(u)), axis=-1)
    slope, alpha = tape.gradient(q, u), tf.exp(policy.scalars["log_alpha"].value)
    _, log_std = tf.split(policy.network(x), 2, axis=-1)
    inside = tf.cast((log_std > -20.0) & (log_std < 2.0), tf.float32)
    on_mean = slope - 2.0 * alpha * action
    on_log_std = inside * (alpha + on_mean * tf.exp(log_std) * epsilon)
    credit = batch.weights[:, None] * tf.concat([on_mean, on_log_std], axis=-1)
    (kernel,) = (key for key in got if key.endswith("output/kernel") and "critic" not in key)
    np.testing.assert_allclose(got[kernel], tf.matmul(x, credit, transpose_a=True), rtol=1e-4, atol=1e-5)


def test_log_probabilities_are_per_half_width_so_that_the_bounds_do_not_matter():
    policy = policy_for(SAC())
    distribution, mean = policy.distribution, np.array([[0.3, -0.4]], np.float32)
    parameters = {"mean": tf.constant(mean), "log_std": tf.constant([[-0.5, 0.2]])}
    # By a sum over a fine grid of actions in half-widths, the density is 1 in all.
    edges = np.linspace(-1 + 1e-6, 1 - 1e-6, 801)
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    first, second = np.meshgrid(np.arctanh(middle), np.arctanh(middle), indexing="ij")
    actions = np.stack([first.ravel(), second.ravel()], axis=-1).astype(np.float32)
    repeated = {name: tf.repeat(x, len(actions), axis=0) for name, x in parameters.items()}
    density = np.exp(distribution.log_prob(repeated, actions).numpy()).reshape(first.shape)
    assert (density * width[:, None] * width).sum() == pytest.approx(1.0, abs=2e-3)
    low, high = (distribution.to_environment(np.full((1, 2), u, np.float32))[0] for u in (-20.0, 20.0))
    np.testing.assert_allclose((low, high), (ACTION.low, ACTION.high))


def test_the_temperature_rises_where_the_entropy_is_too_low_and_falls_where_it_is_too_high():
    for log_std, sign in ((-3.0, 1.0), (0.5, -1.0)):
        agent = SAC()
        policy, batch = policy_for(agent, hidden_sizes=()), drawn_batch()
        policy.network.set_weights([np.zeros((3, 4)), np.array([0.0, 0.0, log_std, log_std])])
        got = credited_gradient(agent, policy, batch, other_weights(policy))
        assert np.sign(got["policy/log_alpha"]) == sign


def test_each_question_of_one_credit_has_noise_of_its_own_and_asking_again_the_same():
    policy, batch = policy_for(SAC()), drawn_batch()
    first, again = (Now({}, policy, batch.seeds) for _ in range(2))
    one, two = first.at(batch.observations), first.at(batch.observations)
    assert not np.allclose(one.action, two.action)
    np.testing.assert_array_equal(one.action, again.at(batch.observations).action)
    np.testing.assert_allclose(
        one.action_log_prob, sample(policy, batch.observations, noise(batch, 1))[2], rtol=1e-4, atol=1e-4
    )
