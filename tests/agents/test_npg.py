"""One update of NPG against NumPy, with the Fisher matrix written out."""

import dataclasses
from itertools import product

import numpy as np
import pytest
from helpers.by_hand import (
    KINDS,
    added,
    advantages_and_returns,
    assert_weights,
    conjugate_gradients,
    empirical_fisher,
    entropy,
    exact_fisher,
    flat,
    kl,
    learned,
    like,
    literal_rollout,
    policy_of,
    rows,
    score,
    standardized,
    theta_and_phi,
    value_steps,
)
from helpers.slow import mostly_slow

from rlgrad.agents import A2C, NPG
from rlgrad.updates import Ascent, NaturalGradient, PerHead

VALUE = Ascent(learning_rate=0.01, num_epochs=3, num_minibatches=2)
SEED = [3, 4]


def agent_of(standardize=True, **options):
    options = {"damping": 0.1, "cg_iterations": 15} | options
    update = PerHead(policy=NaturalGradient(**options), value=VALUE)
    return NPG(gamma=0.9, gae_lambda=0.8, standardize_advantages=standardize, update=update)


def gradient_and_matrix(theta, phi, rollout, agent):
    """G and F + λ I: dense, as Kakade (2001) defines them."""
    x, a, _, w = rows(rollout)
    advantages, _ = advantages_and_returns(rollout, phi, agent.gamma, agent.gae_lambda)
    advantages = standardized(advantages.ravel(), w) if agent.standardize_advantages else advantages.ravel()
    update = agent.update.policy
    fisher = exact_fisher(theta, x, w) if update.fisher == "exact" else empirical_fisher(theta, x, a, w)
    return flat(score(theta, x, a, w * advantages)), fisher + update.damping * np.eye(len(fisher))


def by_hand(policy, rollout, agent, solve):
    """Kakade (2001) with the step length of Rajeswaran et al. (2017), eq. 5."""
    theta, phi = theta_and_phi(policy)
    x, _, _, w = rows(rollout)
    g, matrix = gradient_and_matrix(theta, phi, rollout, agent)
    natural = solve(matrix, g)
    update = agent.update.policy
    eta = update.learning_rate or np.sqrt(2 * update.target_kl / (natural @ matrix @ natural))
    _, returns = advantages_and_returns(rollout, phi, agent.gamma, agent.gae_lambda)
    moved = added(theta, like(eta * natural, theta))
    metrics = {"gradient_norm": np.linalg.norm(g), "step_size": eta, "kl": w @ kl(theta, moved, x)}
    return moved, value_steps(phi, x, returns.ravel(), w, agent.update.value, SEED), metrics


@mostly_slow(
    "fisher, kind",
    product(["exact", "empirical"], KINDS),
    quick=[("exact", "discrete"), ("empirical", "continuous")],
)
def test_one_update_equals_numpy(kind, fisher):
    """The exact matrix by conjugate gradients, the empirical one by a dense solve, which is what the Gram matrix saves."""
    agent = agent_of(fisher=fisher)
    solve = np.linalg.solve if fisher == "empirical" else lambda m, b: conjugate_gradients(m, b, iterations=15)
    policy = policy_of(kind)
    rollout = literal_rollout(policy)
    before, _ = theta_and_phi(policy)
    theta, phi, expected = by_hand(policy, rollout, agent, solve)
    metrics = learned(agent, policy, rollout, seed=SEED)
    assert_weights(policy, theta, phi)
    for name, number in expected.items():
        assert metrics[name] == pytest.approx(number, rel=1e-4)
    x, _, _, w = rows(rollout)
    assert metrics["entropy"] == pytest.approx(w @ entropy(before, x), rel=1e-5)
    assert metrics["cg_residual"] < 1e-3


