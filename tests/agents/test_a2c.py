"""One update of A2C against NumPy, and the identities between it and its neighbours."""

from itertools import product

import numpy as np
import pytest
from helpers.by_hand import (
    KINDS,
    RMSprop,
    added,
    advantages_and_returns,
    assert_weights,
    clipped,
    entropy,
    entropy_gradient,
    flat,
    learned,
    like,
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

from rlgrad.agents import A2C, Reinforce
from rlgrad.updates import Ascent, NaturalGradient, PerHead


def by_hand(policy, rollout, agent, optimizer, progress):
    """Mnih et al. (2016), algorithm S3, with one synchronous step and generalized advantages."""
    theta, phi = theta_and_phi(policy)
    x, a, _, w = rows(rollout)
    advantages, returns = (part.ravel() for part in advantages_and_returns(rollout, phi, agent.gamma, agent.gae_lambda))
    if agent.standardize_advantages:
        advantages = standardized(advantages, w)
    beta = agent.entropy_coefficient * (1.0 - progress if agent.entropy_schedule == "linear" else 1.0)
    of_policy = added(score(theta, x, a, w * advantages), entropy_gradient(theta, x, w * beta))
    of_value = value_gradient(phi, x, w * agent.value_coefficient * (returns - value(phi, x)))
    gradient, length = clipped([*of_policy, *of_value], agent.update.max_grad_norm)
    moved = optimizer.ascend([*theta, *phi], gradient)
    return moved[: len(theta)], moved[len(theta) :], length


@mostly_slow("standardize, kind", product([False, True], KINDS), quick=[(False, "discrete"), (True, "continuous")])
def test_one_update_equals_numpy(kind, standardize):
    agent = A2C(
        gamma=0.9,
        gae_lambda=0.7,
        standardize_advantages=standardize,
        entropy_coefficient=0.3,
        entropy_schedule="linear",
        value_coefficient=0.5,
        update=Ascent(optimizer="rmsprop", learning_rate=0.01, max_grad_norm=0.5),
    )
    policy = policy_of(kind)
    rollout = literal_rollout(policy)
    theta, phi, length = by_hand(policy, rollout, agent, RMSprop(0.01), progress=0.25)
    entropy_before = entropy(theta_and_phi(policy)[0], rows(rollout)[0]) @ rows(rollout)[3]
    metrics = learned(agent, policy, rollout, progress=0.25)
    assert_weights(policy, theta, phi)
    assert length > 0.5
    assert metrics["gradient_norm"] == pytest.approx(length, rel=1e-5)
    assert metrics["entropy"] == pytest.approx(entropy_before, rel=1e-5)
    assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-6)


def test_the_defaults_are_those_that_the_file_explains():
    """Equation by equation: λ = 1, no entropy, no standardizing, c_v = 1, RMSprop at 7e-4, clipped at 0.5."""
    policy = policy_of("discrete")
    rollout = literal_rollout(policy)
    theta, phi, _ = by_hand(policy, rollout, A2C(), RMSprop(7e-4), progress=0.0)
    learned(A2C(), policy, rollout)
    assert_weights(policy, theta, phi)


def test_explained_variance_is_that_of_the_values_before_the_update():
    policy = policy_of("discrete")
    rollout = literal_rollout(policy)
    _, phi = theta_and_phi(policy)
    _, returns = advantages_and_returns(rollout, phi, 0.99, 1.0)
    x, _, _, w = rows(rollout)
    keep = w > 0
    left = (returns.ravel() - value(phi, x))[keep].var() / returns.ravel()[keep].var()
    assert learned(A2C(), policy, rollout)["explained_variance"] == pytest.approx(1.0 - left, rel=1e-4)


def whole_episodes(policy):
    """The rollout as two episodes of three and two steps."""
    rollout = literal_rollout(policy)
    ends = np.zeros((4, 2), bool)
    ends[2, 0] = ends[1, 1] = True
    mask = np.array([[1, 1], [1, 1], [1, 0], [0, 0]], np.float32)
    return rollout._replace(
        terminations=ends, truncations=np.zeros((4, 2), bool), rewards=rollout.rewards * mask, mask=mask
    )


