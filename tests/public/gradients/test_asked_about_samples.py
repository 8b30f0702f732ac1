"""Questions of others about each sample's own gradient, its norm, and inner products of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import small_models, zoo

from rlgrad import gradients
from rlgrad.gradients import BatchCoupledError

layers, ops = keras.layers, keras.ops
X = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]], np.float32)


class Standardized(keras.Model):
    """Batch normalization, in training mode where `mixing` is set."""

    def __init__(self, mixing):
        super().__init__()
        self.mixing = mixing
        self.hidden, self.normalization = layers.Dense(3, "tanh"), layers.BatchNormalization(name="normalization")
        self.out = layers.Dense(1)

    def call(self, x):
        return self.out(self.normalization(self.hidden(x), training=self.mixing))


class Similarities(keras.Model):
    """Compare each sample to all others of the batch, as a contrastive loss does."""

    def __init__(self):
        super().__init__()
        self.embed = layers.Dense(3)

    def call(self, x):
        e = self.embed(x)
        return ops.diagonal(ops.log_softmax(ops.matmul(e, ops.transpose(e)), axis=-1))


class TwoTimes(keras.Model):
    """One layer, called twice, and a readout."""

    def __init__(self):
        super().__init__()
        self.layer, self.out = layers.Dense(2, "tanh"), layers.Dense(1)

    def call(self, x):
        return self.out(self.layer(self.layer(x)))


def linear(units, **options):
    return keras.Sequential([keras.Input((2,)), layers.Dense(units, **options)])


def flat(rows):
    return np.concatenate([np.reshape(r, (len(r), -1)) for r in rows], axis=1)


def each(model, x, f=lambda y, n: tf.reduce_sum(y), count=3):
    """The gradients one by one, (N, P)."""
    return flat(zoo.one_by_one(model, x, f, count))


def called(model, x):
    model(x)
    return zoo.randomized(model)


def test_gradients_can_be_had_before_they_are_added_up():
    """Raw gradients of a batch, and no mean of them: https://github.com/tensorflow/tensorflow/issues/4897"""
    kernel, bias = gradients.per_sample_gradient(linear(1), X).values()
    np.testing.assert_allclose(kernel, X[:, :, None], rtol=1e-6)
    np.testing.assert_allclose(bias, np.ones((3, 1)))


def test_the_cross_entropy_of_each_instance_has_its_own_gradient():
    """(N, P) for a loss of size N: https://github.com/tensorflow/tensorflow/issues/29926"""
    model, labels = linear(3, use_bias=False), np.array([2, 0, 0])
    (kernel,) = gradients.per_sample_gradient(
        model,
        X,
        output=lambda y, t: keras.losses.sparse_categorical_crossentropy(t, y, from_logits=True),
        target=labels,
    ).values()
    error = tf.nn.softmax(model(X)).numpy() - np.eye(3)[labels]
    np.testing.assert_allclose(kernel, np.einsum("ni,nk->nik", X, error), rtol=1e-4, atol=1e-6)


def test_a_loss_that_was_averaged_is_refused():
    """A scalar cost where a vector was needed: https://github.com/tensorflow/privacy/issues/17"""
    with pytest.raises(ValueError, match="the batch axis is gone"):
        gradients.per_sample_gradient(
            linear(1), X, output=lambda y, t: ops.mean((y[:, 0] - t) ** 2), target=np.zeros(3, np.float32)
        )


def test_a_loss_object_without_reduction_is_a_function_like_others():
    """`Reduction.NONE` for gradients of each sample: https://github.com/tensorflow/privacy/issues/96"""
    loss = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)
    model, labels = linear(1), np.array([[1.0], [0.0], [1.0]], np.float32)
    rows = gradients.per_sample_gradient(model, X, output=lambda y, t: loss(t, y), target=labels)
    error = 1 / (1 + np.exp(-model(X).numpy())) - labels
    zoo.assert_close(rows.values(), [(X * error)[:, :, None], error])


def test_the_gradients_of_an_embedding_can_be_vectorized():
    """`vectorized_map` stops at `IndexedSlices`: https://github.com/tensorflow/tensorflow/issues/29984"""
    model = keras.Sequential([keras.Input((2,), dtype="int32"), layers.Embedding(3, 1), layers.Flatten()])
    ids = np.array([[1, 1], [2, 0]])
    for method in ("factors", "vmap"):
        (table,) = gradients.per_sample_gradient(model, ids, method=method).values()
        np.testing.assert_allclose(table[:, :, 0], [[0, 2, 0], [1, 0, 1]])


