"""Networks from `keras.applications`, with random weights and small inputs: norms and Gram against a loop over samples."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad.gradients import gram, per_sample_norm, plan

NETWORKS = {
    "ResNet50": (keras.applications.ResNet50, 32),
    "MobileNetV2": (keras.applications.MobileNetV2, 32),
    "EfficientNetV2B0": (keras.applications.EfficientNetV2B0, 32),
}


def network(name, dtype):
    before = keras.config.floatx()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        make, size = NETWORKS[name]
        return make(weights=None, input_shape=(size, size, 3), classes=5, classifier_activation=None), size
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_norms_and_gram_of_a_deep_network_are_those_of_single_samples(name, dtype):
    model, size = network(name, dtype)
    x = np.random.default_rng(0).uniform(0, 255, (3, size, size, 3)).astype(dtype)
    units = np.array([1, 4, 2])
    rows = zoo.one_by_one(model, x, lambda y, n: y[0, units[n]], 3)
    matrix = np.concatenate([g.reshape(3, -1) for g in rows], axis=1)
    kernel = matrix @ matrix.T
    tolerance = 1e-3 if dtype == "float32" else 1e-8
    got = gram(model, x, output=units)
    np.testing.assert_allclose(got, kernel, atol=tolerance * np.abs(kernel).max())
    norms = per_sample_norm(model, x, output=units)
    np.testing.assert_allclose(norms, np.sqrt(np.diag(kernel)), rtol=tolerance)
    others = [row for row in plan(model, x, output=1).rows if row.route != "closed form"]
    assert not others, others
    assert tf.as_dtype(got.dtype).name == dtype
