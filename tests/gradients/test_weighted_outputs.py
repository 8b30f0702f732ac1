"""One number of each sample made of a vector: its gradients are those of the weighted sum, with every per-sample function."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad import gradients
from rlgrad.distributions import DiagonalGaussian
from rlgrad.gradients import Action, ActionLogProb, Chosen, Each, LogProb, Weighted
from rlgrad.gradients.programs import program

ROWS = 3
rng = np.random.default_rng(0)


def gaussian():
    x = keras.Input((4,))
    h = keras.layers.Dense(5, "tanh")(x)
    heads = {"mean": keras.layers.Dense(2, name="mean")(h), "log_std": keras.layers.Dense(2, name="log_std")(h)}
    return keras.Model(x, heads)


def quantiles():
    x = keras.Input((4,))
    h = keras.layers.Dense(5, "tanh")(x)
    return keras.Model(x, keras.layers.Reshape((3, 2))(keras.layers.Dense(6)(h)))


NOISE = rng.normal(size=(ROWS, 2)).astype(np.float32)
ACTIONS = np.array([2, 0, 1])


def moved(heads):
    return heads["mean"] + tf.exp(heads["log_std"]) * NOISE


CASES = {
    "each": (zoo.sequential, Each(), lambda y: y),
    "quantiles": (quantiles, Each(), lambda y: y),
    "quantiles of an action": (quantiles, Chosen(None, ACTIONS), lambda y: tf.gather(y, ACTIONS, axis=1, batch_dims=1)),
    "action": (gaussian, Action(NOISE, DiagonalGaussian()), moved),
}


def by_tape(model, x, weights, values):
    """The gradient of each row's weighted sum, by variable, from one tape a row."""
    rows = []
    for n in range(ROWS):
        with tf.GradientTape() as tape:
            f = values(model(x))
            total = tf.reduce_sum((weights * f)[n])
        rows.append(tape.gradient(total, model.trainable_variables, unconnected_gradients="zero"))
    return {v.path: np.stack([row[i] for row in rows]) for i, v in enumerate(model.trainable_variables)}


@pytest.mark.parametrize("name", CASES)
def test_each_sample_has_the_gradient_of_its_weighted_sum(name):
    make, output, values = CASES[name]
    keras.utils.set_random_seed(1)
    model = make()
    x = rng.normal(size=(ROWS, *model.input_shape[1:])).astype(np.float32)
    weights = rng.normal(size=values(model(x)).shape).astype(np.float32)
    expected = by_tape(model, x, weights, values)
    asked = Weighted(output, weights)
    rows = gradients.per_sample_gradient(model, x, output=asked)
    flat = np.concatenate([expected[key].reshape(ROWS, -1) for key in expected], axis=1)
    for key, gradient in rows.items():
        np.testing.assert_allclose(gradient, expected[key], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        gradients.per_sample_norm(model, x, output=asked), np.linalg.norm(flat, axis=1), rtol=1e-4
    )
    np.testing.assert_allclose(gradients.gram(model, x, output=asked), flat @ flat.T, rtol=1e-3, atol=1e-5)
    whole = gradients.gradient(model, x, output=asked)
    of_vector = gradients.gradient(model, x, output=output, sample_weight=weights)
    for key, gradient in whole.items():
        np.testing.assert_allclose(gradient, expected[key].sum(axis=0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(gradient, of_vector[key], rtol=1e-4, atol=1e-6)


def test_weights_may_be_one_number_a_sample_and_the_term_one_number():
    model = zoo.sequential()
    x = rng.normal(size=(ROWS, *model.input_shape[1:])).astype(np.float32)
    c = rng.normal(size=ROWS).astype(np.float32)
    all_units = gradients.per_sample_norm(model, x, output=Weighted(Each(), np.repeat(c[:, None], 3, axis=1)))
    np.testing.assert_allclose(gradients.per_sample_norm(model, x, output=Weighted(Each(), c)), all_units, rtol=1e-5)
    log_prob = LogProb(np.array([0, 1, 0]))
    scaled = np.abs(c) * gradients.per_sample_norm(model, x, output=log_prob)
    np.testing.assert_allclose(gradients.per_sample_norm(model, x, output=Weighted(log_prob, c)), scaled, rtol=1e-5)


def test_weighted_outputs_add_up():
    model = gaussian()
    x = rng.normal(size=(ROWS, 4)).astype(np.float32)
    slope, c = rng.normal(size=(ROWS, 2)).astype(np.float32), np.full(ROWS, -0.2, np.float32)
    action, log_prob = Action(NOISE, DiagonalGaussian()), ActionLogProb(NOISE, DiagonalGaussian())
    together = gradients.per_sample_gradient(model, x, output=Weighted(action, slope) + Weighted(log_prob, c))
    parts = [
        gradients.per_sample_gradient(model, x, output=Weighted(f, w)) for f, w in ((action, slope), (log_prob, c))
    ]
    for key, gradient in together.items():
        np.testing.assert_allclose(gradient, parts[0].get(key, 0.0) + parts[1].get(key, 0.0), rtol=1e-4, atol=1e-6)


def test_other_weights_compile_nothing_and_of_another_shape_are_refused():
    model = zoo.sequential()
    x = rng.normal(size=(ROWS, *model.input_shape[1:])).astype(np.float32)
    gradients.per_sample_norm(model, x, output=Weighted(Each(), np.ones((ROWS, 3), np.float32)))
    before = program.programs_of(model)
    gradients.per_sample_norm(model, x, output=Weighted(Each(), np.zeros((ROWS, 3), np.float32)))
    assert program.programs_of(model) == before
    with pytest.raises(ValueError, match=r"Weights of the units have shape \(3, 3\), got \(3, 2\)"):
        gradients.gradient(model, x, output=Weighted(Each(), np.ones((ROWS, 2), np.float32)))
    with pytest.raises(ValueError, match="there must be 3 actions"):
        gradients.gradient(model, x, output=Weighted(Each(), np.ones(4, np.float32)))
