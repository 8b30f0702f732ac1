"""Questions of others about recurrent layers, masks and padding."""

import keras
import numpy as np
import tensorflow as tf
from helpers import zoo

from rlgrad import gradients
from rlgrad.gradients import LogProb, PerSequence

layers, ops = keras.layers, keras.ops
SEQUENCES = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(np.float32)


def test_log_likelihoods_of_sequences_have_a_matrix_of_scores():
    """(N, P) scores of a recurrent model: https://github.com/pytorch/tutorials/issues/2566"""
    model = keras.Sequential([keras.Input((4, 2)), layers.GRU(2, return_sequences=True, unroll=True), layers.Dense(3)])
    symbols = np.array([[0, 1, 2, 0], [2, 2, 1, 0], [1, 0, 0, 2]])

    def log_likelihood(y, n):
        return tf.reduce_sum(tf.gather(tf.nn.log_softmax(y[0]), symbols[n], batch_dims=1))

    scores = gradients.per_sample_gradient(model, SEQUENCES, output=PerSequence(LogProb(symbols)))
    zoo.assert_close(scores.values(), zoo.one_by_one(model, SEQUENCES, log_likelihood, 3))


def test_a_recurrent_loss_of_each_sample_has_a_gradient():
    """`vmap` over a GRU: https://github.com/pytorch/functorch/issues/1089"""
    model = keras.Sequential([keras.Input((4, 2)), layers.GRU(2, unroll=True), layers.Dense(1)])
    targets = np.array([[1.0], [0.0], [-1.0]], np.float32)
    rows = gradients.per_sample_gradient(
        model, SEQUENCES, output=lambda y, t: keras.losses.mean_squared_error(t, y), target=targets
    )
    zoo.assert_close(rows.values(), zoo.one_by_one(model, SEQUENCES, lambda y, n: (y[0, 0] - targets[n, 0]) ** 2, 3))


def test_the_slope_of_a_recurrent_model_by_its_input():
    """Minutes for the input's gradient of a GRU: https://github.com/tensorflow/tensorflow/issues/42990"""
    model = keras.Sequential(
        [keras.Input((4, 2)), layers.SimpleRNN(1, activation="linear", use_bias=False, name="sum")]
    )
    model.set_weights([np.array([[1.0], [-2.0]]), np.array([[0.5]])])  # h_t = x_t · (1, −2) + h_t−1 / 2
    expected = 0.5 ** np.arange(3, -1, -1)[:, None] * [1.0, -2.0]
    np.testing.assert_allclose(gradients.input_gradient(model, SEQUENCES), np.tile(expected, (3, 1, 1)), rtol=1e-5)


def test_masked_steps_take_no_part():
    """The part of padded steps in back-propagation: https://github.com/keras-team/keras/issues/7878"""
    lstm, out = layers.LSTM(2, unroll=True), layers.Dense(1)
    masked = keras.Sequential([keras.Input((4, 2)), layers.Masking(0.0), lstm, out])
    variables = [v.value for v in masked.trainable_variables]
    padded = SEQUENCES.copy()
    padded[0, 2:], padded[2, 3:] = 0.0, 0.0
    rows = gradients.per_sample_gradient(masked, padded)
    for n, length in enumerate([2, 4, 3]):
        with tf.GradientTape() as tape:
            alone = out(lstm(SEQUENCES[n : n + 1, :length]))
        zoo.assert_close([g[n] for g in rows.values()], tape.gradient(alone, variables))
    steps = gradients.input_gradient(masked, padded).numpy()
    assert not steps[0, 2:].any()
    assert not steps[2, 3:].any()
    assert steps[0, :2].any()


def test_padding_with_minus_one_reads_the_last_row_for_each_sample():
    """Padding with −1 in front of an embedding: https://github.com/keras-team/keras/issues/12269"""
    model = keras.Sequential([keras.Input((3,), dtype="int32"), layers.Embedding(4, 1, name="table"), layers.Flatten()])
    ids = np.array([[1, -1, -1], [0, 2, -1], [-4, 3, 3]])
    (rows,) = gradients.per_sample_gradient(model, ids).values()
    np.testing.assert_allclose(rows[:, :, 0], [[0, 1, 0, 2], [1, 0, 1, 1], [1, 0, 0, 2]])
    norms = gradients.per_sample_norm(model, ids)
    np.testing.assert_allclose(norms, np.sqrt([5, 3, 5]), rtol=1e-6)


def test_a_padding_that_is_masked_has_no_gradient():
    """Padded ids, masked before the recurrent layer: https://github.com/keras-team/keras/issues/3086"""
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(4, 2, mask_zero=True, name="table"),
            layers.SimpleRNN(2, unroll=True),
        ]
    )
    ids = np.array([[3, 1, 0, 0], [2, 2, 2, 0]])
    (table,) = gradients.per_sample_gradient(model, ids, weights="table").values()
    used = np.abs(table).sum(-1) > 0
    np.testing.assert_array_equal(used, [[False, True, False, True], [False, False, True, False]])
    by_tape = zoo.one_by_one(model, ids, lambda y, n: tf.reduce_sum(y), 2, model.get_layer("table").trainable_variables)
    zoo.assert_close([table], by_tape)
