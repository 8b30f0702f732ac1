"""What a learner remembers of the rollouts it learned from, and which numbers it leaves out: against plain loops."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.by_hand import (
    MASK,
    OBSERVATIONS,
    REWARDS,
    TERMINATIONS,
    TRUNCATIONS,
    flat,
    literal_rollout,
    policy_of,
    rows,
    score,
    theta_and_phi,
)

import rlgrad
from rlgrad.updates import Ascent, PerHead


class Simple(rlgrad.Agent):
    """Advantages as they are."""

    gamma: float = 0.9
    num_envs: int = 2
    num_steps: int | None = 4

    def credit(self, batch, now):
        return {"log_prob": batch.advantages, "value": batch.returns - now.value}


@pytest.fixture(scope="module")
def remembered():
    """A learner that has learned from the literal rollout twice, with every statistic that there is."""
    agent = Simple(normalize_observations=True, scale_rewards=True, update=Ascent(optimizer="sgd", learning_rate=0.01))
    policy = policy_of("discrete", normalize_observations=True)
    learner = rlgrad.Learner(agent, policy, num_envs=2, xla=False)
    for _ in range(2):
        learner.learn(literal_rollout(policy_of("discrete")), 0.0, [0, 0])
    return learner


def test_the_reward_scale_ends_its_sums_at_time_limits_too(remembered):
    """u_t = r_t + γ u_t−1 within an episode; the row of mask 0 does not count. By a plain loop over both rollouts."""
    running, counted = np.zeros(2), []
    for _ in range(2):
        for t in range(4):
            running = REWARDS[t] + 0.9 * running
            counted += list(running[MASK[t] > 0])
            running = np.where(TERMINATIONS[t] | TRUNCATIONS[t], 0.0, running)
    expected = 1.0 / np.sqrt(np.var(counted) + 1e-8)
    scale = float(remembered.reward_scale.scale(tf.constant(1.0, tf.float64)))
    assert scale == pytest.approx(expected, rel=1e-6), "what a reward of 1 becomes"


def test_the_normalizer_takes_in_no_row_of_mask_0(remembered):
    """That row's observation is (9, 9), far from the others."""
    (normalizer,) = remembered.policy.preparation.normalizers
    seen = np.concatenate([OBSERVATIONS[MASK > 0]] * 2).astype(float)
    assert float(normalizer.count) == len(seen) == 14, "observations that were taken in"
    np.testing.assert_allclose(normalizer.mean, seen.mean(axis=0), rtol=1e-6, err_msg="mean of the observations")
    np.testing.assert_allclose(normalizer.variance, seen.var(axis=0), rtol=1e-6, err_msg="their variance")


def test_a_credit_that_is_no_number_on_rows_of_mask_0_moves_nothing():
    """A ratio of log-probabilities is 0/0 where a row is padding. Against the gradient by hand, without that row."""

    class Ratio(Simple):
        def credit(self, batch, now):
            return {"log_prob": 2.0 * batch.log_probs / batch.log_probs, "value": batch.returns - now.value}

    policy = policy_of("discrete")
    theta, _ = theta_and_phi(policy)
    rollout = literal_rollout(policy)
    rollout = rollout._replace(log_probs=np.where(MASK > 0, rollout.log_probs, 0.0).astype(np.float32))
    x, a, _, w = rows(rollout)
    gradient = flat(score(theta, x, a, 2.0 * w))
    learner = rlgrad.Learner(Ratio(update=Ascent(optimizer="sgd", learning_rate=0.1)), policy, num_envs=2, xla=False)
    metrics = learner.learn(rollout, 0.0, [0, 0])
    assert all(np.isfinite(number) for number in metrics.values()), metrics
    moved = flat(theta_and_phi(policy)[0]) - flat(theta)
    np.testing.assert_allclose(moved, 0.1 * gradient, atol=1e-6, err_msg="the step of the policy's weights")


def test_a_step_that_is_not_finite_is_told_by_the_passes_of_the_update_that_took_it():
    """The policy's update makes two steps, the value's one: only the former has an epoch and a minibatch to name."""

    class Given(Simple):
        def credit(self, batch, now):
            return {"log_prob": batch.log_probs, "value": batch.returns - now.value}

    update = PerHead(policy=Ascent(num_minibatches=2), value=Ascent())
    policy = policy_of("discrete")
    learner = rlgrad.Learner(Given(update=update), policy, num_envs=2, xla=False)
    rollout = literal_rollout(policy)
    bad = rollout.log_probs.copy()
    bad[1, 0] = np.nan
    with pytest.raises(
        rlgrad.NonFiniteError, match=r"step [01] of this update \(epoch 0, minibatch [01]\), through: log_prob"
    ):
        learner.learn(rollout._replace(log_probs=bad), 0.0, [0, 0])
    bad = REWARDS.copy()
    bad[1, 0] = np.inf
    with pytest.raises(rlgrad.NonFiniteError, match=r"step 0 of this update, through: value"):
        learner.learn(rollout._replace(rewards=bad), 0.0, [0, 0])