def test_tied_weights_have_one_gradient_with_both_parts():
    """Tied parameters confuse per-sample gradients: https://github.com/meta-pytorch/opacus/issues/413"""
    model, ids = small_models.TiedProjection(), np.array([[1, 4], [0, 0], [6, 2]])
    model = called(model, ids)
    expected = each(model, ids, lambda y, n: y[0, 1])
    np.testing.assert_allclose(
        flat(gradients.per_sample_gradient(model, ids, output=1).values()), expected, rtol=1e-4, atol=1e-6
    )
    norms = gradients.per_sample_norm(model, ids, output=1)
    np.testing.assert_allclose(norms, np.linalg.norm(expected, axis=1), rtol=1e-4)


def test_gradients_are_clipped_one_by_one_without_being_written_out():
    """Norms first, then one weighted pass: https://github.com/meta-pytorch/opacus/issues/349"""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(4, "tanh"), layers.Dense(1)])
    rows = each(model, X)
    bound = float(np.median(np.linalg.norm(rows, axis=1)))
    norms = gradients.per_sample_norm(model, X)
    clipped = gradients.gradient(model, X, sample_weight=np.minimum(1.0, bound / norms.numpy()))
    expected = (rows * np.minimum(1, bound / np.linalg.norm(rows, axis=1))[:, None]).sum(0)
    np.testing.assert_allclose(gradients.flatten(clipped), expected, rtol=1e-4, atol=1e-6)


def test_batch_normalization_in_training_mode_has_no_gradient_of_one_sample():
    """One sample's gradient under batch statistics: https://github.com/f-dangel/backpack/issues/160"""
    model = called(Standardized(mixing=True), X)
    with pytest.raises(BatchCoupledError, match="normalization"):
        gradients.per_sample_gradient(model, X)
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(model(X) * [[1.0], [-1.0], [2.0]])
    expected = tape.gradient(y, [v.value for v in model.trainable_variables])
    zoo.assert_close(gradients.gradient(model, X, sample_weight=[1.0, -1.0, 2.0]).values(), expected)


def test_batch_normalization_with_moving_statistics_is_a_layer_like_others():
    """Clipping of each sample with batch normalization: https://github.com/meta-pytorch/opacus/issues/673"""
    model = called(Standardized(mixing=False), X)
    np.testing.assert_allclose(gradients.per_sample_norm(model, X), np.linalg.norm(each(model, X), axis=1), rtol=1e-4)


def test_a_loss_of_one_example_that_needs_the_batch_is_refused():
    """The loss of an example computed with the whole batch: https://github.com/f-dangel/backpack/issues/212"""
    model = Similarities()
    model(X)
    with pytest.raises(BatchCoupledError):
        gradients.per_sample_gradient(model, X)


def test_convolutions_and_their_transposes_agree_with_a_loop():
    """Verify a network of convolutions against a loop: https://github.com/f-dangel/backpack/issues/219"""
    model = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(3, 3, strides=2, activation="tanh"),
            layers.BatchNormalization(),
            layers.Conv2DTranspose(2, 2, strides=2),
        ]
    )
    model, x = zoo.randomized(model), np.random.default_rng(0).standard_normal((3, 5, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(
        flat(gradients.per_sample_gradient(model, x).values()), each(model, x), rtol=1e-3, atol=1e-4
    )


def test_a_convolution_needs_no_loop_over_its_samples():
    """pfor over a convolution eats memory or loops: https://github.com/tensorflow/tensorflow/issues/34496"""
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 2, use_bias=False), layers.Flatten()])
    x = np.arange(32, dtype=np.float32).reshape(2, 4, 4, 1) / 10
    (kernel,) = gradients.per_sample_gradient(model, x).values()
    windows = np.lib.stride_tricks.sliding_window_view(x[..., 0], (3, 3), axis=(1, 2)).sum((-1, -2))  # (2, 2, 2)
    np.testing.assert_allclose(kernel, np.repeat(windows[..., None, None], 2, axis=-1), rtol=1e-4)
    assert [row.route for row in gradients.plan(model, x).rows] == ["closed form"]


