"""What configs of Keras objects may name: everything that Keras has, but for what holds code or reads files."""

import json

import keras
import pytest

from rlgrad.core import keras_configs
from rlgrad.updates import Ascent


def test_every_layer_of_keras_is_decided_about():
    """A new layer of Keras that holds code or reads files must be added to those refused: look at its `from_config`."""
    homes = {
        name: thing.__module__
        for name in dir(keras.layers)
        if isinstance(thing := getattr(keras.layers, name), type) and issubclass(thing, keras.layers.Layer)
    }
    ordinary = ("activations", "attention", "convolutional", "merging", "normalization", "pooling", "regularization")
    ordinary += ("reshaping", "rnn", "core", "layer", "preprocessing")
    unknown = {
        name for name, home in homes.items() if not home.startswith(tuple(f"keras.src.layers.{o}" for o in ordinary))
    }
    assert unknown <= keras_configs.REFUSED
    reading = {name for name, home in homes.items() if home.endswith(("lookup", "text_vectorization", "lambda_layer"))}
    assert reading <= keras_configs.REFUSED


def some_models():
    x = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.Orthogonal(2.0), kernel_regularizer="l2")(x)
    y = keras.layers.Flatten()(keras.layers.BatchNormalization()(y + 1.0))
    yield keras.Model(x, {"policy": keras.layers.Dense(2, activation=keras.activations.gelu)(keras.ops.tanh(y))})
    yield keras.Sequential([keras.Input((5, 4)), keras.layers.GRU(3), keras.layers.Dense(2, dtype="mixed_float16")])
    heads = keras.Input((6, 4))
    yield keras.Model(heads, keras.layers.MultiHeadAttention(2, 3)(heads, heads))


@pytest.mark.parametrize("model", some_models(), ids=["convolutions", "memory", "attention"])
def test_models_of_keras_pass(model):
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, 10)), "mse", metrics=["mae"])
    keras_configs.require_plain(json.loads(model.to_json()))


def test_a_class_that_the_process_has_registered_passes(monkeypatch):
    class Mine(keras.layers.Dense):
        pass

    model = keras.Sequential([keras.Input((3,)), Mine(2)])
    content = json.loads(model.to_json())
    with pytest.raises(ValueError, match=r"Mine, which is neither a building block of Keras nor registered"):
        keras_configs.require_plain(content)
    with keras.saving.custom_object_scope({"Custom>Mine": Mine, "Mine": Mine}):
        keras_configs.require_plain(content)


def test_an_optimizer_is_written_by_hand_without_its_module():
    written = {"class_name": "RMSprop", "config": {"learning_rate": 0.002, "rho": 0.9}}
    assert isinstance(Ascent(optimizer=written, learning_rate=None).optimizer, keras.optimizers.RMSprop)
    with pytest.raises(ValueError, match="no optimizer that Keras can make"):
        Ascent(optimizer=written | {"class_name": "Lambda"}, learning_rate=None)


def test_weights_are_refused_before_they_are_made():
    with keras_configs.weights_within(4 * 100):
        keras.Sequential([keras.Input((9,)), keras.layers.Dense(10)])
    with (
        keras_configs.weights_within(4 * 99),
        pytest.raises(ValueError, match=r"weights need more than .* of layer 'large'"),
    ):
        keras.Sequential([keras.Input((9,)), keras.layers.Dense(10, name="large")])
    keras.Sequential([keras.Input((9,)), keras.layers.Dense(1000)])
