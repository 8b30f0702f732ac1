"""The search by halves against trying every number."""

import numpy as np
import pytest
import tensorflow as tf

from rlgrad.replay.searching import last_where


@pytest.mark.parametrize("bound", [1, 2, 7, 16, 33])
def test_it_finds_the_last_number_wherever_that_is(bound):
    most, last = np.array([(most, last) for most in range(1, bound + 1) for last in range(1, most + 1)]).T
    asked = []

    def holds(k):
        asked.append(k.numpy())
        return k <= tf.constant(last, tf.int32)

    np.testing.assert_array_equal(last_where(holds, tf.constant(most, tf.int32), bound), last)
    assert all(((k >= 1) & (k <= most)).all() for k in asked), "rows beyond those that there are"
