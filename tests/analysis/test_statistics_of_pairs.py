"""rliable's comparison of two kinds of runs, against numbers by hand."""

import numpy as np
import pytest

from rlgrad.analysis.statistics import performance_profile, probability_of_improvement


def test_the_probability_of_improvement_counts_pairs_equal_ones_by_half():
    # (1, 1) is a tie, (1, 0) and (3, 1) and (3, 0) are better: 3.5 of 4.
    p, low, high = probability_of_improvement([1.0, 3.0], [1.0, 0.0])
    assert p == 0.875
    # Drawn anew, [1, 1] against [1, 1] gives one half, and [3, 3] against anything 1.
    assert (low, high) == (0.5, 1.0)
    assert probability_of_improvement([5.0], [1.0, 2.0]) == (1.0, 1.0, 1.0)
    back, *_ = probability_of_improvement([1.0, 0.0], [1.0, 3.0])
    assert back == pytest.approx(1.0 - p)


def test_a_performance_profile_is_the_share_of_runs_above_each_level():
    levels = np.array([0.0, 1.0, 2.5, 9.0])
    share, low, high = performance_profile([1.0, 2.0, 3.0, 4.0], levels)
    np.testing.assert_array_equal(share, [1.0, 0.75, 0.5, 0.0])
    assert (low <= share).all()
    assert (share <= high).all()
    assert (low[0], high[-1]) == (1.0, 0.0)  # no draw changes these
