"""Natural gradients against dense matrices in float64; what a natural step honours and refuses."""

from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.by_hand import (
    empirical_fisher,
    entropy,
    exact_fisher,
    flat,
    kl,
    learned,
    literal_rollout,
    policy_of,
    rows,
    score,
    theta_and_phi,
)
from helpers.slow import mostly_slow

import rlgrad
from rlgrad import gradients
from rlgrad.agents import A2C, NPG, TRPO
from rlgrad.distributions import Categorical, DiagonalGaussian
from rlgrad.learning.objective import PolicyObjective
from rlgrad.updates import Ascent, NaturalGradient, PerHead, TrustRegion, directions


class Gaussian(keras.layers.Layer):
    """A mean and a log σ of its own."""

    def build(self, shape):
        self.log_std = self.add_weight(shape=shape[1:], initializer="zeros", name="log_std")

    def call(self, mean):
        return {"mean": mean, "log_std": tf.broadcast_to(tf.convert_to_tensor(self.log_std), tf.shape(mean))}


class Credits(rlgrad.Agent):
    """The advantages, as they are."""

    def credit(self, batch, now):
        return {"log_prob": batch.advantages}


def objective_of(rows, padding, kind="discrete", hidden=4, seed=0):
    """A float64 policy on random rows, of which the last `padding` count for nothing; and θ, x, a, w, c of the others."""
    rng = np.random.default_rng(seed)
    x = keras.Input((3,), dtype="float64")
    units = 3 if kind == "discrete" else 2
    h = keras.layers.Dense(hidden, "tanh", dtype="float64")(x)
    y = keras.layers.Dense(units, dtype="float64")(h)
    policy = keras.Model(x, {"policy": y if kind == "discrete" else Gaussian(dtype="float64")(y)})
    policy.distribution = Categorical(units) if kind == "discrete" else DiagonalGaussian()
    for variable in policy.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    observations, advantages = rng.normal(size=(rows, 3)), rng.normal(size=rows)
    actions = rng.integers(units, size=rows) if kind == "discrete" else rng.normal(size=(rows, units))
    mask = np.ones(rows)
    if padding:
        mask[-padding:] = 0.0
        observations[-padding:] = 1e3
        advantages[-padding:] = np.nan
    weights = mask / 7.0  # any scale: the Fisher matrix is a mean all the same
    fields = {**dict.fromkeys(rlgrad.Batch._fields, np.zeros(rows)), "observations": observations, "actions": actions}
    batch = rlgrad.Batch(**fields | {"advantages": advantages, "weights": weights})
    batch = tf.nest.map_structure(tf.constant, batch)
    names = ("log_prob",)
    objective = PolicyObjective(Credits(), policy, batch, names, names, policy.trainable_variables)
    keep = mask > 0
    theta = [v.numpy() for v in policy.trainable_variables]
    return objective, (theta, observations[keep], actions[keep], weights[keep], advantages[keep])


def dense(kind, theta, x, a, w):
    return empirical_fisher(theta, x, a, w / w.sum()) if kind == "empirical" else exact_fisher(theta, x, w / w.sum())


