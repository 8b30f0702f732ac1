"""Small models with three outputs a sample: some that rules by layer would be wrong for, and common architectures."""

import keras
import numpy as np
import tensorflow as tf

L = keras.layers


def stack(shape, *layers, dtype=None):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers, L.Flatten(), L.Dense(3, name="out")])


class TiedProjection(keras.Model):
    """The embedding table is also the output projection: its gradient has a part that no layer's closed form sees."""

    def __init__(self):
        super().__init__()
        self.table = L.Embedding(7, 4, name="table")
        self.mix = L.Dense(4, "tanh", name="mix")

    def call(self, ids):
        return tf.matmul(self.mix(tf.reduce_mean(self.table(ids), axis=1)), self.table.embeddings, transpose_b=True)[
            :, :3
        ]


class TimeFirst(keras.Model):
    """Puts time first, so that the first axis of what its layers get is not the batch."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = L.Dense(5, "tanh", name="hidden"), L.Dense(3, name="out")

    def call(self, x):
        return self.out(tf.reduce_sum(self.hidden(tf.transpose(x, [1, 0, 2])), axis=0))


class Merged(keras.Model):
    """Merges batch and time into one axis before a layer."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = L.Dense(5, "tanh", name="hidden"), L.Dense(3, name="out")

    def call(self, x):
        h = self.hidden(tf.reshape(x, [-1, x.shape[-1]]))
        return self.out(tf.reshape(h, [-1, x.shape[1] * 5]))


class DoubledDense(L.Dense):
    """Is a Dense, and computes something else."""

    def call(self, inputs, training=None):
        return 2.0 * super().call(inputs) + tf.reduce_sum(self.kernel)


class EarlyScale(keras.Model):
    """A free variable before all layers, and one after them."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = L.Dense(5, "tanh", name="hidden"), L.Dense(3, name="out")
        self.scale = self.add_weight(shape=(4,), initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(3,), initializer="zeros", name="shift")

    def call(self, x):
        return self.out(self.hidden(x * self.scale)) * tf.exp(self.shift)


class InsideFunction(keras.Model):
    """Calls one layer from a compiled function, and one in a branch: neither can be recorded."""

    def __init__(self):
        super().__init__()
        self.first, self.second = L.Dense(4, "tanh", name="first"), L.Dense(4, "tanh", name="second")
        self.out = L.Dense(3, name="out")
        for layer in (self.first, self.second, self.out):  # not inside the function, where Keras would not see it
            layer.build((None, 4))
        self.compiled = tf.function(lambda x: self.first(x), autograph=False)

    def call(self, x):
        h = self.compiled(x)
        return self.out(tf.cond(tf.reduce_sum(x) > -1e9, lambda: self.second(h), lambda: 2.0 * h))


def built(model, shape):
    model(np.zeros((2, *shape), np.float32))
    return model


def attention(**options):
    x = keras.Input((4, 6))
    h = L.MultiHeadAttention(2, 3, **options, name="attention")(x, x, use_causal_mask=True)
    return keras.Model(x, L.Dense(3, name="out")(L.Flatten()(h)))


def cross_attention():
    x = keras.Input((4, 6))
    keys = L.Dense(5, name="keys")(x)[:, :3]
    h = L.MultiHeadAttention(2, 3, value_dim=4, name="attention")(x, keys)
    return keras.Model(x, L.Dense(3, name="out")(L.Flatten()(h)))


def transformer():
    x = keras.Input((4, 6))
    h = L.LayerNormalization()(x + L.MultiHeadAttention(2, 3)(x, x))
    h = L.LayerNormalization()(h + L.Dense(6)(L.Dense(8, "gelu")(h)))
    return keras.Model(x, L.Dense(3, name="out")(h[:, 0]))


def siamese():
    a, b = keras.Input((4,)), keras.Input((4,))
    tower = keras.Sequential([keras.Input((4,)), L.Dense(5, "tanh"), L.Dense(4)], name="tower")
    return keras.Model([a, b], L.Dense(3, name="out")(tower(a) * tower(b)))


def dueling():
    x = keras.Input((4,))
    h = L.Dense(6, "tanh")(x)
    advantage = L.Dense(3)(h)
    return keras.Model(x, L.Dense(1)(h) + advantage - keras.ops.mean(advantage, axis=-1, keepdims=True))


def shared_three_times():
    x = keras.Input((4,))
    twice = L.Dense(4, "tanh", name="shared")
    return keras.Model(x, L.Dense(3, name="out")(twice(twice(twice(x)))))


def shared_over_time_and_space():
    x = keras.Input((5, 4))
    layer = L.Dense(4, "tanh", name="shared")
    return keras.Model(x, L.Dense(3, name="out")(L.Flatten()(layer(layer(x)[:, :3]))))


def small_resnet():
    x = keras.Input((8, 8, 2))
    h = L.Conv2D(4, 3, padding="same")(x)
    for _ in range(2):
        inner = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=False)(L.ReLU()(h)))
        h = L.Add()([h, L.Conv2D(4, 3, padding="same")(L.ReLU()(inner))])
    return keras.Model(x, L.Dense(3, name="out")(L.GlobalAveragePooling2D()(h)))


def frozen():
    model = stack((4,), L.Dense(5, "tanh", name="frozen"), L.Dense(4, "tanh"))
    model.layers[0].trainable = False
    return model


def lora():
    model = stack((4,), L.Dense(5, "tanh", name="lora"), L.Dense(4, "tanh"))
    model.layers[0].enable_lora(2)
    return model


def remat():
    with keras.RematScope(mode="full"):
        layer = L.Conv1D(3, 2, activation="tanh", name="remat")
    return stack((4, 2), L.Dense(3, "tanh"), layer)


def same_names():
    inner = lambda name: keras.Sequential([keras.Input((4,)), L.Dense(4, "tanh", name="d")], name=name)
    a, b = inner("a"), inner("b")
    a.layers[0].kernel._path = b.layers[0].kernel._path
    x = keras.Input((4,))
    return keras.Model(x, L.Dense(3, name="out")(a(x) * b(x)))


def masked():
    return stack((4, 3), L.Masking(0.0), L.LSTM(3, unroll=True))


def conv2d(size, kernel, **options):
    return (size, size, 4), lambda: stack((size, size, 4), L.Conv2D(4, kernel, activation="tanh", **options))
