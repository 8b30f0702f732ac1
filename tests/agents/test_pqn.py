"""One update of PQN against NumPy, and the two learners that it is between."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.by_hand import MASK, OBSERVATIONS, REWARDS, SUCCESSORS, TERMINATIONS, TRUNCATIONS, Adam, clipped, rows
from helpers.slow import mostly_slow
from helpers.values import policy_for, q_gradient, q_values, theta_of

import rlgrad
from rlgrad import random
from rlgrad.agents import PQN
from rlgrad.hyperparameters import fields
from rlgrad.updates import Ascent

TAKEN = np.array([[0, 2], [4, 0], [3, 0], [1, 1]])
UPDATE = Ascent(learning_rate=0.02, max_grad_norm=0.5, num_epochs=3, num_minibatches=2)


def pqn(**changes):
    return PQN(**{"gamma": 0.9, "gae_lambda": 0.65, "num_envs": 2, "num_steps": 4, "update": UPDATE} | changes)


def rollout():
    """Column 0: the task ends at t = 1. Column 1: time runs out at t = 1, and t = 2 is a row that counts for nothing."""
    log_probs = np.zeros((4, 2), np.float32)
    return rlgrad.Rollout(
        OBSERVATIONS, TAKEN, REWARDS, TERMINATIONS, TRUNCATIONS, SUCCESSORS, log_probs, MASK, None, None
    )


def returns_by_hand(theta, agent):
    """G_t = r_t + γ [(1 − λ) max q(s_t+1) + λ G_t+1], from the last step backwards, (T, N)."""
    after = q_values(theta, SUCCESSORS.reshape(-1, 2).astype(float), agent).max(-1).reshape(4, 2)
    returns = np.zeros((4, 2))
    for n in range(2):
        following = after[3, n]
        for t in reversed(range(4)):
            if TRUNCATIONS[t, n] or TERMINATIONS[t, n]:
                following = after[t, n]
            bootstrap = (1 - agent.gae_lambda) * after[t, n] + agent.gae_lambda * following
            returns[t, n] = following = REWARDS[t, n] + agent.gamma * (0.0 if TERMINATIONS[t, n] else bootstrap)
    return returns


def by_hand(agent, theta, seed):
    """Gallici et al. (2024), algorithm 1."""
    x, a, _, w = rows(rollout())
    returns, update, optimizer, log = returns_by_hand(theta, agent).ravel(), agent.update, Adam(0.02), []
    for order in np.asarray(random.permutations(seed, update.num_epochs, len(x))):
        for part in np.split(order, update.num_minibatches):
            q = q_values(theta, x[part], agent)[np.arange(len(part)), a[part]]
            of_rows = w[part] * update.num_minibatches
            gradient, length = clipped(
                q_gradient(theta, x[part], a[part], of_rows * (returns[part] - q), agent), update.max_grad_norm
            )
            log.append((length, (of_rows * q).sum() / of_rows.sum()))
            theta = optimizer.ascend(theta, gradient)
    return theta, np.mean(log, axis=0)


@mostly_slow("changes", {"λ": {}, "one step": {"gae_lambda": 0.0}, "all rewards": {"gae_lambda": 1.0}})
def test_one_update_equals_numpy(changes):
    agent = pqn(**changes)
    policy = policy_for(agent)
    theta, (length, q_mean) = by_hand(agent, theta_of(policy), [3, 4])
    learner = rlgrad.Learner(agent, policy, num_envs=2)
    metrics = learner.learn(rollout(), 0.0, np.array([3, 4], np.int32))
    for mine, expected in zip(theta_of(policy), theta, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=2e-6)
    assert metrics["gradient_norm"] == pytest.approx(length, rel=1e-4)
    assert metrics["q_mean"] == pytest.approx(q_mean, rel=1e-4)
    assert learner.target is None
    assert learner.rehearsal is None


@pytest.mark.xla
def test_one_update_of_a_program_of_xla_equals_numpy():
    policy = policy_for(pqn())
    theta, _ = by_hand(pqn(), theta_of(policy), [3, 4])
    rlgrad.Learner(pqn(), policy, num_envs=2, xla=True).learn(rollout(), 0.0, np.array([3, 4], np.int32))
    for mine, expected in zip(theta_of(policy), theta, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=2e-6)


def returns_seen(agent, theta):
    """What a learner's batch has as returns of this agent, by row."""
    seen = []

    class Watching(PQN):
        def credit(self, batch, now):
            tf.py_function(
                lambda *numbers: seen.append([x.numpy() for x in numbers]), [batch.returns, batch.weights], []
            )
            return super().credit(batch, now)

    fields = {name: getattr(agent, name) for name in ("gamma", "gae_lambda", "num_envs", "num_steps")}
    policy = policy_for(agent)
    for variable, value in zip(policy.network.trainable_variables, theta, strict=True):
        variable.assign(value)
    learner = rlgrad.Learner(Watching(**fields, update=Ascent()), policy, num_envs=2, xla=False)
    learner.learn(rollout(), 0.0, np.array([3, 4], np.int32))
    return seen[-1]


def test_lambda_1_is_monte_carlo_and_lambda_0_one_step_q_learning():
    theta = theta_of(policy_for(pqn()))
    after = q_values(theta, SUCCESSORS.reshape(-1, 2).astype(float), pqn()).max(-1).reshape(4, 2)
    counts = MASK > 0
    monte_carlo, weights = returns_seen(pqn(gae_lambda=1.0), theta)
    # Column 0 ends at t = 1; column 1 is cut there, where the value of its last observation stands for what would follow.
    first = [1.0 + 0.9 * 2.0, 2.0, -1.5 + 0.9 * (0.5 + 0.9 * after[3, 0]), 0.5 + 0.9 * after[3, 0]]
    second = [-0.5 + 0.9 * (0.25 + 0.9 * after[1, 1]), 0.25 + 0.9 * after[1, 1], 0.0, 3.0 + 0.9 * after[3, 1]]
    expected = np.stack([first, second], axis=1)
    np.testing.assert_allclose(monte_carlo.reshape(4, 2)[counts], expected[counts], rtol=1e-5)
    one_step, _ = returns_seen(pqn(gae_lambda=0.0), theta)
    expected = REWARDS + 0.9 * np.where(TERMINATIONS, 0.0, after)
    np.testing.assert_allclose(one_step.reshape(4, 2)[counts], expected[counts], rtol=1e-5)
    np.testing.assert_allclose(weights.reshape(4, 2), MASK / MASK.sum())


def test_it_has_no_target_weights_and_no_replay_among_its_options():
    assert not {"target", "replay"} & {*fields(PQN())}
    with pytest.raises(TypeError, match="replay"):
        PQN(replay=None)
