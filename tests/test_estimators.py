"""Returns and advantages against numbers worked out by hand, and against the recursion they stand for."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from rlgrad import estimators


def loop(rewards, values, next_values, terminations, boundaries, gamma, lam):
    """The recursion of the docstring, one step at a time."""
    returns = np.zeros_like(values)
    for t in reversed(range(len(rewards))):
        for n in range(rewards.shape[1]):
            last = boundaries[t, n] or t + 1 == len(rewards)
            following = next_values[t, n] if last else returns[t + 1, n]
            mixed = (1 - lam) * next_values[t, n] + lam * following
            returns[t, n] = rewards[t, n] + gamma * (1 - terminations[t, n]) * mixed
    return returns


def test_lambda_returns_of_a_literal_rollout():
    # Column 0 terminates at t=1, column 1 is cut there: 4 + 0.5·(0.5·20 + 0.5·20) = 14 against 4.
    rewards = np.array([[1.0, 1.0], [4.0, 4.0], [2.0, 2.0]])
    values = np.zeros((3, 2))
    next_values = np.array([[8.0, 8.0], [20.0, 20.0], [6.0, 6.0]])
    terminations = np.array([[0, 0], [1, 0], [0, 0]], bool)
    boundaries = np.array([[0, 0], [1, 1], [0, 0]], bool)
    got = estimators.lambda_returns(rewards, values, next_values, terminations, boundaries, 0.5, 0.5)
    # t=2: 2 + 0.5·6 = 5.  t=1: 4 | 14.  t=0: 1 + 0.5·(0.5·8 + 0.5·4) = 4 | 1 + 0.5·(4 + 7) = 6.5
    np.testing.assert_allclose(got, [[4.0, 6.5], [4.0, 14.0], [5.0, 5.0]])


def test_reward_to_go_of_a_literal_rollout():
    rewards = np.array([[1.0], [2.0], [3.0], [4.0]])
    boundaries = np.array([[0], [1], [0], [0]], bool)
    np.testing.assert_allclose(estimators.reward_to_go(rewards, boundaries, 0.5), [[2.0], [2.0], [5.0], [4.0]])


def test_td_errors_of_a_literal_rollout():
    """δ = r + γ (1 − term) v′ − v, by hand with γ = ½; a cut episode has a successor, a terminated one has none."""
    rewards, values, next_values = [[1.0, -1.0]], [[3.0, 0.5]], [[4.0, 8.0]]
    errors = estimators.td_errors(*map(np.array, (rewards, values, next_values, [[True, False]])), 0.5)
    np.testing.assert_allclose(errors, [[1.0 - 3.0, -1.0 + 4.0 - 0.5]])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_lambda_returns_equal_the_recursion(length, columns, gamma, lam, seed):
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, length, columns))
    terminations = rng.random((length, columns)) < 0.15
    boundaries = terminations | (rng.random((length, columns)) < 0.15)
    arguments = (rewards, values, next_values, terminations, boundaries, gamma, lam)
    np.testing.assert_allclose(estimators.lambda_returns(*arguments), loop(*arguments), rtol=1e-9, atol=1e-9)


def test_compiled_and_eager_returns_agree():
    rng = np.random.default_rng(0)
    rewards, values, next_values = rng.normal(size=(3, 33, 4)).astype(np.float32)
    ends = rng.random((33, 4)) < 0.1
    arguments = (rewards, values, next_values, ends, ends, 0.99, 0.95)
    compiled = tf.function(lambda *a: estimators.lambda_returns(*a, 0.99, 0.95), jit_compile=True)
    np.testing.assert_allclose(compiled(*arguments[:5]), estimators.lambda_returns(*arguments), rtol=1e-5, atol=1e-5)


def test_different_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="next_values has shape"):
        estimators.lambda_returns(np.ones((3, 2)), np.ones((3, 2)), np.ones((3, 1)), False, np.ones((3, 2)), 0.9, 0.9)


def test_standardizing_leaves_out_rows_of_weight_zero():
    x, weights = np.array([1.0, 3.0, 1e6]), np.array([1.0, 1.0, 0.0])
    np.testing.assert_allclose(estimators.standardize(x, weights)[:2], [-1.0, 1.0], rtol=1e-6)


def test_explained_variance_of_a_perfect_a_constant_and_an_opposite_baseline():
    returns, weights = np.array([1.0, 2.0, 3.0]), np.ones(3)
    assert float(estimators.explained_variance(returns, returns, weights)) == pytest.approx(1.0)
    assert float(estimators.explained_variance(np.full(3, 7.0), returns, weights)) == pytest.approx(0.0)
    assert float(estimators.explained_variance(-returns, returns, weights)) == pytest.approx(-3.0)


@pytest.mark.parametrize("clip", [None, 1.0, 0.5])
def test_the_slope_of_quantiles_is_that_of_the_quantile_huber_loss(clip):
    errors = np.random.default_rng(0).normal(size=(2, 3, 4))
    expected = np.zeros((2, 3))
    for row, i, j in np.ndindex(2, 3, 4):
        tau, u = (i + 0.5) / 3, errors[row, i, j]
        slope = np.sign(u) if clip is None or abs(u) > clip else u / clip
        expected[row, i] += abs(tau - (u < 0)) * slope / 4
    np.testing.assert_allclose(estimators.quantile_slope(errors, clip), expected, rtol=1e-12)


def test_quantiles_that_do_not_move_by_their_slope_are_those_of_the_targets():
    # Between two of four equally likely targets lies each quantile τ of 1/8, 3/8, 5/8, 7/8 that the slope leaves in place.
    targets, quantiles = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 2.0, 4.0, 8.0])
    pulled_up = estimators.quantile_slope(targets[None, :] - (quantiles[:, None] - 1e-6), None)
    pulled_down = estimators.quantile_slope(targets[None, :] - (quantiles[:, None] + 1e-6), None)
    assert (pulled_up.numpy() > 0).all()
    assert (pulled_down.numpy() < 0).all()


def test_the_effective_sample_size_counts_equal_weights_and_not_their_scale():
    assert float(estimators.effective_sample_size([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3.0)
    assert float(estimators.effective_sample_size([5.0])) == pytest.approx(1.0)
    assert float(estimators.effective_sample_size([1.0, 3.0])) == pytest.approx(16 / 10)
    assert float(estimators.effective_sample_size([0.0, 0.0])) == 0.0
