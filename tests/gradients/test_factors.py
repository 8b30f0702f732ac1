"""The routes that shapes choose between give the same numbers; the architectures' own tests are too small for some."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad.gradients.closed_forms.outer_products import OuterProduct
from rlgrad.gradients.closed_forms.patches import patches


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("permutation", [None, (2, 0, 3, 1)])
@pytest.mark.parametrize("positions", [3, 70])
@pytest.mark.parametrize("width", [2, 12])
def test_a_wide_factor_with_many_positions_is_the_sum_of_its_outer_products(xla, permutation, positions, width):
    generator, axes = np.random.default_rng(0), (2, 3, 2, width)
    a, b = zoo.normal(generator, 5, positions, 1, 12), zoo.normal(generator, 5, positions, 1, width)
    expected = np.einsum("nti,nto->nio", a[:, :, 0], b[:, :, 0], dtype=np.float64).reshape(5, *axes)
    if permutation is not None:
        expected = expected.transpose(0, *(1 + k for k in permutation))

    @tf.function(jit_compile=xla, autograph=False)
    def computed(a, b):
        factor = OuterProduct(a, b, axes, permutation)
        return factor.per_sample(), factor.squared_norm(), factor.gram(factor)

    flat = expected.reshape(5, -1)
    zoo.assert_close(computed(a, b), [expected, (flat**2).sum(1), flat @ flat.T])


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("kernel", "strides"), [((8, 8), (4, 4)), ((3, 6), (2, 4)), ((4, 3), (2, 2)), ((2, 2), (2, 2))]
)
def test_patches_are_those_of_tensorflow(kernel, strides, padding):
    x = zoo.normal(np.random.default_rng(0), 2, 17, 19, 3)
    expected = tf.image.extract_patches(x, (1, *kernel, 1), (1, *strides, 1), (1, 1, 1, 1), padding.upper())
    got = patches(tf.constant(x), kernel, strides, (1, 1), padding)
    np.testing.assert_array_equal(tf.reshape(got, expected.shape), expected)
