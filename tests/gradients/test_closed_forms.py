"""Against derivatives worked out by hand, without automatic differentiation, and finite differences in float64."""

import keras
import numpy as np
import pytest
from helpers import zoo

from rlgrad.distributions import DiagonalGaussian
from rlgrad.gradients import (
    Entropy,
    LogProb,
    flatten,
    gradient,
    input_gradient,
    jacobian,
    per_sample_gradient,
    unflatten,
    value_and_gradient,
)

layers = keras.layers


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_of_a_linear_model_the_gradient_is_the_input():
    model = zoo.randomized(keras.Sequential([keras.Input((2,)), layers.Dense(1, name="d")], name="m"))
    x, c = np.array([[1.0, 2.0], [3.0, -4.0]], np.float32), np.array([0.5, -2.0])
    value, got = value_and_gradient(model, x, sample_weight=c)
    np.testing.assert_allclose(value, x @ np.asarray(model.layers[0].kernel)[:, 0] + np.asarray(model.layers[0].bias))
    # Σ c_n x_n = 0.5 (1, 2) − 2 (3, −4); Σ c_n = −1.5
    np.testing.assert_allclose(got["m/d/kernel"], [[-5.5], [9.0]])
    np.testing.assert_allclose(got["m/d/bias"], [-1.5])
    np.testing.assert_allclose(per_sample_gradient(model, x)["m/d/kernel"][..., 0], x)


def test_one_tanh_layer_by_hand():
    model = zoo.make("sequential")
    x, c = zoo.inputs_for("sequential"), np.random.default_rng(0).standard_normal(4)
    w1, b1, w2, _ = (np.asarray(v, np.float64) for v in model.trainable_variables)
    h = np.tanh(x @ w1 + b1)
    # y_k = Σ_j h_j W2_jk + b2_k, so ∂y_k/∂W1_ij = x_i (1 − h_j²) W2_jk
    d = (1 - h**2)[:, :, None] * w2
    expected = {
        "plain/first/kernel": np.einsum("ni,njk->nkij", x, d),
        "plain/first/bias": np.einsum("njk->nkj", d),
        "plain/out/kernel": np.einsum("nj,kl->nkjl", h, np.eye(3)),
        "plain/out/bias": np.broadcast_to(np.eye(3), (4, 3, 3)),
    }
    rows, whole = jacobian(model, x), gradient(model, x, output=2, sample_weight=c)
    for path, by_unit in expected.items():
        np.testing.assert_allclose(rows[path], by_unit, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(whole[path], np.tensordot(c, by_unit[:, 2], 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(input_gradient(model, x, output=1), (d @ np.eye(3)[1]) @ w1.T, rtol=1e-4, atol=1e-6)


def test_softmax_score_is_action_minus_probability_times_features():
    model, x, actions = zoo.make("sequential"), zoo.inputs_for("sequential"), np.array([0, 2, 1, 2])
    w1, b1, w2, b2 = (np.asarray(v, np.float64) for v in model.trainable_variables)
    h = np.tanh(x @ w1 + b1)
    p = softmax(h @ w2 + b2)
    residual = np.eye(3)[actions] - p
    got = per_sample_gradient(model, x, output=LogProb(actions), weights="out")
    np.testing.assert_allclose(got["plain/out/kernel"], np.einsum("nj,nk->njk", h, residual), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["plain/out/bias"], residual, rtol=1e-4, atol=1e-6)


def test_expected_score_is_zero():
    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    p = softmax(np.asarray(model(x)))
    total = sum(flatten(gradient(model, x, output=LogProb(np.full(4, a)), sample_weight=p[:, a])) for a in range(3))
    np.testing.assert_allclose(total, 0.0, atol=1e-5)


def test_entropy_of_equal_logits_is_log_k_and_flat():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_initializer="zeros", name="d")])
    value, got = value_and_gradient(model, zoo.inputs_for("sequential"), output=Entropy())
    np.testing.assert_allclose(value, np.log(3.0), rtol=1e-6)
    np.testing.assert_allclose(flatten(got), 0.0, atol=1e-6)


def test_gaussian_score_by_hand():
    x = keras.Input((3,))
    mean, log_std = layers.Dense(2, use_bias=False, name="mean")(x), layers.Dense(2, use_bias=False, name="spread")(x)
    model = keras.Model(x, {"mean": mean, "log_std": log_std})
    s, a, c = (np.random.default_rng(i).standard_normal((4, n)).astype(np.float32) for i, n in enumerate((3, 2, 1)))
    mu, sigma = s @ np.asarray(model.get_layer("mean").kernel), np.exp(s @ np.asarray(model.get_layer("spread").kernel))
    value, got = value_and_gradient(model, s, output=LogProb(a, DiagonalGaussian()), sample_weight=c[:, 0])
    z = (a - mu) / sigma
    np.testing.assert_allclose(value, np.sum(-0.5 * z**2 - np.log(sigma) - 0.5 * np.log(2 * np.pi), axis=1), rtol=1e-4)
    # ∂ log π/∂μ = (a − μ)/σ², ∂ log π/∂ log σ = z² − 1
    np.testing.assert_allclose(got["mean/kernel"], s.T @ (c * z / sigma), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["spread/kernel"], s.T @ (c * (z**2 - 1)), rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_softmax_heads_sum_is_zero_as_it_was_for_k_gradients():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(3, "softmax")])
    value, got = value_and_gradient(model, zoo.inputs_for("sequential"))
    np.testing.assert_allclose(value, 1.0, rtol=1e-6)
    np.testing.assert_allclose(flatten(got), 0.0, atol=1e-6)


@pytest.mark.parametrize("output", [None, 1, "log_prob"])
def test_finite_differences_in_float64_agree(output):
    actions, c = np.array([2, 0, 1, 1]), np.random.default_rng(3).standard_normal(4)
    if output == "log_prob":
        output = LogProb(actions) - 0.2 * Entropy()
    model = zoo.randomized(
        keras.Sequential(
            [
                keras.Input((4,), dtype="float64"),
                layers.Dense(5, "softplus", dtype="float64"),
                layers.LayerNormalization(dtype="float64"),
                layers.Dense(3, dtype="float64"),
            ]
        )
    )
    x = np.random.default_rng(4).standard_normal((4, 4))
    got = gradient(model, x, output=output, sample_weight=c)
    flat, epsilon = np.asarray(flatten({v.path: v for v in model.trainable_variables})), 1e-6

    def objective(theta):
        for v, value in zip(model.trainable_variables, unflatten(theta, got).values(), strict=True):
            v.assign(value)
        return c @ np.asarray(value_and_gradient(model, x, output=output)[0])

    picked = np.random.default_rng(6).choice(len(flat), 12, replace=False)
    steps = [(objective(flat + e) - objective(flat - e)) / (2 * epsilon) for e in epsilon * np.eye(len(flat))[picked]]
    np.testing.assert_allclose(np.asarray(flatten(got))[picked], steps, rtol=1e-6, atol=1e-8)
