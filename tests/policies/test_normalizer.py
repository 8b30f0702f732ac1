"""The running mean and deviation of observations, against those of everything seen, at once."""

import numpy as np
import pytest
import tensorflow as tf

from rlgrad.policies.normalizer import RunningNormalizer

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_rollout_by_rollout_it_has_the_moments_of_all_rows_that_count(shape):
    normalizer, seen = RunningNormalizer(shape), []
    for rows, offset in ((5, 0.0), (1, 4.0), (7, -2.0)):
        x, mask = RNG.normal(offset, 2.0, size=(rows, *shape)), (RNG.random(rows) < 0.7).astype(np.float32)
        normalizer.update(tf.constant(x), tf.constant(mask))
        seen += list(x[mask > 0])
    assert float(normalizer.count) == len(seen) > 5, "rows that count"
    np.testing.assert_allclose(normalizer.mean, np.mean(seen, axis=0), rtol=1e-12, err_msg="mean")
    np.testing.assert_allclose(normalizer.variance, np.var(seen, axis=0), rtol=1e-12, err_msg="variance")


def test_rows_that_do_not_count_change_nothing_even_if_there_are_no_others():
    normalizer = RunningNormalizer((2,))
    for _ in range(2):
        normalizer.update(tf.ones((3, 2)), tf.zeros(3))
        np.testing.assert_array_equal(normalizer.mean, [0.0, 0.0])
        np.testing.assert_array_equal(normalizer.variance, [1.0, 1.0])
        assert float(normalizer.count) == 0.0
    normalizer.update(tf.constant([[1.0, 3.0]]), tf.ones(1))  # a single row has no variance
    normalizer.update(tf.ones((3, 2)), tf.zeros(3))
    np.testing.assert_array_equal(normalizer.mean, [1.0, 3.0])
    np.testing.assert_array_equal(normalizer.variance, [0.0, 0.0])
    assert float(normalizer.count) == 1.0


def test_it_standardizes_and_cuts_at_the_limit_in_tensorflow_and_numpy():
    """Of rows 1 and 5: mean 3, deviation 2 = √(4 + ε)."""
    normalizer = RunningNormalizer((1,), limit=2.0, epsilon=0.41)
    np.testing.assert_allclose(normalizer(tf.constant([[1.5], [-4.0], [9.0]])), [[1.5 / 1.41**0.5], [-2.0], [2.0]])
    normalizer.update(tf.constant([[1.0], [5.0]]), tf.ones(2))
    x, deviation = np.array([[3.0], [5.0], [-9.0], [99.0]], np.float32), 4.41**0.5
    expected = [[0.0], [2.0 / deviation], [-2.0], [2.0]]
    np.testing.assert_allclose(normalizer(x), expected, rtol=1e-6)
    standardize = normalizer.numpy_function(*(np.asarray(m) for m in normalizer.moments()))
    np.testing.assert_allclose(standardize(x), expected, rtol=1e-6)
    assert x[3, 0] == 99.0, "the observation that was given"


def test_it_is_rebuilt_from_its_config():
    config = RunningNormalizer((2,), limit=3.0, epsilon=0.5, name="mine").get_config()
    again = RunningNormalizer.from_config(config)
    assert (again.shape, again.limit, again.epsilon, again.name) == ((2,), 3.0, 0.5, "mine")
    assert not again.trainable
    assert [v.dtype for v in again.variables] == ["float64"] * 3
