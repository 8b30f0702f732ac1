"""The formulas of the diagnostics: literal cases, edge cases, and what they claim to estimate or to minimise."""

import numpy as np
import pytest

from rlgrad import diagnostics as d

# Three gradients of two weights: (3, 0), (1, 0), (2, 3). Mean (2, 1), so ‖ḡ‖² = 5; g_n · ḡ = 6, 2, 7.
G = np.array([[3.0, 0.0], [1.0, 0.0], [2.0, 3.0]])
SQUARED, INNER, MEAN = np.array([9.0, 1.0, 13.0]), np.array([6.0, 2.0, 7.0]), 5.0


def scores_of(s, returns):
    """`ScoreMoments` written out, of per-sample scores (N, P)."""
    s, h = np.asarray(s, float), np.asarray(returns, float)[:, None] * s
    one = lambda x: {"w": x}
    return d.ScoreMoments(
        len(s),
        one((s * s).sum(0)),
        one((s * h).sum(0)),
        one((h * h).sum(0)),
        one(s.mean(0)),
        one(h.mean(0)),
    )


def test_noise_scale_by_hand():
    # tr Σ = (23 − 3 · 5) / 2 = 4; ‖G‖² = 5 − 4/3 = 11/3; B = 12/11.
    assert d.noise_scale(SQUARED, MEAN) == pytest.approx((11 / 3, 4.0, 12 / 11))
    assert d.noise_scale(SQUARED, MEAN).batch_size == 1
    assert d.variance(SQUARED, MEAN) == pytest.approx(np.trace(np.cov(G.T)))


def test_the_signal_to_noise_ratio_is_the_batch_over_the_noise_scale():
    assert d.signal_to_noise(SQUARED, MEAN) == pytest.approx(3 / (12 / 11))


def test_one_sample_says_nothing_about_noise():
    scale = d.noise_scale([4.0], 4.0)
    assert np.isnan(scale).all()
    assert scale.batch_size is None
    assert np.isnan(d.signal_to_noise([4.0], 4.0))
    assert np.isnan(d.variance([], 0.0))
    assert np.isnan(d.variance_with(scores_of([[1.0, 2.0]], [3.0])))


def test_gradients_of_zero_have_no_noise_no_direction_and_no_shares():
    zero = np.zeros(3)
    assert d.noise_scale(zero, 0.0)[:2] == (0.0, 0.0)
    assert np.isnan(d.noise_scale(zero, 0.0).scale)
    assert np.isnan(d.signal_to_noise(zero, 0.0))
    assert np.isnan(d.cosines(zero, zero, 0.0)).all()
    assert np.isnan(d.shares(zero)).all()


def test_equal_gradients_are_all_signal():
    assert d.noise_scale([2.0, 2.0, 2.0], 2.0) == (2.0, 0.0, 0.0)
    assert d.noise_scale([2.0, 2.0], 2.0).batch_size == 1
    assert d.signal_to_noise([2.0, 2.0], 2.0) == np.inf


def test_a_signal_that_cannot_be_told_from_zero_has_an_infinite_noise_scale():
    scale = d.noise_scale([1.0, 1.0], 0.0)  # two opposite gradients
    assert scale == (-1.0, 2.0, np.inf)
    assert scale.batch_size is None
    assert d.signal_to_noise([1.0, 1.0], 0.0) == -1.0


def test_rounding_never_makes_a_variance_negative():
    assert d.variance([1.0, 1.0], 1.0 + 1e-9) == 0.0


def test_the_estimates_of_signal_and_noise_are_unbiased():
    """Over 20,000 batches of 4: ‖ḡ‖² alone would be 5 + 9 / 4 here, and a signal of 0 is estimated as 0, not above."""
    rng = np.random.default_rng(0)
    for mean in (np.array([2.0, 1.0, 0.0]), np.zeros(3)):
        deviations = np.array([1.0, 2.0, 2.0])  # tr Σ = 9
        batches = mean + deviations * rng.normal(size=(20_000, 4, 3))
        found = np.array([d.noise_scale((g * g).sum(1), (g.mean(0) ** 2).sum()) for g in batches])
        signal, noise = found[:, 0], found[:, 1]
        error = lambda x: 4 * x.std() / np.sqrt(len(x))
        assert signal.mean() == pytest.approx(mean @ mean, abs=error(signal))
        assert noise.mean() == pytest.approx(9.0, abs=error(noise))
        biased = (batches.mean(1) ** 2).sum(1)
        assert biased.mean() > mean @ mean + 2.0


def test_at_the_noise_scale_the_mean_is_as_much_signal_as_noise():
    rng = np.random.default_rng(1)
    g = np.array([1.0, 0.0]) + 3.0 * rng.normal(size=(200_000, 2))
    scale = d.noise_scale((g * g).sum(1), (g.mean(0) ** 2).sum())
    assert scale.scale == pytest.approx(18.0, rel=0.03)
    means = g[: 18 * 10_000].reshape(10_000, 18, 2).mean(1)
    assert np.trace(np.cov(means.T)) == pytest.approx(1.0, rel=0.05)


