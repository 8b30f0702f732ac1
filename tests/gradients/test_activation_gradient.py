"""The gradient with respect to what a hidden layer returns, against plain tapes that are handed the layer's output."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import small_models, zoo

from rlgrad.gradients import DisconnectedGradientError, activation_gradient, input_gradient
from rlgrad.gradients.programs.program import programs_of

layers = keras.layers
C = np.array([0.5, -2.0, 1.0, 3.0])


def by_tape(model, layer, x, unit):
    """What a layer of a functional model returns, and c_n ∂y_unit: one sample after the other."""
    both = keras.Model(model.inputs, [layer.output, model.outputs[0]])
    activations, gradients = [], []
    for n in range(4):
        with tf.GradientTape() as tape:
            row = tf.nest.map_structure(tf.constant, zoo.row(x, n))
            tape.watch(row)
            a, y = both(tf.nest.flatten(row) if len(both.inputs) > 1 else row, training=False)
            f = C[n] * y[0, unit]
        activations.append(a[0])
        gradients.append(tape.gradient(f, a)[0])
    return np.stack(activations), np.stack(gradients)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("functional", "first"),
        ("convolution", "conv"),
        ("embedding", "table"),
        ("recurrent", 0),
        ("two_inputs", "merge"),
        ("batch_norm", 2),
        ("layer_norm", 1),
    ],
)
def test_of_a_layer_of_the_model_it_is_what_a_tape_gives_for_each_sample(name, at):
    model, x = zoo.make(name), zoo.inputs_for(name)
    layer = model.layers[at] if isinstance(at, int) else model.get_layer(at)
    a, g = activation_gradient(model, x, at=at, output=1, sample_weight=C)
    zoo.assert_close([a, g], by_tape(model, layer, x, 1))


def test_layers_inside_nested_and_subclassed_models():
    model, x = zoo.make("nested"), zoo.inputs_for("nested")
    inner, out = model.get_layer("inner"), model.get_layer("out").kernel.numpy()
    a, g = activation_gradient(model, x, at="inner", output=2)
    zoo.assert_close([a, g], [inner(x), np.tile(out[:, 2], (4, 1))])
    a, g = activation_gradient(model, x, at="d", output=2, sample_weight=C)
    d, e = inner.layers
    zoo.assert_close([a, g], [d(x), C[:, None] * (e.kernel.numpy() @ out[:, 2])])
    model = zoo.make("subclassed")
    a, g = activation_gradient(model, x, at=model.hidden, output=0)
    kernel = model.readout.layer.kernel.numpy()[:, 0] * model.scale.numpy()[0]
    zoo.assert_close([a, g], [model.hidden(x), np.tile(kernel, (4, 1))])


def test_a_layer_that_returns_its_input_does_not_count_what_else_is_made_of_that():
    x = keras.Input((4,))
    h = layers.Dense(3, name="h")(x)
    model = zoo.randomized(keras.Model(x, layers.Add()([h, 2.0 * layers.Dropout(0.5, name="same")(h)])))
    _, g = activation_gradient(model, zoo.inputs_for("functional"), at="same", output=0)
    np.testing.assert_array_equal(g, np.tile([2.0, 0.0, 0.0], (4, 1)))


def test_the_mask_of_a_layers_output_goes_on_to_the_layers_after_it():
    ids = keras.Input((4,), dtype="int32")
    table = layers.Embedding(5, 3, mask_zero=True, name="table")(ids)
    h = layers.LSTM(2)(layers.Dropout(0.5, name="same")(table))
    model = zoo.randomized(keras.Model(ids, layers.Dense(3)(h)))
    x = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [1, 2, 3, 4], [4, 4, 0, 0]])
    for at in ("table", "same"):
        a, g = activation_gradient(model, x, at=at, output=1, sample_weight=C)
        zoo.assert_close([a, g], by_tape(model, model.get_layer(at), x, 1))
        assert not np.asarray(g)[x == 0].any()


def test_a_tree_of_outputs_and_the_output_of_a_layer_as_f():
    x = keras.Input((3, 2))
    _, h, c = layers.LSTM(2, return_state=True, return_sequences=True, name="lstm")(x)
    model = zoo.randomized(keras.Model(x, layers.Dense(3, name="out")(layers.Concatenate(name="both")([h, c]))))
    data = zoo.inputs_for("recurrent")
    with pytest.raises(DisconnectedGradientError, match=r"part \[0\] of what layer 'lstm'"):
        activation_gradient(model, data, at="lstm")
    a, g = activation_gradient(model, data, at="both", layer="both", output=3)
    np.testing.assert_array_equal(g, np.tile(np.eye(4)[3], (4, 1)))

    class Pair(layers.Layer):
        def call(self, x):
            return {"double": 2.0 * x, "triple": 3.0 * x}

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.pair, self.out = Pair(name="pair"), layers.Dense(1)

        def call(self, x):
            parts = self.pair(x)
            return self.out(parts["double"] * parts["triple"])

    model = small_models.built(Model(), (2,))
    data = zoo.normal(np.random.default_rng(0), 4, 2)
    a, g = activation_gradient(model, data, at="pair")
    kernel = model.out.kernel.numpy()[:, 0]
    zoo.assert_close([a["double"], g["double"], g["triple"]], [2 * data, 3 * data * kernel, 2 * data * kernel])


@pytest.mark.parametrize("jit", [False, True])
def test_in_the_callers_function_and_for_no_rows(jit):
    model, x = zoo.make("convolution"), zoo.inputs_for("convolution")
    expected = activation_gradient(model, x, at="conv", output=np.array([2, 0, 1, 1]))
    run = tf.function(
        lambda x, unit: activation_gradient(model, x, at="conv", output=unit), jit_compile=jit, autograph=False
    )
    zoo.assert_close(run(x, np.array([2, 0, 1, 1])), expected)
    a, g = activation_gradient(model, x[:0], at="conv", output=0)
    assert a.shape == g.shape == (0, *expected[0].shape[1:])


def test_one_program_serves_every_batch_size_and_each_layer_has_its_own():
    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    for rows in (4, 2, 3):
        assert activation_gradient(model, x[:rows], at="first")[1].shape == (rows, 6)
    assert len(programs_of(model)) == 1
    assert activation_gradient(model, x, at=model.get_layer("side"))[1].shape == (4, 2)
    assert activation_gradient(model, x, at="side")[1].shape == (4, 2)
    assert len(programs_of(model)) == 2


def test_refusals_name_the_layer():
    x = zoo.inputs_for("functional")
    with pytest.raises(ValueError, match="'twice' was called 2 times"):
        activation_gradient(zoo.make("shared"), x, at="twice")
    with pytest.raises(DisconnectedGradientError, match="does not depend on what layer 'out'"):
        activation_gradient(zoo.make("functional"), x, at="out", layer="first")
    with pytest.raises(ValueError, match=r"no layer 'frist'.*'first'"):
        activation_gradient(zoo.make("functional"), x, at="frist")
    with pytest.raises(NotImplementedError, match=r"^Layer 'second' runs inside a loop, a branch"):
        activation_gradient(small_models.built(small_models.InsideFunction(), (4,)), x, at="second", output=0)
    remat = small_models.remat()
    at = next(layer for layer in remat.layers if getattr(layer, "_remat_mode", None) is not None)
    with pytest.raises(NotImplementedError, match="is rematerialized"):
        activation_gradient(remat, np.zeros((2, *remat.input_shape[1:]), np.float32), at=at, output=0)

    class Rounds(layers.Layer):
        def call(self, x):
            return tf.cast(x, tf.int32)

    model = keras.Sequential([keras.Input((4,)), Rounds(name="rounds"), layers.Embedding(9, 2), layers.Flatten()])
    with pytest.raises(TypeError, match=r"^What layer 'rounds' returns has dtype int32"):
        activation_gradient(model, np.abs(x), at="rounds")


def test_a_layer_that_returns_the_models_input_has_the_inputs_gradient():
    model = keras.Sequential([keras.Input((4,)), layers.Identity(name="same"), *zoo.make("sequential").layers])
    x = zoo.inputs_for("sequential")
    _, g = activation_gradient(model, x, at="same", output=1)
    zoo.assert_close([g], [input_gradient(model, x, output=1)])