@mostly_slow("padding, kind", product([0, 3], ["discrete", "continuous"]), quick=[(0, "continuous"), (3, "discrete")])
def test_the_empirical_direction_through_the_gram_matrix_equals_the_dense_solve(kind, padding):
    objective, (theta, x, a, w, c) = objective_of(20, padding, kind)
    found = directions.empirical(objective, 0.1, iterations=1)
    matrix = dense("empirical", theta, x, a, w) + 0.1 * np.eye(flat(theta).size)
    expected = np.linalg.solve(matrix, flat(score(theta, x, a, w * c)))
    np.testing.assert_allclose(gradients.flatten(found.natural), expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(gradients.flatten(found.gradient), flat(score(theta, x, a, w * c)), rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.curvature, expected @ matrix @ expected, rtol=1e-8)
    assert float(found.residual) < 1e-10


@mostly_slow("rows, padding", [(2100, 40), (2049, 0)])
def test_with_more_rows_than_weights_the_empirical_matrix_is_the_same_and_only_its_solver_another(
    rows, padding, monkeypatch
):
    objective, (theta, x, a, w, c) = objective_of(rows, padding)
    monkeypatch.setattr(directions, "solve_in_sample_space", None)
    found = directions.empirical(objective, 0.1, iterations=200)
    matrix = dense("empirical", theta, x, a, w) + 0.1 * np.eye(flat(theta).size)
    g = flat(score(theta, x, a, w * c))
    natural = np.asarray(gradients.flatten(found.natural))
    left = np.linalg.norm(g - matrix @ natural) / np.linalg.norm(g)
    assert left <= 1e-5
    assert float(found.residual) == pytest.approx(left, rel=1e-6)
    np.testing.assert_allclose(natural, np.linalg.solve(matrix, g), rtol=0, atol=1e-4 * np.linalg.norm(g))


@mostly_slow("padding, kind", product([0, 3], ["discrete", "continuous"]), quick=[(0, "continuous"), (3, "discrete")])
def test_the_exact_direction_is_that_of_the_sum_over_all_actions(kind, padding):
    objective, (theta, x, a, w, c) = objective_of(20, padding, kind)
    found = directions.exact(objective, 0.1, iterations=100)
    matrix = dense("exact", theta, x, a, w) + 0.1 * np.eye(flat(theta).size)
    natural, g = np.asarray(gradients.flatten(found.natural)), flat(score(theta, x, a, w * c))
    left = np.linalg.norm(g - matrix @ natural) / np.linalg.norm(g)
    assert left <= 1e-5
    assert float(found.residual) == pytest.approx(left, rel=1e-5)
    np.testing.assert_allclose(found.curvature, natural @ matrix @ natural, rtol=1e-8)
    assert 0.5 * float(found.length(0.3)) ** 2 * natural @ matrix @ natural == pytest.approx(0.3)


def test_few_iterations_are_honest_about_what_they_leave():
    objective, (theta, x, a, w, c) = objective_of(20, 0)
    found = directions.exact(objective, 0.001, iterations=2)
    matrix = dense("exact", theta, x, a, w) + 0.001 * np.eye(flat(theta).size)
    g = flat(score(theta, x, a, w * c))
    left = np.linalg.norm(g - matrix @ np.asarray(gradients.flatten(found.natural))) / np.linalg.norm(g)
    assert left > 0.01
    assert float(found.residual) == pytest.approx(left, rel=1e-6)


def test_outputs_and_divergence_elsewhere_are_those_of_a_policy_that_stands_there():
    objective, (theta, x, _, w, _) = objective_of(20, 0)
    elsewhere = [v + 0.1 for v in theta]
    there, distance = objective.at([tf.constant(v) for v in elsewhere])
    np.testing.assert_allclose(distance, (w / w.sum()) @ kl(theta, elsewhere, x), atol=1e-10)
    before = [v.numpy() for v in objective.variables]
    for mine, unmoved in zip(before, theta, strict=True):
        np.testing.assert_array_equal(mine, unmoved)
    for variable, value in zip(objective.variables, elsewhere, strict=True):
        variable.assign(value)
    np.testing.assert_allclose(there.log_prob, objective.linearize().outputs["log_prob"], atol=1e-12)


UPDATES = [NaturalGradient(target_kl=0.2), TrustRegion(target_kl=0.2)]


def constrained_policy():
    unit, positive = keras.constraints.UnitNorm(axis=0), keras.constraints.NonNeg()
    layers = [
        keras.layers.Dense(4, "tanh", kernel_constraint=unit),
        keras.layers.Dense(3, kernel_constraint=positive, bias_constraint=positive),
    ]
    policy = policy_of("discrete", model=keras.Sequential([keras.Input((2,)), *layers]))
    for layer in layers:
        layer.kernel.assign(layer.kernel.constraint(layer.kernel))
    layers[1].bias.assign([0.0, 0.0, 0.0])
    return policy, layers


@mostly_slow("update", {type(update).__name__: update for update in UPDATES})
def test_constraints_are_honoured_and_the_measured_divergence_is_that_of_the_constrained_weights(update):
    policy, (first, last) = constrained_policy()
    rollout = literal_rollout(policy)
    before, _ = theta_and_phi(policy)
    agent = NPG(update=PerHead(policy=update, value=Ascent(learning_rate=1e-3)))
    metrics = learned(agent, policy, rollout)
    after, _ = theta_and_phi(policy)
    assert np.abs(flat(after) - flat(before)).max() > 0.01
    np.testing.assert_allclose(np.linalg.norm(first.kernel, axis=0), 1.0, atol=1e-5)
    assert np.min(last.kernel) >= 0
    assert np.min(last.bias) == 0  # without the constraint one of them had gone below
    x, _, _, w = rows(rollout)
    assert metrics["kl"] == pytest.approx(w @ kl(before, after, x), rel=1e-3)


@mostly_slow("agent", {"npg": NPG(), "trpo": TRPO()})
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_gradient_that_is_not_finite_is_named_and_moves_nothing(agent, bad):
    policy = policy_of("discrete")
    rollout = literal_rollout(policy)
    rewards = rollout.rewards.copy()
    rewards[0, 0] = bad
    before = policy.get_weights()
    update = PerHead(policy=agent.update.policy, value=Ascent())
    with pytest.raises(rlgrad.NonFiniteError, match=r"log_prob \(its credit, .*kernel"):
        learned(type(agent)(update=update), policy, rollout._replace(rewards=rewards))
    for a, b in zip(policy.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("update", "options", "message"),
    [
        (NaturalGradient, {"learning_rate": 0.1}, "set one of them, and the other to None"),
        (NaturalGradient, {"target_kl": None}, "set one of them, and the other to None"),
        (NaturalGradient, {"learning_rate_schedule": "linear"}, "needs a learning_rate"),
        (NaturalGradient, {"damping": 0.0}, "damping is above 0"),
        (NaturalGradient, {"target_kl": 0.0}, "target_kl is above 0"),
        (NaturalGradient, {"cg_iterations": 0}, "cg_iterations is at least 1"),
        (TrustRegion, {"target_kl": -1.0}, "target_kl is above 0"),
        (TrustRegion, {"damping": 0.0}, "damping is above 0"),
        (TrustRegion, {"backtrack_factor": 1.0}, "backtrack_factor is between 0 and 1"),
        (TrustRegion, {"max_backtracks": -1}, "max_backtracks is at least 0"),
    ],
)
def test_contradictions_are_refused(update, options, message):
    with pytest.raises(ValueError, match=message):
        update(**options)


def shared_trunk():
    x = keras.Input((2,))
    h = keras.layers.Dense(4, "tanh", name="trunk")(x)
    heads = {"policy": keras.layers.Dense(3)(h), "value": keras.layers.Dense(1)(h), "aux": keras.layers.Dense(1)(h)}
    return policy_of("discrete", model=keras.Model(x, heads))


class WithAux(NPG):
    """Credits a head with weights of its own beside the policy's."""

    outputs = {"aux": "aux"}

    def credit(self, batch, now):
        return super().credit(batch, now) | {"aux": batch.returns - now.aux}


class OnlyAux(rlgrad.Agent):
    outputs = {"aux": "aux"}
    num_steps: int | None = None

    def credit(self, batch, now):
        return {"aux": batch.returns - now.aux}


SEPARATE = {update: PerHead(policy=update()) for update in (NaturalGradient, TrustRegion)}


@pytest.mark.parametrize("update", SEPARATE)
def test_weights_for_which_the_policys_distance_says_nothing_are_refused(update):
    build = lambda agent, policy: rlgrad.Learner(agent, policy, num_envs=8)
    with pytest.raises(ValueError, match=rf"PerHead\(policy={update.__name__}\(\), value=Ascent\(\)\)"):
        build(A2C(update=update()), policy_of("discrete"))
    with pytest.raises(ValueError, match="they share trunk/kernel, trunk/bias"):
        build(NPG(update=SEPARATE[update]), shared_trunk())
    trunkless = shared_trunk()
    with pytest.raises(ValueError, match=r"is to move .*leave outputs with weights of their own"):
        build(
            type("Own", (OnlyAux,), {"credit": lambda s, b, n: {"log_prob": 1.0, "aux": 1.0}})(update=update()),
            trunkless,
        )
    with pytest.raises(ValueError, match="credit log_prob"):
        build(OnlyAux(update=update()), trunkless)


def test_the_empirical_matrix_is_refused_where_another_output_is_credited():
    update = PerHead(policy=NaturalGradient(fisher="empirical"))
    with pytest.raises(ValueError, match=r"gradient of entropy need not lie.*fisher='exact'"):
        rlgrad.Learner(A2C(entropy_coefficient=0.1, update=update), policy_of("discrete"), num_envs=8)


@pytest.mark.slow
@pytest.mark.parametrize("update", UPDATES, ids=lambda u: type(u).__name__)
def test_the_exact_matrix_takes_entropy_credit_too(update):
    """The direction is that of g + β ∇H; alone it would be another."""
    ends = []
    for beta in (0.0, 2.0):
        policy = policy_of("discrete")
        agent = A2C(entropy_coefficient=beta, update=PerHead(policy=update, value=Ascent()))
        before = learned(agent, policy, literal_rollout(policy))["entropy"]
        x, _, _, w = rows(literal_rollout(policy))
        after = w @ entropy(theta_and_phi(policy)[0], x)
        ends.append(after - before)
    assert ends[1] > ends[0] + 0.01
