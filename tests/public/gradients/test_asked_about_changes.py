"""Questions of others about models that are changed, restored, built late or computed in half precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad import gradients

layers, ops = keras.layers, keras.ops
X = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]], np.float32)


class Scaled(keras.Model):
    """A compiled `call` that reads a number of the model."""

    def __init__(self):
        super().__init__()
        self.dense, self.scale = layers.Dense(1), 1.0

    @tf.function
    def call(self, x):
        return self.dense(x) * self.scale


class Late(keras.Model):
    """Layers that have no weights before they see an input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(3, "tanh"), layers.Dense(1)

    def call(self, x):
        return self.second(self.first(x))


def stack(*more):
    return keras.Sequential([keras.Input((2,)), layers.Dense(3, "tanh", name="kept"), *more])


def assert_as_a_tape_says(model, x=X):
    """The sum over the batch, by a tape that is made anew."""
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model(x))
    expected = tape.gradient(value, [v.value for v in variables])
    got = gradients.gradient(model, x)
    assert list(got) == [v.path for v in variables]
    zoo.assert_close(got.values(), expected)


def test_layers_that_are_removed_are_gone():
    """After `pop` the answer was that of before: https://github.com/keras-team/keras/issues/8909"""
    model = stack(layers.Dense(2, "tanh"), layers.Dense(1, name="old"))
    assert_as_a_tape_says(model)
    model.pop()
    model.pop()
    assert_as_a_tape_says(model)


def test_a_head_that_is_replaced_is_the_one_that_answers():
    """A new last layer on an old network: https://github.com/keras-team/keras/issues/3199"""
    model = stack(layers.Dense(1, name="head"))
    gradients.input_gradient(model, X)
    model.pop()
    model.add(layers.Dense(1, name="head"))
    w, b, head, _ = model.get_weights()
    expected = ((1 - np.tanh(X @ w + b) ** 2) * head[:, 0]) @ w.T
    zoo.assert_close([gradients.input_gradient(model, X)], [expected])


def test_a_normalization_that_is_loaded_counts_at_once(tmp_path):
    """Other results after loading a model with normalization: https://github.com/keras-team/keras/issues/17486"""

    def normalized(data):
        normalization = layers.Normalization()
        normalization.adapt(data)
        return keras.Sequential([keras.Input((2,)), normalization, layers.Dense(1)])

    model, other = normalized(X), normalized(10 * X + 3)
    assert_as_a_tape_says(model)
    other.save_weights(tmp_path / "other.weights.h5")
    model.load_weights(tmp_path / "other.weights.h5")
    scaled = 10 * X + 3
    kernel, _ = gradients.gradient(model, X).values()
    np.testing.assert_allclose(kernel[:, 0], ((X - scaled.mean(0)) / scaled.std(0)).sum(0), rtol=1e-4)


def test_frozen_weights_leave_the_result_and_can_still_be_asked_for():
    """`trainable = False` without an effect: https://github.com/keras-team/keras/issues/4674"""
    model = stack(layers.Dense(1, name="head"))
    before = gradients.gradient(model, X)
    model.get_layer("kept").trainable = False
    assert list(gradients.by_layer(gradients.gradient(model, X))) == ["head"]
    named = gradients.gradient(model, X, weights="kept/kernel")
    zoo.assert_close(named.values(), [before[model.get_layer("kept").kernel.path]])


def test_freezing_can_alternate_without_compiling_the_model():
    """A discriminator that stayed trainable: https://github.com/osh/KerasGAN/issues/10"""
    discriminator = stack(layers.Dense(1, name="verdict"))
    z = keras.Input((2,))
    gan = keras.Model(z, discriminator(layers.Dense(2, name="generator")(z)))
    for trainable in (True, False, True, False):
        discriminator.trainable = trainable
        assert len(gradients.gradient(gan, X)) == (6 if trainable else 2)
        assert_as_a_tape_says(gan)


def test_low_rank_adapters_can_be_put_into_any_layer_between_two_calls():
    """LoRA in layers of one's own choice: https://github.com/keras-team/keras-hub/issues/1821"""
    model = stack(layers.Dense(1, name="head"))
    gradients.gradient(model, X)
    model.get_layer("kept").enable_lora(2)
    model.get_layer("kept").lora_kernel_b.assign(np.ones((2, 3)))
    adapted = gradients.by_layer(gradients.gradient(model, X))["kept"]
    assert set(adapted) == {"lora_kernel_a", "lora_kernel_b", "bias"}
    assert_as_a_tape_says(model)


def test_an_attribute_that_a_compiled_call_reads_may_change():
    """A `tf.function` does not see that `self` has changed: https://github.com/tensorflow/tensorflow/issues/44980"""
    model = Scaled()
    model(X)
    for scale in (1.0, -3.0):
        model.scale = scale
        kernel, bias = gradients.gradient(model, X).values()
        np.testing.assert_allclose(kernel[:, 0], scale * X.sum(0), rtol=1e-5)
        np.testing.assert_allclose(bias, [3 * scale], rtol=1e-6)


def test_a_model_without_weights_says_so_and_has_them_after_a_call():
    """No trainable variables before the first call: https://github.com/tensorflow/tensorflow/issues/29729"""
    model = Late()
    with pytest.raises(ValueError, match="not built"):
        gradients.gradient(model, X)
    model(X)
    assert_as_a_tape_says(model)


def test_a_saved_model_with_a_recurrent_layer_has_gradients(tmp_path):
    """A restored LSTM that could not be trained: https://github.com/tensorflow/tensorflow/issues/34767"""
    model = keras.Sequential([keras.Input((2, 2)), layers.SimpleRNN(1)])
    model.export(str(tmp_path / "saved"), verbose=False)
    restored = keras.Sequential([keras.Input((2, 2)), layers.TFSMLayer(str(tmp_path / "saved"), call_endpoint="serve")])
    x = np.stack([X, -X], axis=1)
    got = {g.shape: g for g in gradients.per_sample_gradient(restored, x).values()}  # in another order
    expected = zoo.one_by_one(model, x, lambda y, n: y[0, 0], 3)
    zoo.assert_close([got[rows.shape] for rows in expected], expected)


def test_small_weights_do_not_vanish_in_half_precision():
    """Loss scaling in a loop of one's own: https://github.com/keras-team/keras/issues/20894"""
    half = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3, "tanh", dtype="mixed_float16"), layers.Dense(1, dtype="float32")]
    )
    whole = gradients.gradient(half, X, sample_weight=[1.0, -0.5, 2.0])
    tiny = gradients.gradient(half, X, sample_weight=[1e-9, -0.5e-9, 2e-9])
    assert all(np.any(g) and g.dtype == tf.float32 for g in tiny.values())
    zoo.assert_close([1e9 * g for g in tiny.values()], list(whole.values()))
