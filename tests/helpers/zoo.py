"""Small models of every kind, and the slow way to their gradients: a plain tape, one sample at a time."""

import keras
import numpy as np
import tensorflow as tf

from rlgrad.distributions import Categorical

layers = keras.layers


def randomized(model, seed=0):
    """The model with every float variable, also biases and moving statistics, moved away from where it starts."""
    generator = np.random.default_rng(seed)
    for v in model.variables:
        if tf.as_dtype(v.dtype).is_floating:
            v.assign(np.asarray(v) + generator.uniform(0.1, 0.6, v.shape))
    return model


def sequential():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, "tanh", name="first"), layers.Dense(3, name="out")], name="plain"
    )


def functional():
    x = keras.Input((4,))
    h = layers.Dense(6, "softplus", name="first")(x)
    h = layers.Concatenate()([h, layers.Dense(2, name="side")(x)])
    return keras.Model(x, layers.Dense(3, name="out")(h))


def nested():
    x = keras.Input((4,))
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "tanh", name="d"), layers.Dense(4, name="e")], name="inner"
    )
    return keras.Model(x, layers.Dense(3, name="out")(inner(x)))


def shared():
    x = keras.Input((4,))
    twice = layers.Dense(4, "tanh", name="twice")
    return keras.Model(x, layers.Dense(3, name="out")(twice(twice(x))))


def convolution():
    return keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(3, 3, strides=2, padding="same", activation="tanh", name="conv"),
            layers.Flatten(),
            layers.Dense(3, name="out"),
        ]
    )


def depthwise():
    return keras.Sequential([keras.Input((5, 5, 2)), layers.DepthwiseConv2D(2), layers.Flatten(), layers.Dense(3)])


def convolution_3d():
    return keras.Sequential([keras.Input((3, 3, 3, 1)), layers.Conv3D(2, 2), layers.Flatten(), layers.Dense(3)])


def layer_norm():
    return keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.LayerNormalization(), layers.Dense(3)])


def embedding():
    return keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(7, 4, name="table"), layers.Flatten(), layers.Dense(3)]
    )


def batch_norm():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(6), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)]
    )


def recurrent():
    return keras.Sequential([keras.Input((3, 2)), layers.LSTM(3), layers.Dense(3)])


class Subclassed(keras.Model):
    """Weights of its own beside a layer, and a layer inside a layer."""

    def __init__(self):
        super().__init__(name="sub")
        self.hidden = layers.Dense(6, "tanh", name="hidden")
        self.readout = layers.TimeDistributed(layers.Dense(3, name="readout"), name="wrapped")
        self.scale = self.add_weight(shape=(3,), initializer="ones", name="scale")

    def call(self, x):
        return self.readout(self.hidden(x)[:, None])[:, 0] * self.scale


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 4), np.float32))
    return model


def two_inputs():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    h = layers.Dense(4, "tanh", name="merge")(layers.Concatenate()([a, b]))
    return keras.Model({"a": a, "b": b}, layers.Dense(3, name="out")(h))


def two_heads():
    x = keras.Input((4,))
    h = layers.Dense(5, "tanh", name="body")(x)
    return keras.Model(x, {"policy": layers.Dense(3, name="logits")(h), "value": layers.Dense(1, name="v")(h)})


class TimeMajorPolicy(keras.Model):
    """A model like rlgrad's own policies: any number of leading axes, a distribution, separate networks."""

    def __init__(self, distribution=None):
        super().__init__(name="policy_of_two")
        self.actor = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(3)], name="actor")
        self.critic = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(1)], name="critic")
        self.distribution = distribution or Categorical(3)
        self.built = True

    def call(self, x):
        leading = tf.shape(x)[:-1]
        flat = tf.reshape(x, (-1, 4))
        logits = tf.reshape(self.actor(flat), tf.concat([leading, [3]], axis=0))
        logits.set_shape([*x.shape[:-1], 3])
        value = tf.reshape(self.critic(flat), leading)
        value.set_shape(x.shape[:-1])
        return {"policy": logits, "value": value}


ONE_OUTPUT = {
    f.__name__: f
    for f in (sequential, functional, nested, shared, convolution, layer_norm, embedding, batch_norm, recurrent)
} | {f.__name__: f for f in (subclassed, two_inputs, depthwise, convolution_3d)}


def make(name, seed=0):
    return randomized(ONE_OUTPUT[name](), seed)


def inputs_for(name, rows=4, seed=1):
    generator = np.random.default_rng(seed)
    if name == "embedding":
        return generator.integers(0, 7, (rows, 5))
    if name == "two_inputs":
        return {"a": normal(generator, rows, 2), "b": normal(generator, rows, 3)}
    shapes = {"convolution": (5, 5, 2), "depthwise": (5, 5, 2), "convolution_3d": (3, 3, 3, 1), "recurrent": (3, 2)}
    return normal(generator, rows, *shapes.get(name, (4,)))


def normal(generator, *shape):
    return generator.standard_normal(shape).astype(np.float32)


def row(x, n):
    return tf.nest.map_structure(lambda leaf: leaf[n : n + 1], x)


def one_by_one(model, x, f, rows, variables=None):
    """[(N, *variable.shape)]: the gradient of the scalar f(y, n) for each sample n, with y the output of that sample."""
    variables = [v.value for v in (model.trainable_variables if variables is None else variables)]
    gradients = []
    for n in range(rows):
        with tf.GradientTape() as tape:
            tape.watch(variables)
            value = f(model(row(x, n), training=False), n)
        gradients.append([tf.convert_to_tensor(g).numpy() for g in tape.gradient(value, variables)])
    return [np.stack(parts) for parts in zip(*gradients, strict=True)]


def assert_close(got, expected, rtol=1e-4, atol=1e-5):
    """Lists of arrays agree, with the absolute tolerance scaled by the largest number."""
    got, expected = [np.asarray(g) for g in got], [np.asarray(e) for e in expected]
    assert len(got) == len(expected)
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape
        np.testing.assert_allclose(g, e, rtol=rtol, atol=atol * max(1.0, float(np.abs(e).max(initial=0.0))))
