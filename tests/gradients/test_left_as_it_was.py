"""A model whose call counts, draws, assigns and remembers is left as it was, and its gradient is that of one such call."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rlgrad import gradients
from rlgrad.core import snapshots

layers, ops = keras.layers, keras.ops
X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


class Counting(layers.Layer):
    """Change what it can while it runs."""

    def __init__(self):
        super().__init__()
        self.w = self.add_weight(shape=(4,), initializer="ones")
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.own = tf.Variable(0.0, trainable=False)
        self.seed = keras.random.SeedGenerator(7)
        self.statistics = layers.BatchNormalization()
        self.mean = keras.metrics.Mean()
        self.number, self.seen, self.last, self.by_name = 0, [], None, {}

    def call(self, x):
        self.count.assign_add(1.0)
        self.own.assign_add(1.0)
        self.mean.update_state(x)
        self.statistics(ops.stop_gradient(x), training=True)
        x = x + 0.1 * keras.random.normal((4,), seed=self.seed)
        self.number += 1
        self.seen.append(x)
        self.last = self.by_name["x"] = x
        self.new = x
        self.add_loss(ops.sum(x))
        return x * self.w * (1.0 + self.count) * (1.0 + self.own)


def counting():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), Counting(), layers.Dense(3, "tanh"), layers.Dense(1)])
    model(X)
    return model


def state(model):
    layer = model.layers[0]
    variables = [np.asarray(v).tolist() for v in (*model.variables, *layer.mean.variables, layer.own)]
    python = (layer.number, list(map(id, layer.seen)), id(layer.last), {k: id(v) for k, v in layer.by_name.items()})
    return variables, python, id(layer.new), list(map(id, model.losses))


def of_first(y):
    return y[:, 0]


CALLS = {
    "gradient": lambda m: gradients.gradient(m, X),
    "gradient, not compiled": lambda m: gradients.gradient(m, X, output=of_first),
    "input_gradient": lambda m: gradients.input_gradient(m, X),
    "linearize": lambda m: gradients.linearize(m, X).gradient(),
    "plan": lambda m: gradients.plan(m, X),
    "in a graph": lambda m: tf.function(lambda x: gradients.gradient(m, x), autograph=False)(tf.constant(X)),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_model_is_left_as_it_was(call):
    model = counting()
    before = state(model)
    CALLS[call](model)
    CALLS[call](model)
    assert state(model) == before


def test_the_gradient_is_that_of_one_call():
    model, other = counting(), counting()
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(other(X, training=False))
    expected = tape.gradient(y, [v.value for v in other.trainable_variables], unconnected_gradients="zero")
    by_path = dict(zip([v.path for v in model.trainable_variables], expected, strict=True))
    for _ in range(2):
        for path, gradient in gradients.gradient(model, X).items():
            np.testing.assert_allclose(gradient, by_path[path], rtol=1e-5, atol=1e-6)


def test_a_model_is_left_as_it_was_also_when_it_fails():
    model = counting()
    before = state(model)

    def fails(y):
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError):
        gradients.gradient(model, X, output=fails)
    assert state(model) == before


class Block(layers.Layer):
    """Build the layer inside of it at the first call only."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(5, "tanh", name="inner")

    def call(self, x):
        return self.inner(x)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 5)


LAZY = {
    "an activation that has weights": lambda: layers.Dense(5, activation=layers.PReLU(name="prelu")),
    "a block without build": Block,
    "a block in a block": lambda: keras.Sequential([Block(), layers.Dense(5, activation=layers.PReLU())]),
}


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("layer", LAZY)
def test_weights_that_come_into_being_with_the_first_run_are_in_the_first_answer(layer, in_graph):
    def fresh():
        return keras.Sequential([keras.Input((4,)), LAZY[layer](), layers.Dense(1, name="out")])

    model, run = fresh(), fresh()
    run(X)
    ask = lambda x: gradients.gradient(model, x)
    first = (tf.function(ask, autograph=False) if in_graph else ask)(tf.constant(X))
    assert len(first) == len(run.trainable_variables) == len(model.trainable_variables)
    model.set_weights(run.get_weights())
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(run(X))
    expected = tape.gradient(y, [v.value for v in run.trainable_variables])
    for got, tape_gradient in zip(ask(X).values(), expected, strict=True):
        np.testing.assert_allclose(got, tape_gradient, rtol=1e-4, atol=1e-5)


class Compiled(keras.Model):
    """A model whose methods are TensorFlow functions, with control flow that depends on numbers."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = layers.Dense(3, "tanh"), layers.Dense(1)

    @tf.function
    def encode(self, x):
        if tf.reduce_sum(x) > 1e6:
            x = 2.0 * x
        return self.hidden(x)

    @tf.function
    def call(self, x):
        return self.out(self.encode(x))


def test_a_call_that_is_a_tf_function_is_differentiated_in_every_context_and_at_other_weights():
    keras.utils.set_random_seed(1)
    model = Compiled()
    model(X)  # TensorFlow keeps a trace of this
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh"), layers.Dense(1)])
    plain.set_weights(model.get_weights())
    expected = list(gradients.per_sample_gradient(plain, X).values())
    ask = lambda x: list(gradients.per_sample_gradient(model, x).values())
    for run in (ask, tf.function(ask, autograph=False), tf.function(ask, autograph=False)):
        for got, want in zip(run(tf.constant(X)), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    lin = gradients.linearize(model, X)
    moved = lin.at({model.out.bias.path: model.out.bias.value + 1.0})
    np.testing.assert_allclose(moved.outputs - lin.outputs, np.ones(3), rtol=1e-5)
    assert len(moved.gradient()) == 4
    assert isinstance(type(model).call, tf.types.experimental.PolymorphicFunction)
    assert "call" not in vars(model)
    np.testing.assert_allclose(model(X)[:, 0], lin.outputs, rtol=1e-5)


def test_a_class_without_a_name_of_its_module_is_no_obstacle():
    class Compiled:
        pass

    Compiled.__module__ = property(lambda _: "extension")  # as in classes of compiled extensions

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.helper = layers.Dense(1), Compiled()

        def call(self, x):
            return self.dense(x) if self.helper else x

    model = Model()
    model(X)
    kernel, _ = gradients.gradient(model, X).values()
    np.testing.assert_allclose(kernel[:, 0], X.sum(0), rtol=1e-6)


def test_what_stands_in_for_the_calls_of_layers_is_no_change_of_the_model(monkeypatch):
    made = []
    own = snapshots.Snapshot.__init__
    monkeypatch.setattr(snapshots.Snapshot, "__init__", lambda self, model: (made.append(model), own(self, model))[1])
    model = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1)])
    x = np.random.default_rng(0).standard_normal((3, 6, 6, 1)).astype(np.float32)
    for function in (gradients.per_sample_gradient, gradients.per_sample_norm, gradients.gram):
        function(model, x)
    gradients.activation_gradient(model, x, at=model.layers[0])
    assert len(made) == 1
