"""The gradient of a Keras model's output with respect to its weights, element by element, as the question asked for it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad import gradients


@pytest.fixture(scope="module")
def model():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(12, "relu", name="first"),
            keras.layers.Dense(8, "relu", name="second"),
            keras.layers.Dense(1, "sigmoid", name="out"),
        ]
    )


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random((1, 8))


@pytest.fixture(scope="module")
def by_hand(model, x):
    """σ(W3ᵀ relu(W2ᵀ relu(W1ᵀ x + b1) + b2) + b3), differentiated with pencil and paper; also at the second layer."""
    w1, b1, w2, b2, w3, b3 = (np.asarray(v, np.float64) for v in model.trainable_variables)
    z1 = x[0] @ w1 + b1
    h1 = np.maximum(z1, 0)
    z2 = h1 @ w2 + b2
    h2 = np.maximum(z2, 0)
    y = 1 / (1 + np.exp(-(h2 @ w3 + b3)))

    def below(d2):
        d1 = (w2 @ d2) * (z1 > 0)
        return [np.outer(x[0], d1), d1, np.outer(h1, d2), d2], w1 @ d1

    d3 = y * (1 - y)
    lower, to_input = below((w3 @ d3) * (z2 > 0))
    second, _ = below(1.0 * (z2 > 0))
    return {"all": [*lower, np.outer(h2, d3), d3], "second": second, "input": to_input}


def test_gradient_is_the_list_that_k_gradients_returned(model, x, by_hand):
    g = gradients.gradient(model, x)
    assert list(g) == [
        f"{model.name}/{layer}/{name}" for layer in ("first", "second", "out") for name in ("kernel", "bias")
    ]
    zoo.assert_close(list(g.values()), by_hand["all"])
    assert all(isinstance(np.asarray(value), np.ndarray) and tf.is_tensor(value) for value in g.values())


def test_by_layer_answers_for_each_layer(model, x):
    layers = gradients.by_layer(gradients.gradient(model, x))
    shapes = {name: {k: tuple(v.shape) for k, v in values.items()} for name, values in layers.items()}
    assert shapes == {
        "first": {"kernel": (8, 12), "bias": (12,)},
        "second": {"kernel": (12, 8), "bias": (8,)},
        "out": {"kernel": (8, 1), "bias": (1,)},
    }


@pytest.mark.parametrize("which", ["second", 1])
def test_a_layers_own_output_can_be_differentiated(model, x, by_hand, which):
    zoo.assert_close(gradients.gradient(model, x, layer=which).values(), by_hand["second"])


@pytest.mark.parametrize("which", ["first", 0, "first/kernel", "list"])
def test_one_layers_weights_can_be_chosen(model, x, by_hand, which):
    chosen = gradients.gradient(model, x, weights=model.layers[0].trainable_variables if which == "list" else which)
    expected = by_hand["all"][:1] if which == "first/kernel" else by_hand["all"][:2]
    zoo.assert_close(chosen.values(), expected)


def test_per_sample_jacobian_and_input_gradient(model, x, by_hand):
    zoo.assert_close(gradients.per_sample_gradient(model, x).values(), [e[None] for e in by_hand["all"]])
    zoo.assert_close(gradients.jacobian(model, x).values(), [e[None, None] for e in by_hand["all"]])
    zoo.assert_close([gradients.input_gradient(model, x)], [by_hand["input"][None]])
