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
