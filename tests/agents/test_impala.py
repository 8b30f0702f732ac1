"""V-trace and one update of IMPALA against the paper's sums in NumPy, and what it becomes without lag."""

from itertools import product

import numpy as np
import pytest
import tensorflow as tf
from helpers.by_hand import (
    KINDS,
    RMSprop,
    added,
    assert_weights,
    clipped,
    entropy_gradient,
    learned,
    literal_rollout,
    policy_of,
    rows,
    score,
    standardized,
    theta_and_phi,
    value,
    value_gradient,
)
from helpers.slow import mostly_slow
from numpy.testing import assert_allclose

from rlgrad import estimators
from rlgrad.agents import A2C, IMPALA
from rlgrad.updates import Ascent

MOVED = np.array([0.7, -0.4, 0.1, -1.2, 0.3, 0.0, -0.2, 0.9])  # by how much log π has grown since the rollout


def v_trace(rewards, values, following, terminations, boundaries, ratios, gamma, lam, rho_limit, trace_limit):
    """Espeholt et al. (2018), eq. 1: v_s = V(x_s) + Σ_t γ^{t−s} (Π_{i=s}^{t−1} c_i) δ_t, term by term."""
    steps, slots = rewards.shape
    rho, c = np.minimum(rho_limit, ratios), lam * np.minimum(trace_limit, ratios)
    discount = gamma * (1.0 - terminations)
    deltas = rho * (rewards + discount * following - values)
    targets = values.copy()
    for slot in range(slots):
        for s in range(steps):
            factor = 1.0
            for t in range(s, steps):
                targets[s, slot] += factor * deltas[t, slot]
                if boundaries[t, slot]:
                    break
                factor *= gamma * c[t, slot]
    after = following.copy()
    for s in range(steps - 1):
        after[s] = np.where(boundaries[s], following[s], targets[s + 1])
    return targets, rho * (rewards + discount * after - values), deltas


@pytest.fixture(scope="module")
def numbers():
    rng = np.random.default_rng(0)
    boundaries = rng.random((13, 6)) < 0.2
    return {
        "rewards": rng.normal(size=(13, 6)),
        "values": rng.normal(size=(13, 6)),
        "next_values": rng.normal(size=(13, 6)),
        "terminations": boundaries & (rng.random((13, 6)) < 0.5),
        "boundaries": boundaries,
        "ratios": np.exp(rng.normal(size=(13, 6))),
    }


@pytest.mark.parametrize(("lam", "rho_limit", "trace_limit"), [(1.0, 1.0, 1.0), (0.9, 2.0, 0.7)])
def test_v_trace_is_the_sum_of_the_paper(numbers, lam, rho_limit, trace_limit):
    numbers = {**numbers, "next_values": np.where(numbers["boundaries"], numbers["next_values"], np.nan)}
    within = np.isnan(numbers["next_values"])
    numbers["next_values"][:-1][within[:-1]] = numbers["values"][1:][within[:-1]]
    numbers["next_values"][-1] = 0.3
    found = estimators.v_trace(
        *(tf.constant(numbers[name]) for name in ("rewards", "values", "next_values", "terminations")),
        boundaries=tf.constant(numbers["boundaries"]),
        ratios=tf.constant(numbers["ratios"]),
        gamma=0.9,
        gae_lambda=lam,
        rho_limit=rho_limit,
        trace_limit=trace_limit,
    )
    for mine, theirs in zip(found, v_trace(*numbers.values(), 0.9, lam, rho_limit, trace_limit), strict=True):
        assert_allclose(mine, theirs, rtol=0, atol=1e-12)


def test_without_lag_the_targets_are_lambda_returns(numbers):
    parts = [tf.constant(numbers[name]) for name in ("rewards", "values", "next_values", "terminations", "boundaries")]
    *four, boundaries = parts
    four[2] = tf.concat([tf.where(boundaries[:-1], four[2][:-1], four[1][1:]), four[2][-1:]], axis=0)
    options = {"gamma": 0.9, "gae_lambda": 0.8}
    returns = estimators.lambda_returns(*four, boundaries, **options)
    targets, _, deltas = estimators.v_trace(
        *four, boundaries=boundaries, ratios=tf.ones((13, 6), tf.float64), **options
    )
    assert_allclose(targets, returns, rtol=0, atol=1e-12)
    assert_allclose(deltas, estimators.td_errors(*four, 0.9), rtol=0, atol=1e-12)


def by_hand(policy, rollout, agent, optimizer, progress):
    theta, phi = theta_and_phi(policy)
    x, a, _, w = rows(rollout)
    values, following = (
        value(phi, np.asarray(part, float).reshape(-1, 2)).reshape(rollout.rewards.shape)
        for part in (rollout.observations, rollout.final_observations)
    )
    targets, advantages, _ = v_trace(
        *(np.asarray(rollout.rewards, float), values, following, rollout.terminations),
        *(rollout.terminations | rollout.truncations, np.exp(MOVED).reshape(4, 2)),
        *(agent.gamma, agent.gae_lambda, agent.rho_limit, agent.trace_limit),
    )
    advantages = standardized(advantages.ravel(), w) if agent.standardize_advantages else advantages.ravel()
    beta = agent.entropy_coefficient * (1.0 - progress if agent.entropy_schedule == "linear" else 1.0)
    of_policy = added(score(theta, x, a, w * advantages), entropy_gradient(theta, x, w * beta))
    of_value = value_gradient(phi, x, w * agent.value_coefficient * (targets.ravel() - values.ravel()))
    gradient, length = clipped([*of_policy, *of_value], agent.update.max_grad_norm)
    moved = optimizer.ascend([*theta, *phi], gradient)
    return moved[: len(theta)], moved[len(theta) :], length


@mostly_slow("standardize, kind", product([False, True], KINDS), quick=[(False, "discrete"), (True, "continuous")])
def test_one_update_equals_numpy(kind, standardize):
    agent = IMPALA(
        gamma=0.9,
        gae_lambda=0.8,
        rho_limit=1.5,
        trace_limit=0.9,
        standardize_advantages=standardize,
        entropy_coefficient=0.3,
        entropy_schedule="linear",
        value_coefficient=0.5,
        update=Ascent(optimizer="rmsprop", learning_rate=0.01, max_grad_norm=0.5),
    )
    policy = policy_of(kind)
    rollout = literal_rollout(policy, MOVED)
    theta, phi, length = by_hand(policy, rollout, agent, RMSprop(0.01), progress=0.25)
    metrics = learned(agent, policy, rollout, progress=0.25)
    assert_weights(policy, theta, phi)
    assert metrics["gradient_norm"] == pytest.approx(length, rel=1e-5)
    assert (np.exp(MOVED) > 1.5).any()  # both limits cut
    assert (np.exp(MOVED) > 0.9).any()


def test_without_lag_it_is_a2c_with_n_step_returns():
    update = Ascent(learning_rate=0.05)
    policies = [policy_of("discrete") for _ in range(2)]
    rollout = literal_rollout(policies[0])
    learned(IMPALA(gamma=0.9, entropy_coefficient=0.2, update=update), policies[0], rollout)
    learned(A2C(gamma=0.9, gae_lambda=1.0, entropy_coefficient=0.2, update=update), policies[1], rollout)
    assert_weights(policies[0], *theta_and_phi(policies[1]), atol=2e-6)


@pytest.mark.parametrize(
    ("options", "text"), [({"trace_limit": 0.0}, "above 0"), ({"rho_limit": 0.5}, "at least trace_limit")]
)
def test_limits_that_contradict_each_other_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        IMPALA(**options)
