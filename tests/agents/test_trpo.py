"""One update of TRPO against NumPy, and what its step may never do."""

import numpy as np
import pytest
from helpers.by_hand import (
    KINDS,
    advantages_and_returns,
    assert_weights,
    conjugate_gradients,
    exact_fisher,
    flat,
    kl,
    learned,
    like,
    literal_rollout,
    log_prob,
    policy_of,
    rows,
    score,
    standardized,
    theta_and_phi,
    value_steps,
)
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.agents import TRPO
from rlgrad.updates import Ascent, PerHead, TrustRegion

VALUE = Ascent(learning_rate=0.01, num_epochs=3, num_minibatches=2)
SEED = [3, 4]


def agent_of(**options):
    return TRPO(gamma=0.9, gae_lambda=0.8, update=PerHead(policy=TrustRegion(**options), value=VALUE))


def surrogate(theta, moved, x, a, credit):
    return credit @ (np.exp(log_prob(moved, x, a) - log_prob(theta, x, a)) - 1.0)


def by_hand(policy, rollout, agent):
    """Schulman et al. (2015), appendix C; and how often the step was shortened, None where no step was taken."""
    update = agent.update.policy
    theta, phi = theta_and_phi(policy)
    x, a, _, w = rows(rollout)
    advantages, returns = (part.ravel() for part in advantages_and_returns(rollout, phi, agent.gamma, agent.gae_lambda))
    credit = w * standardized(advantages, w)
    g = flat(score(theta, x, a, credit))
    matrix = exact_fisher(theta, x, w) + update.damping * np.eye(len(g))
    natural = conjugate_gradients(matrix, g, update.cg_iterations)
    eta = np.sqrt(2 * update.target_kl / (natural @ matrix @ natural))
    taken, metrics, end = None, {"step_size": 0.0, "kl": 0.0, "surrogate_improvement": 0.0}, theta
    for i in range(update.max_backtracks + 1):
        moved = like(flat(theta) + eta * update.backtrack_factor**i * natural, theta)
        distance, gain = w @ kl(theta, moved, x), surrogate(theta, moved, x, a, credit)
        if distance <= update.target_kl and gain > 0:
            taken, end = i, moved
            metrics = {"step_size": eta * update.backtrack_factor**i, "kl": distance, "surrogate_improvement": gain}
            break
    return end, value_steps(phi, x, returns, w, agent.update.value, SEED), taken, metrics


# How often the step must be shortened: with little damping the quadratic model promises too much. In none of these problems
# does rounding decide whether one more round of conjugate gradients is made.
@mostly_slow(
    "kind, options, shortened",
    [
        ("discrete", {}, 0),
        ("continuous", {}, 0),
        ("discrete", {"target_kl": 0.1, "damping": 0.002, "max_backtracks": 3}, 3),  # with the last one allowed
        ("continuous", {"target_kl": 0.5, "damping": 0.05, "max_backtracks": 1}, 1),
    ],
    quick=[
        ("discrete", {"target_kl": 0.1, "damping": 0.002, "max_backtracks": 3}, 3),
        ("continuous", {"target_kl": 0.5, "damping": 0.05, "max_backtracks": 1}, 1),
    ],
)
def test_one_update_equals_numpy(kind, options, shortened):
    agent = agent_of(**options)
    policy = policy_of(kind)
    rollout = literal_rollout(policy)
    theta, phi, taken, expected = by_hand(policy, rollout, agent)
    assert taken == shortened
    metrics = learned(agent, policy, rollout, seed=SEED)
    for name, number in expected.items():
        assert metrics[name] == pytest.approx(number, rel=1e-3)
    assert_weights(policy, theta, phi, atol=2e-5 if shortened else 1e-6)  # float32 of a longer, worse conditioned step


def test_where_no_step_is_acceptable_the_policy_stays_to_the_bit_and_the_value_goes_on():
    """The same problem, with one shortening fewer than it needs."""
    policy = policy_of("discrete")
    rollout = literal_rollout(policy)
    needed = by_hand(policy, rollout, agent_of(target_kl=0.1, damping=0.002))[2]
    agent = agent_of(target_kl=0.1, damping=0.002, max_backtracks=needed - 1)
    before = policy.network.get_weights()
    _, phi, taken, _ = by_hand(policy, rollout, agent)
    assert taken is None
    metrics = learned(agent, policy, rollout, seed=SEED)
    assert [metrics[n] for n in ("step_size", "kl", "surrogate_improvement")] == [0.0, 0.0, 0.0]
    for a, b in zip(policy.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert_weights(policy, theta_and_phi(policy)[0], phi)


@mostly_slow("kind", KINDS)
def test_every_step_stays_within_the_trust_region_and_improves_the_surrogate(kind):
    """Over random problems, most of which need the step shortened: divergence and surrogate are computed by hand."""
    target = 0.1
    agent = agent_of(target_kl=target, damping=0.001)
    policy = policy_of(kind)
    learner = rlgrad.Learner(agent, policy, num_envs=2, xla=False)
    moved = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        for variable in policy.trainable_variables:
            variable.assign(rng.normal(size=variable.shape, scale=0.8))
        rollout = literal_rollout(policy)
        rollout = rollout._replace(rewards=rng.normal(size=(4, 2)).astype(np.float32))
        theta, phi = theta_and_phi(policy)
        metrics = learner.learn(rollout, 0.0, SEED)
        after, _ = theta_and_phi(policy)
        x, a, _, w = rows(rollout)
        advantages, _ = advantages_and_returns(rollout, phi, agent.gamma, agent.gae_lambda)
        distance = w @ kl(theta, after, x)
        assert distance <= target * (1 + 1e-4)
        assert metrics["kl"] == pytest.approx(distance, rel=1e-3, abs=1e-6)
        if metrics["step_size"] == 0.0:
            np.testing.assert_array_equal(flat(after), flat(theta))
            continue
        moved += 1
        assert surrogate(theta, after, x, a, w * standardized(advantages.ravel(), w)) > 0
    assert moved >= 10


def test_a_problem_without_a_gradient_is_left_alone():
    """Rewards, values and so the advantages are 0."""
    policy = policy_of("discrete")
    for variable in policy.value_network.trainable_variables:
        variable.assign(0.0 * variable)
    rollout = literal_rollout(policy)
    before = policy.get_weights()
    metrics = learned(
        TRPO(update=PerHead(policy=TrustRegion(), value=VALUE)), policy, rollout._replace(rewards=0 * rollout.rewards)
    )
    assert metrics["step_size"] == metrics["gradient_norm"] == metrics["cg_residual"] == 0.0
    for a, b in zip(policy.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.xla
def test_it_compiles_and_gives_the_same_numbers():
    ends = []
    for xla in (False, True):
        policy = policy_of("discrete")
        learned(agent_of(target_kl=0.5, damping=0.05), policy, literal_rollout(policy), xla=xla)
        ends.append(flat(w for part in theta_and_phi(policy) for w in part))
    np.testing.assert_allclose(*ends, atol=2e-5)