def test_with_few_steps_the_two_fisher_matrices_lead_apart():
    ends = []
    for fisher in ("exact", "empirical"):
        policy = policy_of("discrete")
        theta, _, _ = by_hand(policy, literal_rollout(policy), agent_of(fisher=fisher), np.linalg.solve)
        learned(agent_of(fisher=fisher), policy, literal_rollout(policy), seed=SEED)
        ends.append(flat(theta_and_phi(policy)[0]))
        np.testing.assert_allclose(ends[-1], flat(theta), atol=1e-5)
    assert np.abs(ends[0] - ends[1]).max() > 0.01


@mostly_slow("fisher", ["exact", "empirical"])
def test_the_step_is_as_long_as_target_kl_allows(fisher):
    """By the quadratic model, ½ Δᵀ (F + λ I) Δ, with the matrix written out; the divergence itself is then near it."""
    agent = agent_of(fisher=fisher, target_kl=0.001, damping=1e-3)
    policy = policy_of("continuous")
    rollout = literal_rollout(policy)
    theta, phi = theta_and_phi(policy)
    _, matrix = gradient_and_matrix(theta, phi, rollout, agent)
    metrics = learned(agent, policy, rollout, seed=SEED)
    step = flat(theta_and_phi(policy)[0]) - flat(theta)
    assert 0.5 * step @ matrix @ step == pytest.approx(0.001, rel=1e-3)
    if fisher == "exact":
        assert metrics["kl"] == pytest.approx(0.001, rel=0.15)


def test_the_scale_of_the_rewards_does_not_move_the_policy_otherwise():
    """Standardizing is off, and the value estimate is 0, so that the advantages are 1000 times as large."""
    steps = []
    for scale in (1.0, 1000.0):
        policy = policy_of("discrete")
        for variable in policy.value_network.trainable_variables:
            variable.assign(0.0 * variable)
        rollout = literal_rollout(policy)
        before = flat(theta_and_phi(policy)[0])
        learned(agent_of(standardize=False), policy, rollout._replace(rewards=rollout.rewards * np.float32(scale)))
        steps.append(flat(theta_and_phi(policy)[0]) - before)
    assert np.abs(steps[0]).max() > 0.01
    np.testing.assert_allclose(steps[0], steps[1], atol=1e-5)


@pytest.mark.parametrize(("progress", "rate"), [(0.0, 0.2), (0.5, 0.1), (1.0, 0.0)])
def test_a_learning_rate_takes_the_place_of_target_kl(progress, rate):
    agent = agent_of(fisher="empirical", target_kl=None, learning_rate=0.2, learning_rate_schedule="linear")
    policy = policy_of("discrete")
    rollout = literal_rollout(policy)
    theta, phi = theta_and_phi(policy)
    g, matrix = gradient_and_matrix(theta, phi, rollout, agent)
    metrics = learned(agent, policy, rollout, progress=progress, seed=SEED)
    assert metrics["step_size"] == pytest.approx(rate, abs=1e-8)
    step = flat(theta_and_phi(policy)[0]) - flat(theta)
    np.testing.assert_allclose(step, rate * np.linalg.solve(matrix, g), atol=1e-6)


@pytest.mark.slow
@pytest.mark.xla
def test_it_compiles_and_gives_the_same_numbers():
    ends = []
    for xla in (False, True):
        policy = policy_of("discrete")
        learned(NPG(update=PerHead(policy=NaturalGradient(), value=VALUE)), policy, literal_rollout(policy), xla=xla)
        ends.append(flat(w for part in theta_and_phi(policy) for w in part))
    np.testing.assert_allclose(*ends, atol=1e-5)


@pytest.mark.slow
def test_the_same_credit_as_a2cs_standardized():
    """NPG is A2C with another update: their credits are the same."""
    update = PerHead(policy=NaturalGradient(), value=VALUE)
    ends = []
    for agent in (NPG(update=update), A2C(gae_lambda=0.95, standardize_advantages=True, update=update)):
        policy = policy_of("discrete")
        learned(dataclasses.replace(agent, gamma=0.9), policy, literal_rollout(policy))
        ends.append(flat(w for part in theta_and_phi(policy) for w in part))
    np.testing.assert_array_equal(*ends)
