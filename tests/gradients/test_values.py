"""Every function against one plain tape per sample, on models of every kind, always with random sample weights."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo
from helpers.slow import mostly_slow, parameters

from rlgrad.gradients import (
    Entropy,
    LogProb,
    flatten,
    gradient,
    input_gradient,
    jacobian,
    per_sample_gradient,
    value_and_gradient,
)

ACTIONS = np.array([2, 0, 1, 1])


def log_prob(y, action):
    return tf.nn.log_softmax(y[0])[action]


def entropy(y):
    return -tf.reduce_sum(tf.nn.softmax(y[0]) * tf.nn.log_softmax(y[0]))


# (what output= gets, the same as a plain function of one sample's output)
OUTPUTS = {
    "summed": (None, lambda y, n: tf.reduce_sum(y)),
    "unit": (1, lambda y, n: y[0, 1]),
    "unit_per_sample": (ACTIONS, lambda y, n: y[0, ACTIONS[n]]),
    "log_prob": (LogProb(ACTIONS), lambda y, n: log_prob(y, ACTIONS[n])),
    "entropy": (Entropy(), lambda y, n: entropy(y)),
    "combined": (
        LogProb(ACTIONS) + 0.3 * Entropy() - 2,
        lambda y, n: log_prob(y, ACTIONS[n]) + 0.3 * entropy(y) - y[0, 2],
    ),
    "function": (lambda y: y[:, 0] * tf.tanh(y[:, 1]), lambda y, n: y[0, 0] * tf.tanh(y[0, 1])),
}


PLAIN = ("sequential", "depthwise", "convolution_3d", "two_inputs")  # which differ little from others


@pytest.fixture(
    scope="module", params=parameters(list(zoo.ONE_OUTPUT), [name for name in zoo.ONE_OUTPUT if name not in PLAIN])
)
def case(request):
    return zoo.make(request.param), zoo.inputs_for(request.param)


FEW = ("functional", "convolution", "embedding", "subclassed", "recurrent")


@pytest.fixture(scope="module", params=parameters(FEW, quick=4))
def few(request):
    return zoo.make(request.param), zoo.inputs_for(request.param)


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(5).standard_normal(4)


def test_gradient_is_the_weighted_sum_of_the_samples_gradients(case, weights):
    model, x = case
    expected = zoo.one_by_one(model, x, lambda y, n: log_prob(y, ACTIONS[n]), 4)
    got = gradient(model, x, output=LogProb(ACTIONS), sample_weight=weights)
    assert list(got) == [v.path for v in model.trainable_variables]
    zoo.assert_close(got.values(), [np.tensordot(weights, e, 1) for e in expected])


def test_per_sample_gradient_is_each_samples_own_gradient(case, weights):
    model, x = case
    expected = zoo.one_by_one(model, x, lambda y, n: weights[n] * log_prob(y, ACTIONS[n]), 4)
    got = per_sample_gradient(model, x, output=LogProb(ACTIONS), sample_weight=weights)
    zoo.assert_close(got.values(), expected)


def test_jacobian_has_a_row_per_sample_and_unit(few, weights):
    model, x = few
    expected = [zoo.one_by_one(model, x, lambda y, n, k=k: weights[n] * y[0, k], 4) for k in range(3)]
    zoo.assert_close(
        jacobian(model, x, sample_weight=weights).values(), [np.stack(e, axis=1) for e in zip(*expected, strict=True)]
    )


@pytest.mark.parametrize("name", OUTPUTS)
def test_each_kind_of_output_is_what_it_says(name, weights):
    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    output, plain = OUTPUTS[name]
    expected = zoo.one_by_one(model, x, plain, 4)
    value, got = value_and_gradient(model, x, output=output, sample_weight=weights)
    np.testing.assert_allclose(value, [plain(model(x[n : n + 1]), n) for n in range(4)], rtol=1e-5)
    zoo.assert_close(got.values(), [np.tensordot(weights, e, 1) for e in expected])
    zoo.assert_close(per_sample_gradient(model, x, output=output).values(), expected)
    zoo.assert_close(jacobian(model, x, output=1).values(), zoo.one_by_one(model, x, lambda y, n: y[0, 1], 4))


@pytest.mark.parametrize("name", ["functional", "two_inputs", "convolution", "batch_norm"])
def test_input_gradient_has_the_structure_of_the_input_and_is_its_derivative(name, weights):
    model, x = zoo.make(name), zoo.inputs_for(name)
    got = input_gradient(model, x, output=ACTIONS, sample_weight=weights)
    tensors = tf.nest.map_structure(tf.constant, x)
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = model(tensors, training=False)
        total = tf.reduce_sum(tf.constant(weights, tf.float32) * tf.gather(y, ACTIONS, axis=1, batch_dims=1))
    tf.nest.assert_same_structure(got, x)
    zoo.assert_close(tf.nest.flatten(got), tf.nest.flatten(tape.gradient(total, tensors)))


@mostly_slow(
    "name, jit",
    [("functional", False)]
    + [(name, True) for name in ("functional", "convolution", "embedding", "batch_norm")]
    + [("recurrent", False), ("recurrent", True)],
    quick=5,
)
def test_all_functions_work_inside_the_callers_compiled_function(name, jit, weights):
    model, x = zoo.make(name), zoo.inputs_for(name)

    def everything(x, actions, c):
        whole = gradient(model, x, output=LogProb(actions), sample_weight=c)
        each = per_sample_gradient(model, x, output=LogProb(actions), sample_weight=c)
        assert list(whole) == list(each) == [v.path for v in model.trainable_variables]
        return list(whole.values()), list(each.values()), list(jacobian(model, x, weights=-1).values())

    c = weights.astype(np.float32)
    whole, each, units = tf.function(everything, jit_compile=jit, autograph=False)(x, ACTIONS, c)
    expected = zoo.one_by_one(model, x, lambda y, n: c[n] * log_prob(y, ACTIONS[n]), 4)
    zoo.assert_close(each, expected)
    zoo.assert_close(whole, [e.sum(axis=0) for e in expected])
    zoo.assert_close([u[:, 2] for u in units], zoo.one_by_one(model, x, lambda y, n: y[0, 2], 4)[-2:])


@mostly_slow("name", ["convolution", "embedding", "two_inputs", "recurrent"], quick=3)
def test_no_samples_and_one_sample_are_ordinary_batches(name):
    model = zoo.make(name)
    for rows in (0, 1):
        x = zoo.inputs_for(name, rows)
        actions = np.zeros(rows, np.int64)
        whole = gradient(model, x, output=LogProb(actions))
        each = per_sample_gradient(model, x, output=LogProb(actions))
        units = jacobian(model, x, weights=-1)
        for v in model.trainable_variables:
            assert each[v.path].shape == (rows, *v.shape)
            np.testing.assert_allclose(whole[v.path], np.sum(each[v.path], axis=0), rtol=1e-4, atol=1e-5)
        assert [u.shape[:2] for u in units.values()] == [(rows, 3)] * 2


def test_no_samples_have_their_shapes_also_where_their_number_is_not_known_when_tracing():
    model = zoo.make("sequential")
    run = tf.function(
        lambda x: list(per_sample_gradient(model, x, output=0).values()),
        input_signature=[tf.TensorSpec((None, 4))],
        autograph=False,
    )
    assert [tuple(g.shape) for g in run(np.zeros((0, 4), np.float32))] == [(0, *v.shape) for v in model.weights]


def test_permuting_samples_permutes_rows_and_a_repeated_sample_repeats_its_row():
    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    order = [3, 1, 1, 0]
    base = flatten(per_sample_gradient(model, x, output=ACTIONS), batch_axes=1)
    moved = flatten(per_sample_gradient(model, x[order], output=ACTIONS[order]), batch_axes=1)
    np.testing.assert_allclose(moved, np.asarray(base)[order], rtol=1e-5, atol=1e-6)


def test_layers_that_differ_in_training_run_at_inference():
    model, x = zoo.make("batch_norm"), zoo.inputs_for("batch_norm")
    value, _ = value_and_gradient(model, x)
    np.testing.assert_allclose(value, np.sum(model(x, training=False), axis=1), rtol=1e-5)
    again, _ = value_and_gradient(model, x)
    np.testing.assert_array_equal(value, again)


def test_outputs_of_mixed_precision_give_gradients_in_the_weights_precision():
    import keras

    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, "tanh", dtype="mixed_float16"),
            keras.layers.Dense(3, dtype="mixed_float16"),
        ]
    )
    x = zoo.inputs_for("sequential")
    got = gradient(model, x, output=LogProb(ACTIONS), sample_weight=np.ones(4))
    assert {path: g.dtype for path, g in got.items() if g.dtype != tf.float32} == {}
    each = per_sample_gradient(model, x, output=LogProb(ACTIONS))
    zoo.assert_close([np.sum(g, axis=0) for g in each.values()], got.values(), rtol=2e-2, atol=2e-2)
