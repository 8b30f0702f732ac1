"""Inside a caller's `tf.function`, which rewrites Python's conditions and loops, nothing of rlgrad is rewritten."""

import traceback

import keras
import pytest
import tensorflow as tf

from rlgrad import gradients
from rlgrad.gradients import Linearization

ARGUMENTS = {
    "activation_gradient": {"at": "hidden"},
    "clipped_gradient": {"max_norm": 1.0},
    "gradient": {},
    "gram": {},
    "input_gradient": {},
    "input_jacobian": {},
    "input_jvp": {"tangent": tf.ones((5, 3))},
    "jacobian": {},
    "jacobian_gram": {},
    "evaluate": {},
    "per_sample_gradient": {},
    "per_sample_norm": {},
    "value_and_gradient": {},
}
METHODS = [name for name, member in vars(Linearization).items() if callable(member) and not name.startswith("_")]


def rewritten(call):
    """Names of the functions that TensorFlow had rewritten, on the way from a traced function to the model's output."""
    layers = [keras.Input((3,)), keras.layers.Dense(4, "tanh", name="hidden"), keras.layers.Dense(2)]
    model, x = keras.Sequential(layers), tf.random.stateless_uniform((5, 3), (0, 1))
    found = []

    def output(y):
        found.extend(f.name for f in traceback.extract_stack() if "__autograph_generated" in f.filename)
        return tf.reduce_sum(y, axis=-1)

    @tf.function
    def step(x):
        return call(model, x, output)

    step(x)
    assert "tf__step" in found  # it does rewrite the caller's
    return set(found) - {"tf__step", "<lambda>"}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_function_is_left_as_it_is_written(name):
    function = getattr(gradients, name)
    assert not rewritten(lambda model, x, output: function(model, x, output=output, **ARGUMENTS[name]))


def test_products_with_second_derivatives_are_left_as_they_are_written():
    v = gradients.gradient
    assert not rewritten(
        lambda model, x, output: gradients.hessian_vector_product(model, x, v(model, x, output=output), output=output)
    )


@pytest.mark.parametrize("name", ["gradient", "per_sample", "norm", "gram"])
def test_a_method_of_a_linearization_is_left_as_it_is_written(name):
    assert name in METHODS
    assert not rewritten(lambda model, x, output: getattr(gradients.linearize(model, x, output=output), name)())


def test_every_public_method_of_a_linearization_is_marked():
    for name in METHODS:
        assert hasattr(getattr(Linearization, name), "__wrapped__"), name