def test_with_lambda_1_and_whole_episodes_it_is_reinforce_with_a_value_baseline():
    """To the bit. Reinforce(baseline="value") is written without an advantage estimate."""
    weights = []
    for agent in (A2C(gae_lambda=1.0, num_steps=None, update=Ascent()), Reinforce(num_steps=None, update=Ascent())):
        policy = policy_of("discrete")
        learned(agent, policy, whole_episodes(policy))
        weights.append(policy.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_with_lambda_1_on_whole_episodes_the_credit_is_the_monte_carlo_return_less_the_value():
    """Against a sum written out: Â_t = Σ_k γᵏ r_t+k − v(s_t), with one episode of three steps, one of two."""
    policy = policy_of("discrete")
    rollout = whole_episodes(policy)
    theta, phi = theta_and_phi(policy)
    x, a, _, _ = rows(rollout)
    # Rewards 1, 2, −1.5 and −0.5, 0.25, γ = 0.5; rows are t-major, two columns.
    returns = np.array([1.0 + 1.0 - 0.375, -0.5 + 0.125, 2.0 - 0.75, 0.25, -1.5, 0.0, 0.0, 0.0])
    w = rollout.mask.ravel() / 2.0  # whole episodes: a mean over the two of them
    error = returns - value(phi, x)
    theta = added(theta, score(theta, x, a, w * error), 0.1)
    phi = added(phi, value_gradient(phi, x, w * error), 0.1)
    learned(A2C(gamma=0.5, num_steps=None, update=Ascent(optimizer="sgd", learning_rate=0.1)), policy, rollout)
    assert_weights(policy, theta, phi)


class OnlyEntropy(A2C):
    def credit(self, batch, now):
        credit = super().credit(batch, now)
        return credit | {"log_prob": 0.0 * credit["log_prob"]}


@pytest.mark.parametrize(("progress", "rate", "beta"), [(0.0, 0.2, 0.5), (0.5, 0.1, 0.25), (1.0, 0.0, 0.0)])
def test_linear_schedules_fall_to_0_at_the_end_of_training(progress, rate, beta):
    """With the advantages' credit taken out, what moves the policy is the entropy: rate · beta · ∇H, by plain ascent."""
    update = Ascent(optimizer="sgd", learning_rate=0.2, learning_rate_schedule="linear")
    policy = policy_of("discrete")
    rollout = literal_rollout(policy)
    theta, _ = theta_and_phi(policy)
    x, _, _, w = rows(rollout)
    expected = added(theta, entropy_gradient(theta, x, w * beta), rate)
    agent = OnlyEntropy(entropy_coefficient=0.5, entropy_schedule="linear", update=update)
    metrics = learned(agent, policy, rollout, progress=progress)
    assert metrics["learning_rate"] == pytest.approx(rate, abs=1e-8)
    assert_weights(policy, expected, theta_and_phi(policy)[1])


def test_the_policy_takes_one_step():
    with pytest.raises(ValueError, match=r"the policy takes one step.*value=Ascent\(num_epochs"):
        A2C(update=Ascent(num_epochs=2))
    with pytest.raises(ValueError, match="the policy takes one step"):
        A2C(update=PerHead(policy=Ascent(num_minibatches=4)))
    A2C(update=PerHead(value=Ascent(num_epochs=4)))
    A2C(update=PerHead(policy=NaturalGradient()))


def test_the_gradient_of_the_score_by_hand_is_that_of_finite_differences():
    """The NumPy side itself, so that agreement with it means something."""
    from helpers.by_hand import log_prob

    for kind in KINDS:
        policy = policy_of(kind)
        theta, _ = theta_and_phi(policy)
        x, a, _, w = rows(literal_rollout(policy))
        point = flat(theta)
        for function, gradient in (
            (lambda t, x=x, a=a, w=w: w @ log_prob(t, x, a), score(theta, x, a, w)),
            (lambda t, x=x, w=w: w @ entropy(t, x), entropy_gradient(theta, x, w)),
        ):
            numeric = [
                (function(like(point + step, theta)) - function(like(point - step, theta))) / 2e-6
                for step in 1e-6 * np.eye(point.size)
            ]
            np.testing.assert_allclose(flat(gradient), numeric, atol=1e-8)
