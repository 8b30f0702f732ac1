"""Questions of others about the gradient of an output with respect to what a hidden layer returns."""

import keras
import numpy as np
import pytest
from helpers import zoo

from rlgrad import gradients

layers, ops = keras.layers, keras.ops
IMAGES = np.random.default_rng(0).standard_normal((2, 4, 4, 1)).astype(np.float32)


def backbone():
    return keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(3, 2, name="last_conv")], name="backbone")


def test_a_map_of_a_convolution_inside_of_a_nested_model():
    """Grad-CAM where the network is a layer of another model: https://github.com/tensorflow/tensorflow/issues/44462"""
    x, inner, head = keras.Input((4, 4, 1)), backbone(), layers.Dense(2)
    model = keras.Model(x, head(layers.GlobalAveragePooling2D()(inner(x))))
    activation, gradient = gradients.activation_gradient(model, IMAGES, at="last_conv", output=np.array([1, 0]))
    of_class = head.kernel.numpy()[:, [1, 0]].T / 9  # nine positions are averaged
    zoo.assert_close([activation], [inner(IMAGES)])
    zoo.assert_close([gradient], [np.broadcast_to(of_class[:, None, None], (2, 3, 3, 3))])


def test_a_convolution_that_two_inputs_share_has_two_maps_and_is_refused():
    """Grad-CAM of one network that sees two images: https://github.com/keisen/tf-keras-vis/issues/48"""
    a, b, inner = keras.Input((4, 4, 1)), keras.Input((4, 4, 1)), backbone()
    model = keras.Model([a, b], layers.Dense(1)(layers.Flatten()(inner(a) * inner(b))))
    with pytest.raises(ValueError, match="last_conv"):
        gradients.activation_gradient(model, [IMAGES, IMAGES], at="last_conv")


def test_words_have_attributions_at_their_embedding():
    """Attributions of token ids, through the embedding: https://github.com/meta-pytorch/captum/issues/771"""
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), layers.Embedding(5, 2, name="tokens"), layers.Flatten(), layers.Dense(1)]
    )
    ids = np.array([[4, 4, 0], [1, 2, 3]])
    vectors, slopes = gradients.activation_gradient(model, ids, at="tokens")
    kernel = model.layers[-1].kernel.numpy().reshape(3, 2)
    np.testing.assert_allclose(slopes, [kernel, kernel], rtol=1e-6)
    attributions = np.sum(vectors * slopes, axis=(1, 2)) + float(model.layers[-1].bias[0])
    np.testing.assert_allclose(
        attributions, model(ids)[:, 0], rtol=1e-4, atol=1e-6
    )  # a linear model is explained whole
