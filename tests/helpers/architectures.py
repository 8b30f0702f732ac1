"""The architecture matrix: every kind of layer and model that per-sample gradients must be right for, kept small.

Each entry makes a model with three outputs per sample and says the shape of its input: float, or ids below 7 where the
entry's name begins with `embedding`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import zoo
from helpers.small_models import (
    DoubledDense,
    EarlyScale,
    InsideFunction,
    Merged,
    TiedProjection,
    TimeFirst,
    attention,
    built,
    conv2d,
    cross_attention,
    dueling,
    frozen,
    lora,
    masked,
    remat,
    same_names,
    shared_over_time_and_space,
    shared_three_times,
    siamese,
    small_resnet,
    stack,
    transformer,
)

L = keras.layers


# name: (shape of one input, model)
MATRIX = {
    "dense_3d": ((5, 4), lambda: stack((5, 4), L.Dense(6, "tanh"))),
    "dense_4d": ((2, 3, 4), lambda: stack((2, 3, 4), L.Dense(6, "gelu"), L.Dense(2, use_bias=False))),
    "dense_5d": ((2, 3, 2, 4), lambda: stack((2, 3, 2, 4), L.Dense(6, "softmax"))),
    "dense_wide_3d": ((2, 40), lambda: stack((2, 40), L.Dense(40, "tanh"))),
    "dense_activations": (
        (4,),
        lambda: stack(
            (4,), L.Dense(6, "softmax"), L.Dense(5, "leaky_relu"), L.Dense(5, L.LeakyReLU()), L.Activation("elu")
        ),
    ),
    "conv1d_causal_dilated": (
        (9, 2),
        lambda: stack((9, 2), L.Conv1D(4, 3, padding="causal", dilation_rate=2), L.Conv1D(4, 2, groups=2)),
    ),
    "conv1d_same_stride": ((10, 2), lambda: stack((10, 2), L.Conv1D(4, 4, strides=3, padding="same"))),
    "conv2d_valid": conv2d(11, 2),
    "conv2d_valid_stride": conv2d(12, 4, strides=3),
    "conv2d_same_stride_odd": conv2d(11, 3, strides=2, padding="same"),
    "conv2d_same_stride_even": conv2d(12, 3, strides=2, padding="same"),
    "conv2d_same_dilated": conv2d(11, 4, dilation_rate=2, padding="same"),
    "conv2d_groups_dilated": conv2d(13, (2, 3), dilation_rate=3, groups=2),
    "conv2d_groups_stride": conv2d(11, 3, strides=(2, 3), groups=4, padding="same", use_bias=False),
    "conv2d_1x1": conv2d(5, 1),
    "conv2d_1x1_stride": conv2d(5, 1, strides=2),
    "conv3d": ((4, 4, 5, 2), lambda: stack((4, 4, 5, 2), L.Conv3D(3, 2, strides=(1, 2, 2), padding="same"))),
    "conv1d_transpose": ((5, 2), lambda: stack((5, 2), L.Conv1DTranspose(3, 4, strides=2))),
    "conv2d_transpose_valid": ((4, 5, 2), lambda: stack((4, 5, 2), L.Conv2DTranspose(3, 3, strides=2))),
    "conv2d_transpose_same": ((4, 5, 2), lambda: stack((4, 5, 2), L.Conv2DTranspose(3, 3, strides=2, padding="same"))),
    "conv2d_transpose_gaps": ((4, 4, 2), lambda: stack((4, 4, 2), L.Conv2DTranspose(3, 2, strides=3))),
    "conv3d_transpose": ((2, 3, 3, 2), lambda: stack((2, 3, 3, 2), L.Conv3DTranspose(2, 2, padding="same"))),
    "conv2d_transpose_dilated": (
        (4, 5, 2),
        lambda: stack((4, 5, 2), L.Conv2DTranspose(3, 3, dilation_rate=2, padding="same", activation="tanh")),
    ),
    "conv2d_transpose_output_padding": (
        (4, 5, 2),
        lambda: stack(
            (4, 5, 2),
            L.Conv2DTranspose(3, 3, strides=2, output_padding=1, activation="tanh"),
            L.Conv2DTranspose(2, 4, strides=3, output_padding=2, padding="same", activation="tanh"),
            L.Rescaling(0.02),  # hundreds of outputs: logits of 300 would leave float32 few digits, in the loop too
        ),
    ),
    # On a CPU, TensorFlow's graphs add a bias along the wrong axis where a channels_first convolution has as many filters
    # as its output is wide; not in these.
    "conv2d_channels_first": (
        (2, 7, 9),
        lambda: stack(
            (2, 7, 9),
            L.Conv2D(3, 3, strides=2, padding="same", activation="tanh", data_format="channels_first"),
            L.Conv2DTranspose(4, 2, strides=3, activation="tanh", data_format="channels_first"),
            L.Rescaling(0.05),
        ),
    ),
    "conv_channels_first_others": (
        (2, 6, 7, 8),
        lambda: stack(
            (2, 6, 7, 8),
            L.Conv3D(3, 2, data_format="channels_first", activation="tanh"),
            L.Reshape((3, 30, 7)),
            L.DepthwiseConv2D(3, depth_multiplier=2, data_format="channels_first", activation="tanh"),
            L.SeparableConv2D(4, 3, strides=2, padding="same", data_format="channels_first", activation="tanh"),
        ),
    ),
    "depthwise_1d": ((9, 3), lambda: stack((9, 3), L.DepthwiseConv1D(3, depth_multiplier=2, dilation_rate=2))),
    "depthwise_2d": (
        (7, 8, 3),
        lambda: stack(
            (7, 8, 3), L.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same", activation="tanh")
        ),
    ),
    "separable_1d": ((9, 3), lambda: stack((9, 3), L.SeparableConv1D(4, 3, depth_multiplier=2, activation="tanh"))),
    "separable_2d": ((7, 7, 3), lambda: stack((7, 7, 3), L.SeparableConv2D(4, 3, strides=2, padding="same"))),
    "embedding_masked": (
        (6,),
        lambda: stack((6,), L.Embedding(7, 4, mask_zero=True), L.LSTM(3, unroll=True), dtype="int32"),
    ),
    "embedding_3d": ((2, 3), lambda: stack((2, 3), L.Embedding(7, 4), L.Dense(3, "tanh"), dtype="int32")),
    "embedding_4d": ((2, 2, 2), lambda: stack((2, 2, 2), L.Embedding(7, 3), L.Activation("tanh"), dtype="int32")),
    "embedding_of_one_id": ((), lambda: stack((), L.Embedding(7, 4), L.Activation("tanh"), dtype="int32")),
    "embedding_tied": ((5,), lambda: built(TiedProjection(), (5,))),
    "layer_norm": ((4,), lambda: stack((4,), L.Dense(6), L.LayerNormalization(), L.Activation("tanh"))),
    "layer_norm_two_axes": ((3, 4), lambda: stack((3, 4), L.LayerNormalization(axis=[1, 2]), L.Activation("tanh"))),
    "layer_norm_inner_axis": ((3, 4), lambda: stack((3, 4), L.LayerNormalization(axis=1), L.Activation("tanh"))),
    "layer_norm_three_axes": (
        (3, 2, 2),
        lambda: stack((3, 2, 2), L.LayerNormalization(axis=[1, 2, 3], center=False), L.Activation("tanh")),
    ),
    "rms_norm": ((3, 4), lambda: stack((3, 4), L.RMSNormalization(), L.Activation("tanh"))),
    "group_norm": (
        (4, 4, 4),
        lambda: stack((4, 4, 4), *(L.GroupNormalization(groups=g) for g in (1, 2, 4)), L.Activation("tanh")),
    ),
    "batch_norm_first": ((4,), lambda: stack((4,), L.BatchNormalization(), L.Activation("tanh"))),
    "batch_norm_stacked": (
        (5, 4, 3),
        lambda: stack((5, 4, 3), L.BatchNormalization(axis=1), L.BatchNormalization(scale=False), L.Activation("tanh")),
    ),
    "prelu": ((3, 4), lambda: stack((3, 4), L.PReLU(), L.Dense(4), L.PReLU(shared_axes=[1]))),
    "lstm": ((4, 3), lambda: stack((4, 3), L.LSTM(3))),
    "lstm_stacked_unrolled": (
        (3, 2),
        lambda: stack((3, 2), L.LSTM(3, return_sequences=True, unroll=True), L.GRU(2, unroll=True)),
    ),
    "gru_reset_before": (
        (3, 2),
        lambda: stack(
            (3, 2),
            L.GRU(2, unroll=True, reset_after=False, return_sequences=True, dropout=0.3, recurrent_dropout=0.4),
            L.GRU(3, unroll=True, use_bias=False, go_backwards=True),
        ),
    ),
    "rnn_stacked_cells": ((3, 2), lambda: stack((3, 2), L.RNN([L.LSTMCell(3), L.GRUCell(2)], unroll=True))),
    "rnn_unrolled": (
        (2, 2),
        lambda: stack(
            (2, 2),
            L.LSTM(3, return_sequences=True, unroll=True),
            L.GRU(2, unroll=True, reset_after=False),
        ),
    ),
    "rnn_bidirectional": ((3, 2), lambda: stack((3, 2), L.Bidirectional(L.SimpleRNN(2, unroll=True)))),
    "lstm_masked": ((4, 3), masked),
    "einsum_dense": (
        (3, 4),
        lambda: stack(
            (3, 4),
            L.EinsumDense("abc,cde->abde", (3, 2, 3), bias_axes="de", activation="tanh"),
            L.EinsumDense("abde,def->abf", (3, 4), bias_axes="f"),
        ),
    ),
    "einsum_dense_groups": (
        (3, 4, 2),
        lambda: stack((3, 4, 2), L.EinsumDense("abcd,cde->acbe", (4, 3, 5), bias_axes="ce", activation="tanh")),
    ),
    "einsum_dense_sum": ((3, 4), lambda: stack((3, 4), L.EinsumDense("abc,cd->ad", (5,), activation="tanh"))),
    "attention": ((4, 6), attention),
    "attention_cross": ((4, 6), cross_attention),
    "transformer": ((4, 6), transformer),
    "pooling": (
        (8, 8, 2),
        lambda: stack((8, 8, 2), L.Conv2D(3, 3), L.MaxPooling2D(), L.Dropout(0.5), L.AveragePooling2D(1)),
    ),
    "siamese": ((4,), siamese),
    "dueling": ((4,), dueling),
    "shared_three_times": ((4,), shared_three_times),
    "shared_over_time_and_space": ((5, 4), shared_over_time_and_space),
    "resnet": ((8, 8, 2), small_resnet),
    "minatar": (
        (10, 10, 4),
        lambda: stack((10, 10, 4), L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(8, "relu")),
    ),
    "nature": (
        (36, 36, 2),
        lambda: stack(
            (36, 36, 2),
            L.Conv2D(4, 8, 4),
            L.ReLU(),
            L.Conv2D(4, 4, 2),
            L.ReLU(),
            L.Conv2D(4, 3),
            L.Flatten(),
            L.Dense(8),
        ),
    ),
    "time_distributed": ((3, 4), lambda: stack((3, 4), L.TimeDistributed(L.Dense(3, "tanh")))),
    "time_first": ((3, 4), lambda: built(TimeFirst(), (3, 4))),
    "merged_axes": ((3, 4), lambda: built(Merged(), (3, 4))),
    "subclassed_dense": ((4,), lambda: stack((4,), DoubledDense(5, "tanh"), L.Dense(4, "tanh"))),
    "free_variables": ((4,), lambda: built(EarlyScale(), (4,))),
    "inside_function": ((4,), lambda: built(InsideFunction(), (4,))),
    "frozen": ((4,), frozen),
    "lora": ((4,), lora),
    "remat": ((4, 2), remat),
    "same_names": ((4,), same_names),
}
# Layers that must not take the closed form here: what they compute, or on what, is not what their class says.
FALLBACKS = {
    "embedding_tied": {"table"},
    "time_first": {"hidden"},
    "merged_axes": {"hidden"},
    "subclassed_dense": {"doubled_dense"},
    "inside_function": {
        "second"
    },  # inside of a loop; "first" is inside of a tf.function, which is a part of the program
    "lora": {"lora"},
    "remat": {"remat"},
    "einsum_dense_sum": {"einsum_dense"},
    "lstm": {"lstm_cell"},
    "rnn_stacked_cells": {"lstm_cell", "gru_cell"},  # Keras calls them once more, to draw masks of dropout
    "free_variables": {""},
}
# What TensorFlow can compute in float64 on a CPU only where XLA compiles it.
XLA_IN_FLOAT64 = {"conv2d_transpose_dilated", "conv2d_channels_first", "conv_channels_first_others"}
# One of each rule and of each way around the rules, for compilation by XLA in the ordinary run.
FEW = [
    "dense_3d", "dense_wide_3d", "conv1d_causal_dilated", "conv2d_same_stride_even", "conv2d_groups_stride", "separable_2d",
    "conv2d_transpose_same",
    "embedding_3d", "embedding_tied", "layer_norm_two_axes", "group_norm", "batch_norm_first",
    "rnn_unrolled", "transformer", "inside_function", "shared_three_times", "free_variables", "time_first",
]  # fmt: skip


def entries(ordinary=FEW):
    """The names as parameters of a test; all but the ordinary ones run with the slow tests."""
    return [pytest.param(name, marks=[] if name in ordinary else [pytest.mark.slow]) for name in MATRIX]


def make(name, dtype="float32", seed=0):
    """A model of the matrix with random weights and statistics, all in `dtype`."""
    before = keras.config.floatx()
    keras.backend.clear_session()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        return zoo.randomized(MATRIX[name][1](), seed)
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(before)


def inputs_for(name, rows=4, dtype="float32", seed=1):
    generator = np.random.default_rng(seed)
    shape = MATRIX[name][0]
    if name.startswith("embedding"):
        return generator.integers(0, 7, (rows, *shape)).astype(np.int32)
    x = generator.standard_normal((rows, *shape)).astype(dtype)
    if name == "lstm_masked":
        x[:, 2] = 0.0
    return [x, x[::-1].copy()] if name == "siamese" else x


def jacobian_by_loop(model, x, actions, weights, jit=False):
    """(N, P) and the list of (N, *variable.shape): a plain tape on one sample at a time, compiled for a batch of one."""
    variables = [v.value for v in model.trainable_variables]

    def one(x, action):
        with tf.GradientTape() as tape:
            value = tf.nn.log_softmax(model(x, training=False)[0])[action]
        return [tf.convert_to_tensor(g) for g in tape.gradient(value, variables)]

    compiled = tf.function(one, autograph=False, jit_compile=jit)
    rows = [
        [w * g.numpy() for g in compiled(zoo.row(tf.nest.map_structure(tf.constant, x), n), tf.constant(actions[n]))]
        for n, w in enumerate(weights)
    ]
    return [np.stack(parts) for parts in zip(*rows, strict=True)]