def test_every_unit_of_an_output_has_gradients():
    """Gradients of an output with more than one unit: https://github.com/f-dangel/backpack/issues/266"""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, "tanh"), layers.Dense(2)])
    got = np.concatenate([np.reshape(j, (3, 2, -1)) for j in gradients.jacobian(model, X).values()], axis=2)
    for k in range(2):
        np.testing.assert_allclose(got[:, k], each(model, X, lambda y, n, k=k: y[0, k]), rtol=1e-4, atol=1e-6)


def test_gradients_of_a_batch_are_those_of_the_slow_jacobian():
    """`tape.jacobian` takes as many passes as outputs: https://github.com/tensorflow/tensorflow/issues/36227"""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, "tanh"), layers.Dense(1)])
    with tf.GradientTape(persistent=True) as tape:
        y = model(X)[:, 0]
    slow = tape.jacobian(y, [v.value for v in model.trainable_variables], experimental_use_pfor=False)
    zoo.assert_close(gradients.per_sample_gradient(model, X).values(), slow)
    assert {row.route for row in gradients.plan(model, X).rows} == {"closed form"}


def test_a_second_jacobian_is_not_traced_again():
    """A Jacobian in a loop is traced in every round: https://github.com/tensorflow/tensorflow/issues/42835"""
    calls = np.zeros(10_000)  # so large that its numbers are no part of what the model is

    class Counted(layers.Dense):
        def call(self, inputs):
            calls[0] += 1
            return super().call(inputs)

    model = keras.Sequential([keras.Input((2,)), Counted(2, use_bias=False)])
    gradients.jacobian(model, X)
    traced = calls[0]
    for n in (3, 2, 1):
        (got,) = gradients.jacobian(model, X[:n]).values()
        np.testing.assert_allclose(got, np.einsum("ni,jk->nkij", X[:n], np.eye(2)), atol=1e-6)
    assert calls[0] == traced > 0


def test_a_kernel_matrix_is_computed_without_the_gradients():
    """The kernel of a finite Keras network: https://github.com/google/neural-tangents/issues/106"""
    model = linear(1)
    np.testing.assert_allclose(gradients.gram(model, X), X @ X.T + 1, rtol=1e-5)
    np.testing.assert_allclose(gradients.gram(model, X, X[:2], chunk_size=1), X @ X[:2].T + 1, rtol=1e-5)
    with pytest.raises(MemoryError):
        gradients.gram(model, np.ones((1000, 2)), memory_limit=1e5)


def test_the_kernel_of_a_layer_that_is_called_twice_is_the_tangent_kernel():
    """A kernel that differed from one by hand, with a layer in use twice: https://github.com/tfjgeorge/nngeometry/issues/94"""
    model = called(TwoTimes(), X)
    rows = each(model, X)
    np.testing.assert_allclose(gradients.gram(model, X), rows @ rows.T, rtol=1e-4, atol=1e-5)


def test_a_kernel_of_n_samples_and_k_classes_is_a_product_of_jacobians():
    """(N K, N K), and not (N, N): https://github.com/google/neural-tangents/issues/68"""
    j = gradients.jacobian(linear(2), X)
    j = np.concatenate([np.reshape(v, (6, -1)) for v in j.values()], axis=1)
    np.testing.assert_allclose(j @ j.T, np.kron(X @ X.T + 1, np.eye(2)), rtol=1e-4, atol=1e-5)


def test_squares_are_taken_before_samples_are_added():
    """Square, then average, for a Fisher diagonal: https://github.com/GMvandeVen/continual-learning/issues/11"""
    model, opposite = linear(1, use_bias=False), np.array([[1.0, 2.0], [-1.0, -2.0]], np.float32)
    lin = gradients.linearize(model, opposite)
    (squares,), (summed,) = lin.sum_of_squares(0.5).values(), lin.gradient(0.5).values()
    np.testing.assert_allclose(squares[:, 0], [1.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(summed[:, 0], [0.0, 0.0], atol=1e-6)


def test_an_empty_batch_has_empty_gradients():
    """A batch of no samples: https://github.com/tensorflow/tensorflow/issues/37795"""
    model = linear(1)
    assert [v.shape for v in gradients.per_sample_gradient(model, X[:0]).values()] == [(0, 2, 1), (0, 1)]
    zoo.assert_close(gradients.gradient(model, X[:0]).values(), [np.zeros((2, 1)), np.zeros(1)])
