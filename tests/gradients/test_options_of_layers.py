"""Every option of a layer that changes what it computes, against a tape on one sample at a time.

A closed form computes by itself what Keras computes: with each option it must do the same, or leave the layer to another route.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rlgrad.gradients import Output, jacobian, linearize, per_sample_gradient, plan
from rlgrad.gradients.programs.factorization import factorize
from rlgrad.gradients.questions.ask import ask

layers = keras.layers


def by_tape(model, x, variables):
    """(N, P), one sample at a time."""
    rows = []
    for n in range(len(tf.nest.flatten(x)[0])):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(model(tf.nest.map_structure(lambda a, n=n: tf.convert_to_tensor(a[n : n + 1]), x)))
        gradients = tape.gradient(y, [v.value for v in variables])
        rows.append(np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in gradients]))
    return np.stack(rows).astype(np.float64)


def _joined(arrays, batch_axes):
    return np.concatenate([np.reshape(a, [*np.shape(a)[:batch_axes], -1]) for a in arrays], axis=-1)


class Attention(layers.Layer):
    """Self-attention, of which the query's, key's and value's products are closed forms."""

    def __init__(self, attention, **options):
        super().__init__()
        self.attention, self.options = attention, options

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x):
        return self.attention(x, x, **self.options)


def check(layer, shape, dtype="float32", x=None, closed=True, after=(), tolerance=2e-5):
    """Compare everything that is made of a layer's factors with the tape; the layer is the first of a small model."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape, dtype=dtype)
    tensor = layer(inputs)
    for each in after:
        tensor = each(tensor)
    model = keras.Model(inputs, layers.Lambda(lambda y: keras.ops.sin(keras.ops.cast(y, "float32")))(tensor))
    for variable in model.trainable_variables:
        variable.assign(variable.value + 0.3 * rng.standard_normal(variable.shape))
    x = rng.standard_normal((3, *(4 if size is None else size for size in shape))).astype(dtype) if x is None else x
    factorization = factorize(ask(model, x, outputs=Output.of(None)))
    assert bool(factorization.free) != closed
    factors = list(factorization.factors.values())
    wanted = by_tape(model, x, [model.trainable_variables[i] for i in factorization.factors])
    scale = np.abs(wanted).max()
    same = {"rtol": tolerance, "atol": tolerance * scale}
    np.testing.assert_allclose(_joined([f.per_sample() for f in factors], 1), wanted, **same)
    np.testing.assert_allclose(np.sqrt(sum(f.squared_norm() for f in factors)), np.linalg.norm(wanted, axis=1), **same)
    square = {"rtol": tolerance, "atol": tolerance * scale**2 * wanted.shape[1]}
    np.testing.assert_allclose(sum(f.gram(f) for f in factors), wanted @ wanted.T, **square)
    c = np.array([0.5, -2.0, 3.0], np.float32)
    np.testing.assert_allclose(_joined([f.vjp(c) for f in factors], 0), c @ wanted, **square)
    np.testing.assert_allclose(_joined([f.sum_of_squares(c) for f in factors], 0), c @ wanted**2, **square)
    v = [rng.standard_normal(f.shape).astype(np.float32) for f in factors]
    moved = sum(f.jvp(part) for f, part in zip(factors, v, strict=True))
    np.testing.assert_allclose(moved, wanted @ _joined(v, 0), **square)
    return model, x


CONVOLUTIONS = {
    "causal, dilated": (layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (7, 2)),
    "causal, strided": (layers.Conv1D(4, 3, padding="causal", strides=2), (7, 2)),
    "1d, channels first": (layers.Conv1D(5, 3, padding="same", data_format="channels_first", strides=2), (2, 7)),
    "1d, same, stride over kernel": (layers.Conv1D(3, 2, padding="same", strides=3), (8, 2)),
    "1d, groups": (layers.Conv1D(4, 3, groups=2), (6, 4)),
    "2d, channels first": (layers.Conv2D(5, (2, 3), data_format="channels_first"), (2, 5, 6)),
    "2d, uneven strides, same": (layers.Conv2D(3, (3, 2), strides=(2, 3), padding="same"), (6, 7, 2)),
    "2d, dilated, same": (layers.Conv2D(3, (3, 2), dilation_rate=(2, 1), padding="same"), (6, 7, 2)),
    "2d, groups, strided, no bias": (layers.Conv2D(6, 3, groups=3, strides=2, use_bias=False), (7, 7, 3)),
    "2d, 1 by 1, strided": (layers.Conv2D(3, 1, strides=2, activation="tanh"), (5, 5, 2)),
    "2d, upper case": (layers.Conv2D(3, 2, padding="SAME"), (4, 4, 2)),
    "3d, strided, same": (layers.Conv3D(2, 2, strides=(1, 2, 2), padding="same"), (3, 4, 5, 2)),
    "3d, dilated": (layers.Conv3D(2, 2, dilation_rate=(1, 2, 1)), (3, 4, 4, 2)),
    "depthwise, multiplier": (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (5, 4, 3)),
    "depthwise, strides and dilation": (layers.DepthwiseConv2D(2, strides=2, dilation_rate=2), (7, 7, 2)),
    "depthwise, same, both": (layers.DepthwiseConv2D(2, strides=2, dilation_rate=2, padding="same"), (7, 7, 2)),
    "depthwise 1d, same, both": (layers.DepthwiseConv1D(2, strides=2, dilation_rate=2, padding="same"), (7, 2)),
    "depthwise, channels first": (
        layers.DepthwiseConv2D(2, depth_multiplier=2, data_format="channels_first"),
        (3, 4, 5),
    ),
    "depthwise 1d, strided, same": (layers.DepthwiseConv1D(3, strides=2, padding="same"), (7, 2)),
    "separable, same": (layers.SeparableConv2D(3, 2, padding="same", depth_multiplier=2, strides=2), (5, 5, 2)),
    "separable, dilated": (layers.SeparableConv2D(3, 2, dilation_rate=2), (5, 5, 2)),
    "separable, both": (layers.SeparableConv2D(3, 2, dilation_rate=2, strides=2, padding="same"), (6, 6, 2)),
    "separable 1d, channels first": (layers.SeparableConv1D(3, 2, data_format="channels_first"), (2, 6)),
    "transposed, valid, gaps": (layers.Conv1DTranspose(3, 2, strides=3), (4, 2)),
    "transposed, output padding": (layers.Conv1DTranspose(3, 3, strides=3, output_padding=1), (4, 2)),
    "transposed, same, output padding": (
        layers.Conv2DTranspose(2, 3, strides=2, padding="same", output_padding=1),
        (3, 4, 2),
    ),
    "transposed, same, no padding": (
        layers.Conv2DTranspose(2, 3, strides=2, padding="same", output_padding=0),
        (3, 4, 2),
    ),
    "transposed, dilated": (layers.Conv2DTranspose(2, 2, dilation_rate=2), (3, 4, 2)),
    "transposed, dilated, same": (layers.Conv1DTranspose(2, 3, dilation_rate=2, padding="same"), (5, 2)),
    "transposed, channels first": (layers.Conv2DTranspose(2, 3, strides=2, data_format="channels_first"), (2, 3, 4)),
    "transposed 3d": (layers.Conv3DTranspose(2, 2, strides=2, padding="same"), (2, 3, 2, 2)),
}


NORMALIZATIONS = {
    "layer, last two": (layers.LayerNormalization(axis=(1, 2)), (3, 4)),
    "layer, last two, from the end": (layers.LayerNormalization(axis=(-1, -2)), (3, 4)),
    "layer, not the last": (layers.LayerNormalization(axis=1), (3, 4)),
    "layer, two with one between": (layers.LayerNormalization(axis=(1, 3)), (3, 4, 2)),
    "layer, mixed signs": (layers.LayerNormalization(axis=(1, -1)), (3, 4, 3)),
    "layer, no center": (layers.LayerNormalization(center=False), (3, 4)),
    "layer, no scale": (layers.LayerNormalization(scale=False), (3, 4)),
    "rms": (layers.RMSNormalization(), (3, 4)),
    "rms, axes": (layers.RMSNormalization(axis=(2, 1)), (3, 4)),
    "group": (layers.GroupNormalization(2), (3, 4)),
    "group, instance": (layers.GroupNormalization(-1), (3, 4)),
    "group, one": (layers.GroupNormalization(1), (3, 3, 4)),
    "group, axis 1": (layers.GroupNormalization(2, axis=1), (4, 3, 2)),
    "group, axis -2": (layers.GroupNormalization(2, axis=-2), (3, 4, 2)),
    "batch": (layers.BatchNormalization(), (3, 4)),
    "batch, axis 1": (layers.BatchNormalization(axis=1), (4, 3, 2)),
    "batch, no scale": (layers.BatchNormalization(scale=False, axis=-2), (4, 3, 2)),
    "batch, renorm": (layers.BatchNormalization(renorm=True), (4,)),
    "prelu": (layers.PReLU(), (3, 4)),
    "prelu, shared": (layers.PReLU(shared_axes=[1]), (3, 4)),
    "prelu, shared, of three": (layers.PReLU(shared_axes=[1, 3]), (3, 4, 2)),
    "prelu, shared from the end": (layers.PReLU(shared_axes=[1, 2]), (3, 4, 2)),
}
DENSE = {
    "dense, no bias": (layers.Dense(3, use_bias=False, activation="softmax"), (4,)),
    "dense, rank 4": (layers.Dense(3, activation="gelu"), (2, 3, 4)),
    "dense, of one number": (layers.Dense(1), (1,)),
    "dense, constrained": (
        layers.Dense(3, kernel_constraint="non_neg", kernel_regularizer="l2", activity_regularizer="l2"),
        (4,),
    ),
    "dense, open sizes": (layers.Dense(3), (None, 4)),
    "einsum": (layers.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d"), (3, 4)),
    "einsum, several": (layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de"), (3, 4)),
    "einsum, two summed": (layers.EinsumDense("abcd,cde->abe", output_shape=(None, 3), bias_axes="e"), (2, 3, 4)),
    "einsum, summed in reverse": (layers.EinsumDense("abcd,dce->abe", output_shape=(None, 3)), (2, 3, 4)),
    "einsum, turned": (layers.EinsumDense("abc,dc->adb", output_shape=(5, 3)), (3, 4)),
    "einsum, ellipsis": (layers.EinsumDense("...x,xy->...y", output_shape=(5,), bias_axes="y"), (3, 4)),
    "einsum, groups": (layers.EinsumDense("abc,bcd->abd", output_shape=(3, 5), bias_axes="bd"), (3, 4)),
    "einsum, bias of a position": (layers.EinsumDense("abc,cd->abd", output_shape=(3, 5), bias_axes="b"), (3, 4)),
    "einsum, bias of both, in reverse": (
        layers.EinsumDense("abc,cd->abd", output_shape=(3, 5), bias_axes="db"),
        (3, 4),
    ),
    "einsum, activation": (
        layers.EinsumDense("ab,bc->ac", output_shape=(3,), activation="softmax", bias_axes="c"),
        (4,),
    ),
    "multi-head attention": (Attention(layers.MultiHeadAttention(2, 3)), (4, 5)),
    "multi-head attention, causal": (Attention(layers.MultiHeadAttention(2, 3), use_causal_mask=True), (4, 5)),
    "multi-head attention, value_dim, output_shape": (
        Attention(layers.MultiHeadAttention(2, 3, value_dim=2, output_shape=3)),
        (4, 5),
    ),
    "multi-head attention, axes": (
        Attention(layers.MultiHeadAttention(2, 3, attention_axes=(2,), use_bias=False)),
        (3, 4, 5),
    ),
    "multi-head attention, gated": (Attention(layers.MultiHeadAttention(2, 3, use_gate=True)), (4, 5)),
    "grouped-query attention": (Attention(layers.GroupQueryAttention(2, 4, 2)), (4, 5)),
}
RECURRENT = {
    "simple": (layers.SimpleRNN(3, unroll=True), (2, 2)),
    "simple, no bias, linear, backwards": (
        layers.SimpleRNN(3, unroll=True, use_bias=False, activation=None, go_backwards=True),
        (4, 2),
    ),
    "lstm, sequences": (layers.LSTM(3, unroll=True, return_sequences=True), (2, 2)),
    "lstm, no forget bias, linear": (
        layers.LSTM(2, unroll=True, unit_forget_bias=False, activation=None, recurrent_activation=None),
        (3, 2),
    ),
    "lstm, hard": (layers.LSTM(2, unroll=True, recurrent_activation="hard_sigmoid", use_bias=False), (2, 2)),
    "lstm, cell of implementation 1": (layers.RNN(layers.LSTMCell(2, implementation=1), unroll=True), (2, 2)),
    "gru": (layers.GRU(3, unroll=True), (2, 2)),
    "gru, reset before": (layers.GRU(3, unroll=True, reset_after=False), (2, 2)),
    "gru, reset before, no bias": (
        layers.GRU(3, unroll=True, reset_after=False, use_bias=False, go_backwards=True),
        (4, 2),
    ),
    "gru, no bias": (layers.GRU(3, unroll=True, use_bias=False, activation="relu"), (2, 2)),
    "bidirectional": (layers.Bidirectional(layers.GRU(2, unroll=True), merge_mode="mul"), (2, 2)),
    "zero output for mask": (layers.LSTM(2, unroll=True, return_sequences=True, zero_output_for_mask=True), (2, 2)),
}

SAME_SIZES = {
    "einsum": (layers.EinsumDense("abc,cd->abd", output_shape=(4, 4), bias_axes="b"), (4, 3)),
    "einsum, turned": (layers.EinsumDense("abc,cd->adb", output_shape=(4, 4), bias_axes="d"), (4, 3)),
    "einsum, axis 2": (layers.EinsumDense("abxc,cd->abxd", output_shape=(4, 4, 5), bias_axes="x"), (4, 4, 3)),
}


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *NORMALIZATIONS, *DENSE, *RECURRENT])
def test_an_option_has_a_closed_form(name):
    check(*{**CONVOLUTIONS, **NORMALIZATIONS, **DENSE, **RECURRENT}[name])


@pytest.mark.parametrize("name", SAME_SIZES)
def test_a_bias_that_keras_adds_along_another_axis_takes_another_route(name):
    check(*SAME_SIZES[name], closed=False)


def test_so_does_that_of_a_convolution_with_channels_first():
    model = keras.Sequential([keras.Input((2, 7)), layers.Conv1D(7, 3, padding="same", data_format="channels_first")])
    (row,) = plan(model, np.ones((2, 2, 7), np.float32)).rows
    assert "another axis" in row.reason


IDS = {
    "negative": [[1, 2, -1, -1], [3, 3, 0, -2], [6, -7, -1, 6]],
    "int64": np.array([[1, 2, -1, -1], [3, 3, 0, -2], [6, -7, -1, 6]], np.int64),
    "uint8": np.array([[1, 2, 6, 6], [3, 3, 0, 5], [6, 0, 6, 6]], np.uint8),
    "float": np.array([[1.9, 2.0, -1.5, -0.5], [3.0, 3.0, 0.0, -2.0], [6.0, -7.0, -1.0, 6.9]], np.float32),
}


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("width", [3, 40])
def test_ids_of_an_embedding_mean_what_they_mean_to_keras(kind, width):
    ids = np.asarray(IDS[kind])
    x = ids if kind != "negative" else ids.astype(np.int32)
    check(layers.Embedding(7, width, mask_zero=True), (4,), dtype=x.dtype.name, x=x)


def test_ids_by_every_method():
    model, x = check(layers.Embedding(7, 3), (4,), dtype="int32", x=np.array(IDS["negative"], np.int32))
    (wanted,) = (g.numpy() for g in per_sample_gradient(model, x, method="loop").values())
    for method in ("factors", "vmap"):
        np.testing.assert_allclose(next(iter(per_sample_gradient(model, x, method=method).values())), wanted, rtol=1e-5)
    np.testing.assert_allclose(
        tf.reduce_sum(next(iter(jacobian(model, x).values())), axis=[1, 2]), wanted, rtol=1e-4, atol=1e-5
    )


@pytest.mark.xla
def test_ids_that_do_not_exist_count_as_they_do_for_tensorflow():
    # On a CPU they are an error; XLA goes on, and the gradient of a gather leaves them out.
    model = keras.Sequential([keras.Input((2,), dtype="int32"), layers.Embedding(4, 3), layers.Activation("tanh")])
    x = tf.constant([[9, 1], [-9, -1]])
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        per_sample_gradient(model, x)

    @tf.function(jit_compile=True, autograph=False)
    def compiled(x):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(model(x), axis=[1, 2])
        table = model.layers[0].embeddings.value
        lin = linearize(model, x)
        return (
            tf.convert_to_tensor(tape.gradient(y, table)),
            lin.per_sample(),
            lin.norm(),
            lin.gram(),
            lin.jvp(lin.vjp()),
        )

    whole, rows, norm, gram, moved = compiled(x)
    (rows,) = rows.values()
    np.testing.assert_allclose(tf.reduce_sum(rows, axis=0), whole, rtol=1e-5, atol=1e-6)
    flat = np.reshape(rows, [2, -1])
    np.testing.assert_allclose(norm, np.linalg.norm(flat, axis=1), rtol=1e-5)
    np.testing.assert_allclose(gram, flat @ flat.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moved, flat @ flat.sum(0), rtol=1e-5, atol=1e-6)


def test_masked_steps_of_an_unrolled_layer():
    for memory in (layers.LSTM(3, unroll=True), layers.GRU(3, unroll=True, go_backwards=True)):
        ids = np.array([[1, 2, 0, 0], [3, 0, 2, 1], [0, 0, 0, 5]], np.int32)
        check(layers.Embedding(7, 3, mask_zero=True), (4,), dtype="int32", x=ids, after=[memory])
