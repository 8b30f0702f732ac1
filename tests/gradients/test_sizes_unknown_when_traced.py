"""Questions traced with open axes, and distributions of other libraries: nothing may be asked of a shape that is not known."""

import keras
import numpy as np
import tensorflow as tf

from rlgrad.gradients import LogProb, input_jacobian, linearize, per_sample_norm, value_and_gradient

RNG = np.random.default_rng(0)


def line(time=False):
    """f(x) = x·k + b, or the mean of it over time."""
    shape = (None, 3) if time else (3,)
    rest = [keras.layers.GlobalAveragePooling1D()] if time else []
    model = keras.Sequential([keras.Input(shape), keras.layers.Dense(1), *rest])
    model.layers[0].set_weights([np.array([[0.5], [-1.0], [2.0]], np.float32), np.array([0.25], np.float32)])
    return model


def test_norms_in_a_program_with_an_open_time_axis():
    """∂f/∂k is the mean of x over time, and ∂f/∂b = 1."""
    model = line(time=True)
    norms = tf.function(
        lambda x: per_sample_norm(model, x), input_signature=[tf.TensorSpec((None, None, 3))], autograph=False
    )
    for length in (2, 5):
        x = RNG.normal(size=(4, length, 3)).astype(np.float32)
        expected = np.sqrt((x.mean(axis=1) ** 2).sum(axis=1) + 1.0)
        np.testing.assert_allclose(norms(x), expected, rtol=1e-5, err_msg=f"norms of sequences of {length} steps")


def test_a_jacobian_by_the_input_in_a_program_with_an_open_time_axis():
    """y_t = k · x_t + b has as many units as steps: ∂y_t/∂x_s is c k where t = s, and else 0."""
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(1, use_bias=False)])
    kernel, c = np.array([0.5, -1.0, 2.0], np.float32), np.array([2.0, -3.0], np.float32)
    model.layers[0].set_weights([kernel[:, None]])
    signature = [tf.TensorSpec((2, None, 3))]
    jacobian = tf.function(
        lambda x: input_jacobian(model, x, sample_weight=c), input_signature=signature, autograph=False
    )
    for steps in (2, 4):
        found = jacobian(np.ones((2, steps, 3), np.float32)).numpy().reshape(2, steps, steps, 3)
        expected = c[:, None, None, None] * np.eye(steps)[None, :, :, None] * kernel
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=f"{steps} steps")


def test_sums_of_squares_in_a_program_with_an_open_batch_take_one_number_per_row():
    """Σ_n c_n x_n² for the kernel and Σ_n c_n for the bias."""
    model = line()
    signature = [tf.TensorSpec((None, 3)), tf.TensorSpec((None,))]
    squares = tf.function(
        lambda x, c: linearize(model, x).sum_of_squares(c), input_signature=signature, autograph=False
    )
    for rows in (2, 5):
        x, c = RNG.normal(size=(rows, 3)).astype(np.float32), RNG.uniform(size=rows).astype(np.float32)
        kernel, bias = squares(x, c).values()
        np.testing.assert_allclose(kernel, (c @ x**2)[:, None], rtol=1e-5, err_msg=f"kernel, {rows} rows")
        np.testing.assert_allclose(bias, [c.sum()], rtol=1e-5, err_msg=f"bias, {rows} rows")


class Logistic:
    """Another library's distribution, of parameters that rlgrad does not know."""

    def check_actions(self, actions):
        return tf.convert_to_tensor(actions)

    def log_prob(self, parameters, actions):
        z = (actions - parameters["location"][:, 0]) / parameters["scale"][:, 0]
        return -z - 2.0 * tf.math.log1p(tf.exp(-z)) - tf.math.log(parameters["scale"][:, 0])

    def entropy(self, parameters):
        return tf.math.log(parameters["scale"][:, 0]) + 2.0


def test_the_parameters_of_another_librarys_distribution_may_have_any_name():
    """log p(a) = −z − 2 log(1 + e⁻ᶻ) − log s, z = (a − x·k − b) / s; its derivative by b is (1 − 2 / (1 + eᶻ)) / s."""
    x = keras.Input((3,))
    outputs = {name: keras.layers.Dense(1, name=name)(x) for name in ("location", "scale")}
    model = keras.Model(x, {"policy": outputs})
    scale = model.get_layer("scale")
    scale.set_weights([np.zeros((3, 1)), np.array([2.0])])
    data, actions = (RNG.normal(size=shape).astype(np.float32) for shape in ((4, 3), (4,)))
    value, found = value_and_gradient(
        model, data, output=LogProb(actions, Logistic()), weights=["location/kernel", "location/bias"]
    )
    kernel, bias = (w.astype(float) for w in model.get_layer("location").get_weights())
    z = (actions - (data @ kernel + bias)[:, 0]) / 2.0
    np.testing.assert_allclose(
        value, -z - 2 * np.log1p(np.exp(-z)) - np.log(2.0), rtol=1e-4, err_msg="log-probabilities"
    )
    by_bias = (1.0 - 2.0 / (1.0 + np.exp(z))) / 2.0
    np.testing.assert_allclose(found["location/kernel"][:, 0], by_bias @ data, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["location/bias"], [by_bias.sum()], rtol=1e-4, atol=1e-6)
