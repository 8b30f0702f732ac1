"""The TensorFlow half and the NumPy half of each distribution agree, and both with the textbook."""

import math

import numpy as np
import pytest
import tensorflow as tf

from rlgrad.distributions import Categorical, DiagonalGaussian

RNG = np.random.default_rng(0)
LOGITS = np.array([[0.0, math.log(2.0), math.log(5.0)]], np.float32)  # probabilities 1/8, 2/8, 5/8


def test_categorical_log_prob_and_entropy_of_literal_logits():
    categorical = Categorical(3)
    np.testing.assert_allclose(categorical.log_prob(LOGITS, [2]), [math.log(5 / 8)], rtol=1e-6)
    expected = -(1 / 8 * math.log(1 / 8) + 2 / 8 * math.log(2 / 8) + 5 / 8 * math.log(5 / 8))
    np.testing.assert_allclose(categorical.entropy(LOGITS), [expected], rtol=1e-6)


def test_categorical_samples_have_the_probabilities_of_the_logits():
    actions, _ = Categorical(3).sample(np.repeat(LOGITS, 100_000, axis=0), np.random.default_rng(1))
    # Three standard errors of a share at n = 100,000 are below 0.005.
    np.testing.assert_allclose(np.bincount(actions) / 100_000, [1 / 8, 2 / 8, 5 / 8], atol=0.005)


@pytest.mark.parametrize("how", ["sample", "mode"])
def test_categorical_log_probs_are_the_same_in_numpy_and_tensorflow(how):
    logits = RNG.normal(size=(50, 4)).astype(np.float32) * 5
    categorical = Categorical(4)
    actions, log_probs = categorical.sample(logits, RNG) if how == "sample" else categorical.mode(logits)
    np.testing.assert_allclose(categorical.log_prob(logits, actions), log_probs, rtol=1e-5, atol=1e-6)


def test_categorical_log_probs_stay_finite_for_large_logits():
    logits = np.array([[1000.0, -1000.0]], np.float32)
    assert np.isfinite(Categorical(2).log_prob(logits, [0])).all()
    assert np.isfinite(Categorical(2).mode(logits)[1]).all()


def test_categorical_starts_where_the_space_starts():
    np.testing.assert_array_equal(Categorical(3, start=5).to_environment(np.array([0, 2])), [5, 7])


def test_categorical_refuses_actions_outside_and_floating_point_actions():
    with pytest.raises(ValueError, match="0 … 2"):
        Categorical(3).check_actions([0, 3])
    with pytest.raises(TypeError, match="integer actions"):
        Categorical(3).check_actions([0.0])


def test_gaussian_log_prob_and_entropy_of_literal_parameters():
    gaussian = DiagonalGaussian()
    parameters = {"mean": tf.constant([[0.0, 1.0]]), "log_std": tf.constant([[0.0, math.log(2.0)]])}
    # Components: N(0,1) at 1: −½ − ½log2π;  N(1,2²) at 3: −½ − log2 − ½log2π
    expected = -1.0 - math.log(2.0) - math.log(2 * math.pi)
    np.testing.assert_allclose(gaussian.log_prob(parameters, [[1.0, 3.0]]), [expected], rtol=1e-6)
    np.testing.assert_allclose(
        gaussian.entropy(parameters), [math.log(2 * math.pi * math.e) + math.log(2.0)], rtol=1e-6
    )


@pytest.mark.parametrize("how", ["sample", "mode"])
def test_gaussian_log_probs_are_the_same_in_numpy_and_tensorflow(how):
    parameters = {
        "mean": RNG.normal(size=(50, 3)).astype(np.float32),
        "log_std": np.array([-1.0, 0.0, 0.5], np.float32),
    }
    gaussian = DiagonalGaussian()
    actions, log_probs = gaussian.sample(parameters, RNG) if how == "sample" else gaussian.mode(parameters)
    np.testing.assert_allclose(gaussian.log_prob(parameters, actions), log_probs, rtol=1e-4, atol=1e-5)


def test_gaussian_actions_are_clipped_for_the_environment_and_stored_unclipped():
    gaussian = DiagonalGaussian(low=np.array([-1.0]), high=np.array([1.0]))
    parameters = {"mean": np.array([[5.0]], np.float32), "log_std": np.array([-3.0], np.float32)}
    action, _ = gaussian.mode(parameters)
    assert action[0, 0] == 5.0
    assert gaussian.to_environment(action)[0, 0] == 1.0


def test_the_divergence_between_two_coins_by_hand():
    """KL = ¾ log(¾/½) + ¼ log(¼/½), with logits log ¾, log ¼ and 0, 0."""
    logits, even = np.log([[0.75, 0.25]]), np.zeros((1, 2))
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    np.testing.assert_allclose(Categorical().kl_divergence(logits, even), [expected], rtol=1e-12)


def test_the_divergence_between_two_normals_is_the_integral_of_its_definition():
    """∫ π (log π − log π′) on a grid, for each component by itself, and their sum."""
    mean, log_std, mean2, log_std2 = (np.array([x]) for x in ([0.3, -1.0], [-0.2, 0.4], [-0.5, 0.1], [0.3, 0.1]))
    x = np.linspace(-15.0, 15.0, 20001)[:, None]

    def log_density(mean, log_std):
        return -0.5 * ((x - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)

    log_p, log_q = log_density(mean, log_std), log_density(mean2, log_std2)
    expected = (np.exp(log_p) * (log_p - log_q)).sum() * (x[1] - x[0])
    one, other = {"mean": mean, "log_std": log_std}, {"mean": mean2, "log_std": log_std2}
    np.testing.assert_allclose(DiagonalGaussian().kl_divergence(one, other), expected, rtol=1e-10)


def parameters_of(kind, rng):
    if kind == "categorical":
        return rng.normal(size=(50, 4)) * 3.0
    return {"mean": rng.normal(size=(50, 3)), "log_std": rng.normal(size=(50, 3))}


DISTRIBUTIONS = {"categorical": Categorical(), "gaussian": DiagonalGaussian()}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_the_divergence_is_0_between_equals_and_else_positive(kind):
    rng = np.random.default_rng(0)
    one, other = parameters_of(kind, rng), parameters_of(kind, rng)
    np.testing.assert_allclose(DISTRIBUTIONS[kind].kl_divergence(one, one), 0.0, atol=1e-12)
    assert np.min(DISTRIBUTIONS[kind].kl_divergence(one, other)) > 1e-3


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_the_curvature_of_the_divergence_is_the_fisher_matrix(kind):
    """∂²/∂ε² KL(π ‖ π_ε) at ε = 0 along v is vᵀ F v, by central differences in float64."""
    rng = np.random.default_rng(1)
    here, v = parameters_of(kind, rng), parameters_of(kind, rng)
    distribution, step = DISTRIBUTIONS[kind], 1e-4

    def divergence(scale):
        there = tf.nest.map_structure(lambda x, d: tf.constant(x + scale * d), here, v)
        return distribution.kl_divergence(tf.nest.map_structure(tf.constant, here), there).numpy()

    curvature = (divergence(step) + divergence(-step)) / step**2  # the divergence at 0 is 0
    product = distribution.fisher_product(
        tf.nest.map_structure(tf.constant, here), tf.nest.map_structure(tf.constant, v)
    )
    parts = zip(tf.nest.flatten(v), tf.nest.flatten(product), strict=True)
    np.testing.assert_allclose(curvature, sum((a * b).numpy().sum(-1) for a, b in parts), rtol=1e-4, atol=1e-6)
