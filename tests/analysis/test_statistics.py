"""Interquartile means and their intervals, against literal numbers."""

import numpy as np
import pytest

from rlgrad.analysis.statistics import bootstrap_interval, interquartile_mean, mean_interval


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], 3.0),
        ([1.0, 2.0, 6.0], 3.0),  # nothing to cut
        ([100.0, 1.0, 2.0, -50.0], 1.5),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 700.0], 3.5),
    ],
)
def test_a_quarter_is_cut_at_either_end(values, expected):
    assert interquartile_mean(values) == expected


def test_the_interval_is_that_of_resampled_seeds():
    # Two seeds: 0 and 1 with equal odds, so the mean of a resample is 0, ½ or 1, and 2.5 % of them lie below none of it.
    np.testing.assert_array_equal(bootstrap_interval([0.0, 1.0]), [0.0, 1.0])
    low, high = bootstrap_interval(np.random.default_rng(1).normal(size=400))
    # The interquartile mean of n normal values has deviation about 1.09 / √n.
    assert high - low == pytest.approx(2 * 1.96 * 1.09 / 20, rel=0.15)


def test_a_curve_is_the_same_as_its_points_one_by_one():
    values = np.random.default_rng(2).normal(size=(5, 7))
    together = bootstrap_interval(values, resamples=500)
    assert together.shape == (2, 5)
    for point, row in enumerate(values):
        np.testing.assert_array_equal(together[:, point], bootstrap_interval(row, resamples=500))


@pytest.mark.parametrize(
    ("count", "quantile"), [(2, 12.7062), (5, 2.7764), (6, 2.5706), (11, 2.2281), (31, 2.0423), (100, 1.9842)]
)
def test_the_interval_of_a_mean_over_episodes_is_student_s(count, quantile):
    low, high = mean_interval(10.0, 2.0, count)
    half = quantile * 2.0 / (count - 1) ** 0.5  # 2.0 is the deviation of the values themselves
    assert (low, high) == pytest.approx((10.0 - half, 10.0 + half), rel=3e-4)


def test_of_any_number_of_episodes_the_interval_holds_95_percent_of_students_t():
    """With t = √ν tan θ the density is that of cosᵛ⁻¹ θ, which is added up here."""
    theta = np.linspace(0.0, np.pi / 2, 400_001)
    for degrees in (*range(1, 16), 20, 40, 200):
        _, half = mean_interval(0.0, 1.0, degrees + 1)
        density = np.cos(theta) ** (degrees - 1)
        inside = theta <= np.arctan(half)  # half is t / √ν
        assert density[inside].sum() / density.sum() == pytest.approx(0.95, abs=2e-5), f"{degrees} degrees of freedom"


def test_one_episode_has_no_interval():
    assert np.isnan(mean_interval(10.0, 0.0, 1)).all()
