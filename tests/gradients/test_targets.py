"""Functions of a model's output and of targets: the gradient of any loss of each sample."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad import gradients
from rlgrad.gradients import LogProb, Output, gradient, per_sample_gradient

layers, ops = keras.layers, keras.ops
LABELS, WEIGHTS = np.array([0, 2, 1, 1]), np.array([0.5, -1.0, 2.0, 3.0], np.float32)


def loss(y, target):
    return keras.losses.sparse_categorical_crossentropy(target, y, from_logits=True)


@pytest.fixture(scope="module")
def asked():
    """A model, its input, and the gradient of the loss of each sample, (N, P), taken one by one with a tape."""
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    rows = zoo.one_by_one(model, x, lambda y, n: loss(y, LABELS[n : n + 1])[0], 4)
    return model, x, np.concatenate([np.reshape(row, (4, -1)) for row in rows], axis=1)


def flat(result, rows=()):
    return np.concatenate([np.reshape(g, (*rows, -1)) for g in result.values()], axis=-1)


@pytest.mark.parametrize("options", [{}, {"chunk_size": 3}, {"method": "vmap"}, {"method": "loop"}])
def test_per_sample_functions_give_each_sample_its_own_target(asked, options):
    model, x, expected = asked
    own = {"output": loss, "target": LABELS, **options}
    np.testing.assert_allclose(flat(per_sample_gradient(model, x, **own), (4,)), expected, rtol=1e-4, atol=1e-6)
    norms = gradients.per_sample_norm(model, x, **own)
    np.testing.assert_allclose(norms, np.linalg.norm(expected, axis=1), rtol=1e-4)
    np.testing.assert_allclose(gradients.gram(model, x, **own), expected @ expected.T, rtol=1e-3, atol=1e-5)
    segments = gradients.per_sample_gradient(model, x, segments=[1, 0, 1, 0], **own)
    by_segment = np.stack([expected[[1, 3]].sum(0), expected[[0, 2]].sum(0)])
    np.testing.assert_allclose(flat(segments, (2,)), by_segment, rtol=1e-4, atol=1e-6)


def test_every_other_function_takes_targets(asked):
    model, x, expected = asked
    own = {"output": loss, "target": LABELS}
    np.testing.assert_allclose(
        flat(gradient(model, x, sample_weight=WEIGHTS, **own)), WEIGHTS @ expected, rtol=1e-4, atol=1e-6
    )
    value, summed = gradients.value_and_gradient(model, x, **own)
    np.testing.assert_allclose(value, loss(model(x), LABELS), rtol=1e-5)
    np.testing.assert_allclose(flat(summed), expected.sum(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(flat(gradients.jacobian(model, x, **own), (4,)), expected, rtol=1e-4, atol=1e-6)
    lin = gradients.linearize(model, x, **own)
    np.testing.assert_allclose(flat(lin.gradient(WEIGHTS)), WEIGHTS @ expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(flat(lin.per_sample(), (4,)), expected, rtol=1e-4, atol=1e-6)
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        total = tf.reduce_sum(loss(model(inputs), LABELS))
    np.testing.assert_allclose(
        gradients.input_gradient(model, x, **own), tape.gradient(total, inputs), rtol=1e-4, atol=1e-6
    )
    v = gradients.gradient(model, x)
    summed = gradients.clipped_gradient(model, x, max_norm=1e6, **own)
    np.testing.assert_allclose(flat(summed, ()), expected.sum(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(gradients.jacobian_gram(model, x, **own), expected @ expected.T, rtol=1e-3, atol=1e-5)
    activation, slope = gradients.activation_gradient(model, x, at=-1, **own)
    np.testing.assert_allclose(slope, tf.nn.softmax(activation) - tf.one_hot(LABELS, 3), rtol=1e-4, atol=1e-6)
    curved = gradients.hessian_vector_product(model, x, v, output=-1.0 * LogProb(LABELS))
    for key, product in gradients.hessian_vector_product(model, x, v, **own).items():
        np.testing.assert_allclose(product, curved[key], rtol=1e-3, atol=1e-5)
    assert all(row.route == "closed form" for row in gradients.plan(model, x, **own).rows)
    compiled = tf.function(lambda x, t: per_sample_gradient(model, x, output=loss, target=t), autograph=False)
    np.testing.assert_allclose(flat(compiled(x, tf.constant(LABELS)), (4,)), expected, rtol=1e-4, atol=1e-6)


def test_targets_are_rows_in_a_gram_matrix_against_another_input(asked):
    model, x, expected = asked
    for chunk_size in (None, 2):
        options = {"output": loss, "target": LABELS, "chunk_size": chunk_size}
        kernel = gradients.gram(model, x, x[:3], target_y=LABELS[:3], **options)
        np.testing.assert_allclose(kernel, expected @ expected[:3].T, rtol=1e-3, atol=1e-5)
    kernel = gradients.jacobian_gram(model, x, x[:3], output=loss, target=LABELS, target_y=LABELS[:3])
    np.testing.assert_allclose(kernel, expected @ expected[:3].T, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="target_y="):
        gradients.jacobian_gram(model, x, x, output=loss, target=LABELS)
    with pytest.raises(ValueError, match="target_y="):
        gradients.gram(model, x, x, output=loss, target=LABELS)
    with pytest.raises(ValueError, match="output_y="):
        gradients.gram(model, x, x, output=LogProb(LABELS))
    with pytest.raises(ValueError, match="y is missing"):
        gradients.gram(model, x, output=loss, target=LABELS, target_y=LABELS)


def test_an_output_with_targets_adds_and_scales_and_goes_into_dicts(asked):
    model, x, expected = asked
    output = 2.0 * Output.of(loss, target=LABELS) + LogProb(LABELS)  # the loss is −log π
    np.testing.assert_allclose(flat(per_sample_gradient(model, x, output=output), (4,)), expected, rtol=1e-3, atol=1e-5)
    lin = gradients.linearize(model, x, output={"loss": Output.of(loss, target=LABELS), "first": 0})
    np.testing.assert_allclose(flat(lin.gradient({"loss": WEIGHTS})), WEIGHTS @ expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(TypeError, match=r"each has its own: Output\.of"):
        gradients.linearize(model, x, output={"loss": loss}, target=LABELS)


def test_targets_may_be_a_tree_of_arrays_and_lists():
    model, x = zoo.randomized(zoo.two_heads()), zoo.inputs_for("functional")
    returns = np.array([1.0, 2.0, 3.0, 4.0])

    def both(y, target):
        return target["scale"][0] * loss(y["policy"], target["labels"]) + ops.square(
            y["value"][:, 0] - target["returns"]
        )

    target = {"labels": LABELS.tolist(), "returns": returns, "scale": (WEIGHTS,)}
    rows = zoo.one_by_one(
        model,
        x,
        lambda y, n: (
            WEIGHTS[n] * loss(y["policy"], LABELS[n : n + 1])[0] + tf.square(y["value"][0, 0] - np.float32(returns[n]))
        ),
        4,
    )
    zoo.assert_close(per_sample_gradient(model, x, output=both, target=target).values(), rows)


def test_a_recurrent_model_loops_with_its_targets():
    model, x = (
        zoo.randomized(keras.Sequential([keras.Input((5, 2)), layers.LSTM(3), layers.Dense(3)])),
        np.ones((4, 5, 2)),
    )
    x = (x * np.arange(1, 5)[:, None, None] / 4).astype(np.float32)
    rows = zoo.one_by_one(model, x, lambda y, n: loss(y, LABELS[n : n + 1])[0], 4)
    zoo.assert_close(per_sample_gradient(model, x, output=loss, target=LABELS).values(), rows)


@pytest.mark.parametrize(
    ("output", "target", "error", "message"),
    [
        (loss, None, TypeError, "loss .*takes the arguments .*there is no target="),
        (lambda y: y[:, 0], LABELS, TypeError, "with target= it is called with two"),
        (
            keras.losses.mean_squared_error,
            LABELS,
            TypeError,
            r"labels first: give lambda y, target: mean_squared_error\(target, y\)",
        ),
        (keras.losses.mean_squared_error, None, TypeError, "labels first"),
        (LogProb(LABELS), LABELS, TypeError, "second argument of a function"),
        ("value", LABELS, TypeError, "second argument of a function"),
        (loss, LABELS[:2], ValueError, "4 rows, so there must be 4 actions .or units, weights, targets"),
        (loss, 1, ValueError, "one row for each sample"),
        (lambda y, t: tf.reduce_sum(y), LABELS, ValueError, "batch axis is gone"),
    ],
)
def test_a_function_and_its_targets_that_do_not_fit_are_refused(asked, output, target, error, message):
    model, x, _ = asked
    with pytest.raises(error, match=message):
        gradient(model, x, output=output, target=target)


def test_a_second_argument_with_a_default_needs_no_target(asked):
    model, x, _ = asked
    zoo.assert_close(gradient(model, x, output=lambda y, k=1: y[:, k]).values(), gradient(model, x, output=1).values())