def test_cosines_and_shares_by_hand():
    expected = [6 / np.sqrt(45), 2 / np.sqrt(5), 7 / np.sqrt(65)]
    np.testing.assert_allclose(d.cosines(SQUARED, INNER, MEAN), expected)
    np.testing.assert_allclose(d.shares(INNER), [6 / 15, 2 / 15, 7 / 15])
    np.testing.assert_allclose(d.shares(INNER, [0, 1, 0]), [13 / 15, 2 / 15])
    np.testing.assert_allclose(d.shares(INNER, [0, 1, 0], num_groups=4), [13 / 15, 2 / 15, 0, 0])


def test_a_sample_against_the_mean_has_the_cosine_minus_1_and_rounding_leaves_none_outside():
    """Of g = (2, 0) and (−1, 0) the mean is (½, 0); an inner product that rounding has made too large counts as 1 or −1."""
    np.testing.assert_allclose(d.cosines([4.0, 1.0], [1.0, -0.5], 0.25), [1.0, -1.0])
    np.testing.assert_array_equal(d.cosines([4.0, 1.0], [1.01, -0.51], 0.25), [1.0, -1.0])


def test_a_small_signal_without_noise_is_all_signal():
    assert d.signal_to_noise([0.25, 0.25], 0.25) == np.inf


def test_shares_of_opposing_samples_are_negative_and_all_add_up_to_one():
    g = np.random.default_rng(2).normal(size=(50, 7)) + 0.2
    share = d.shares(g @ g.mean(0))
    assert share.min() < 0.0
    assert share.sum() == pytest.approx(1.0)


def test_a_zero_gradient_among_others_has_no_cosine():
    assert np.isnan(d.cosines([0.0, 4.0], [0.0, 2.0], 1.0)).tolist() == [True, False]


def test_a_gram_matrix_gives_the_same_numbers():
    squared, inner, mean = d.from_gram(G @ G.T)
    np.testing.assert_allclose(squared, SQUARED)
    np.testing.assert_allclose(inner, INNER)
    assert mean == pytest.approx(MEAN)


def test_episodes_are_numbered_down_the_columns():
    ends = np.array([[0, 0], [1, 0], [0, 0], [0, 1]], bool)
    np.testing.assert_array_equal(d.episode_numbers(ends), [[0, 2], [0, 2], [1, 2], [1, 2]])


def test_the_optimal_baselines_by_hand():
    # Scores (1, 2) and (2, 0), returns 3 and 6: Σ‖s‖² = 9, Σ‖s‖² R = 15 + 24 = 39; by component (3 + 24) / 5 and 12 / 4.
    scores = scores_of([[1.0, 2.0], [2.0, 0.0]], [3.0, 6.0])
    assert d.optimal_baseline(scores) == pytest.approx(39 / 9)
    np.testing.assert_allclose(d.componentwise_baseline(scores)["w"], [27 / 5, 3.0])
    # (R s) = (3, 6) and (12, 0): means 7.5 and 3, squares about them 2 · 4.5² + 2 · 3².
    assert d.variance_with(scores) == pytest.approx(2 * 4.5**2 + 2 * 3.0**2)


def test_a_weight_without_a_score_gets_baseline_zero_and_no_scores_none():
    scores = scores_of([[1.0, 0.0], [2.0, 0.0]], [3.0, 6.0])
    assert d.componentwise_baseline(scores)["w"][1] == 0.0
    assert np.isnan(d.optimal_baseline(scores_of(np.zeros((2, 2)), [3.0, 6.0])))


def exact_problem():
    """One state, softmax over 4 actions of the probabilities k / 10: each action as often as it is likely, so E[s] = 0."""
    actions = np.repeat(np.arange(4), np.arange(1, 5))
    p = np.arange(1, 5) / 10
    score = np.eye(4)[actions] - p
    returns = np.array([5.0, -2.0, 11.0, 4.0])[actions]
    np.testing.assert_allclose(score.mean(0), 0.0, atol=1e-15)
    return scores_of(score, returns)


def test_no_other_constant_baseline_has_less_variance_than_the_optimal_one():
    scores = exact_problem()
    best = d.optimal_baseline(scores)
    least = d.variance_with(scores, best)
    for step in (-10.0, -1.0, -0.01, 0.01, 1.0, 10.0):
        assert d.variance_with(scores, best + step) > least
    assert least < d.variance_with(scores, 0.0)


def test_no_other_baseline_of_a_component_has_less_variance_than_its_own():
    scores, rng = exact_problem(), np.random.default_rng(3)
    best = d.componentwise_baseline(scores)
    least = d.variance_with(scores, best)
    for _ in range(20):
        assert d.variance_with(scores, {"w": best["w"] + 0.1 * rng.normal(size=4)}) > least
    assert least < d.variance_with(scores, d.optimal_baseline(scores))


def test_no_constant_baseline_changes_the_expected_gradient():
    scores = exact_problem()
    np.testing.assert_allclose(scores.mean["w"] - 3.0 * scores.mean_score["w"], scores.mean["w"], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.noise_scale(np.ones((2, 2)), 1.0), r"squared_norms has one number a sample"),
        (lambda: d.cosines(SQUARED, INNER[:2], MEAN), r"both are \(N,\)"),
        (lambda: d.shares(INNER, [0, 1]), "one a sample"),
        (lambda: d.shares(INNER, [0, -1, 1]), "from 0"),
        (lambda: d.episode_numbers([True]), r"bool \(T, N\)"),
        (lambda: d.from_gram(np.ones((2, 3))), "square"),
        (lambda: d.variance_with(exact_problem(), {"v": 1.0}), "variables"),
    ],
)
def test_wrong_shapes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
