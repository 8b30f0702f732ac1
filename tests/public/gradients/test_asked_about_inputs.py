"""Questions of others about the gradient of an output with respect to the input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad import gradients

layers, ops = keras.layers, keras.ops
X = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]], np.float32)


class InSpaceAndTime(keras.Model):
    """u(x, t) = sin(x) t²."""

    def call(self, x, t):
        return ops.sin(x) * t**2


def classifier():
    return keras.Sequential([keras.Input((2,)), layers.Dense(4, "tanh", name="hidden"), layers.Dense(3, name="out")])


def by_hand(model, k, rows=X):
    """The gradient of unit k of `classifier()` by each row."""
    (w, b), out = model.layers[0].get_weights(), model.layers[1].get_weights()[0]
    return ((1 - np.tanh(rows @ w + b) ** 2) * out[:, k]) @ w.T


def test_nobody_has_to_watch_the_input():
    """`None` for a watched `model.inputs`: https://github.com/tensorflow/tensorflow/issues/31264"""
    model = classifier()
    zoo.assert_close([gradients.input_gradient(model, X, output=0)], [by_hand(model, 0)])


def test_a_plain_array_is_differentiated_as_a_tensor_would_be():
    """No gradient for what was fed to the model: https://github.com/tensorflow/tensorflow/issues/36596"""
    model = classifier()
    from_lists = gradients.input_gradient(model, X.tolist(), output=2)
    zoo.assert_close([from_lists, gradients.input_gradient(model, tf.constant(X), output=2)], [by_hand(model, 2)] * 2)


def test_token_ids_are_refused_and_their_table_is_not():
    """`None` below an embedding: https://github.com/tensorflow/tensorflow/issues/75351"""
    model = keras.Sequential(
        [keras.Input((2,), dtype="int32"), layers.Embedding(4, 1, name="tokens"), layers.Flatten(), layers.Dense(1)]
    )
    ids, out = np.array([[3, 1]]), model.layers[-1].kernel.numpy()[:, 0]
    with pytest.raises(TypeError, match="int32"):
        gradients.input_gradient(model, ids)
    (table,) = gradients.gradient(model, ids, weights="tokens").values()
    np.testing.assert_allclose(table[:, 0], [0, out[1], 0, out[0]], rtol=1e-6)


def test_one_hot_rows_of_small_integers_count_as_the_numbers_that_the_model_reads():
    """Silent zeros for one-hot rows of uint8: https://github.com/aertslab/CREsted/issues/138"""
    model, rows = classifier(), np.array([[1, 0], [0, 1]], np.uint8)
    zoo.assert_close([gradients.input_gradient(model, rows, output=1)], [by_hand(model, 1, rows)])


def test_numbers_beside_categories_have_gradients_of_their_own():
    """A model of categories and numbers: https://github.com/meta-pytorch/captum/issues/836"""
    numbers, category = keras.Input((2,), name="numbers"), keras.Input((1,), dtype="int32", name="category")
    scale = layers.Flatten()(layers.Embedding(3, 2, name="scale")(category))
    model = keras.Model({"numbers": numbers, "category": category}, ops.sum(numbers * scale, axis=1))
    x = {"numbers": X, "category": np.array([[2], [0], [2]])}
    table = model.get_layer("scale").embeddings.numpy()
    np.testing.assert_allclose(gradients.input_gradient(model, x, inputs="numbers"), table[[2, 0, 2]], rtol=1e-6)
    with pytest.raises(TypeError, match="category"):
        gradients.input_gradient(model, x)


def test_there_is_a_saliency_map_for_each_class():
    """One map for each class, and not one for the largest: https://github.com/keras-team/keras/issues/6247"""
    model = classifier()
    maps = np.stack([gradients.input_gradient(model, X, output=k) for k in range(3)], axis=-1)
    zoo.assert_close([maps], [np.stack([by_hand(model, k) for k in range(3)], axis=-1)])


def test_each_row_of_a_batch_has_the_gradient_of_its_own_class():
    """Only the first row of a batch had a gradient: https://github.com/albermax/innvestigate/issues/246"""
    model = classifier()
    got = gradients.input_gradient(model, X, output=np.array([2, 0, 1]))
    zoo.assert_close([got], [np.stack([by_hand(model, k)[n] for n, k in enumerate([2, 0, 1])])])


def test_the_derivative_by_time_alone():
    """Only t matters, of a model of x and t: https://github.com/rezaakb/pinns-tf2/issues/5"""
    model = InSpaceAndTime()
    x, t = X[:, :1], np.array([[1.0], [2.0], [3.0]], np.float32)
    model(x, t)
    got = gradients.input_gradient(model, {"x": x, "t": t}, inputs="t")
    np.testing.assert_allclose(got, 2 * t * np.sin(x), rtol=1e-5)


def test_a_second_derivative_is_a_tape_around_the_first():
    """First and second derivatives of y in a loss: https://github.com/tensorflow/tensorflow/issues/39344"""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, "tanh", use_bias=False)])
    model.set_weights([np.array([[0.7]])])
    x = tf.constant(X[:, :1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        slope = gradients.input_gradient(model, x)
    y = np.tanh(0.7 * X[:, :1])
    np.testing.assert_allclose(slope, 0.7 * (1 - y**2), rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(slope, x), -2 * 0.49 * y * (1 - y**2), rtol=1e-4)


def test_a_critic_is_differentiated_by_each_action_of_a_batch():
    """The critic by the actions, row by row, and no sum: https://github.com/pemami4911/deep-rl/issues/3"""
    state, action = keras.Input((2,), name="state"), keras.Input((3,), name="action")
    preferred = layers.Dense(3, use_bias=False, name="preferred")(state)
    critic = keras.Model({"state": state, "action": action}, ops.sum(preferred * action - action**2, axis=1))
    x = {"state": X, "action": np.full((3, 3), 0.5, np.float32)}
    got = gradients.input_gradient(critic, x, inputs="action")
    np.testing.assert_allclose(got, X @ critic.get_layer("preferred").kernel.numpy() - 1.0, rtol=1e-4, atol=1e-6)


def test_an_actor_moves_along_the_critics_slope():
    """The deterministic policy gradient in two steps: https://github.com/Dekki-Aero/DDPG/issues/2"""
    actor = keras.Sequential([keras.Input((2,)), layers.Dense(3, "tanh", name="action")])
    slope = np.array([[1.0, 0, -1], [0.5, 2, 0], [0, 0, 3]], np.float32)  # dQ/da, a number by now
    got = gradients.gradient(actor, X, output=lambda a, dq_da: ops.sum(a * dq_da, axis=1), target=slope)
    back = slope * (1 - actor(X).numpy() ** 2)
    zoo.assert_close(got.values(), [X.T @ back, back.sum(0)])


def test_the_model_in_use_is_asked_and_not_its_predictions():
    """The slope of the outputs while predicting: https://github.com/lululxvi/deepxde/issues/177"""
    model = keras.Sequential([keras.Input((2,)), layers.Dropout(0.5), layers.Dense(1)])
    model.predict(X, verbose=0)
    got = gradients.input_gradient(model, X)  # with dropout off, as predict has it
    np.testing.assert_allclose(got, np.tile(model.layers[-1].kernel.numpy()[:, 0], (3, 1)), rtol=1e-6)
