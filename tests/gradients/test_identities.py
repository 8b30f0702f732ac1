"""Identities that hold for any model, on random models, numbers and weights: nothing here knows a closed form.

Sorting the keys in `flatten` makes `matrix_free_products` fail (tried); sample weights are random, because with equal ones
a layer that mixes the samples of a batch goes unnoticed.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo
from helpers.slow import parameters
from hypothesis import given, settings
from hypothesis import strategies as st

from rlgrad.distributions import Categorical, DiagonalGaussian
from rlgrad.gradients import (
    LogProb,
    flatten,
    gradient,
    gram,
    linearize,
    per_sample_gradient,
    per_sample_norm,
    unflatten,
)

layers = keras.layers
ROWS = st.integers(1, 7)
SEEDS = st.integers(0, 2**31)


def shared_over_time():
    x = keras.Input((3, 4))
    layer = layers.Dense(4, "tanh", name="zz_first")
    h = layers.LayerNormalization(name="norm")(layer(layer(x)))
    return keras.Model(x, layers.Dense(3, name="aa_last")(layers.Flatten()(h)))


def convolutional():
    x = keras.Input((3, 4))
    h = layers.BatchNormalization()(layers.Conv1D(4, 2, activation="tanh")(x))
    return keras.Model(x, layers.Dense(3)(layers.Flatten()(h)))


@pytest.fixture(scope="module", params=parameters([shared_over_time, convolutional]))
def model(request):
    with_dtype = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        return zoo.randomized(request.param())
    finally:
        keras.config.set_dtype_policy(with_dtype)


def question(rows, seed):
    generator = np.random.default_rng(seed)
    return generator, generator.standard_normal((rows, 3, 4)), generator.integers(0, 3, rows)


def matrix(model, x, actions, **options):
    return np.asarray(flatten(per_sample_gradient(model, x, output=LogProb(actions), **options), batch_axes=1))


@settings(max_examples=5, deadline=None)
@given(rows=ROWS, seed=SEEDS)
def test_linearity_a_weighted_sum_of_rows_is_the_weighted_gradient(model, rows, seed):
    generator, x, actions = question(rows, seed)
    c = generator.standard_normal(rows)
    whole = flatten(gradient(model, x, output=LogProb(actions), sample_weight=c))
    each = matrix(model, x, actions)
    np.testing.assert_allclose(c @ each, whole, atol=1e-10 * (1 + np.abs(whole).max()))
    np.testing.assert_allclose(matrix(model, x, actions, sample_weight=c), c[:, None] * each, atol=1e-10)


@settings(max_examples=5, deadline=None)
@given(rows=ROWS, seed=SEEDS)
def test_norms_are_the_diagonal_of_the_gram_matrix_which_is_j_jt_symmetric_and_positive(model, rows, seed):
    _, x, actions = question(rows, seed)
    each = matrix(model, x, actions)
    kernel = np.asarray(gram(model, x, output=LogProb(actions)))
    scale = np.abs(kernel).max()
    np.testing.assert_allclose(kernel, each @ each.T, atol=1e-10 * scale)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-12 * scale)
    assert np.linalg.eigvalsh(kernel).min() >= -1e-10 * scale
    squares = per_sample_norm(model, x, output=LogProb(actions), squared=True)
    np.testing.assert_allclose(squares, np.diag(kernel), atol=1e-10 * scale)
    for per in ("layer", "variable"):
        parts = per_sample_norm(model, x, output=LogProb(actions), squared=True, per=per)
        np.testing.assert_allclose(sum(np.asarray(p) for p in parts.values()), squares, atol=1e-10 * scale)


@settings(max_examples=5, deadline=None)
@given(rows=ROWS, seed=SEEDS)
def test_matrix_free_products_are_the_matrixs(model, rows, seed):
    generator, x, actions = question(rows, seed)
    each, c = matrix(model, x, actions), generator.standard_normal(rows)
    lin = linearize(model, x, output=LogProb(actions))
    v, w = (generator.standard_normal(each.shape[1]) for _ in range(2))
    like = lin.gradient()
    jv, jw = np.asarray(lin.jvp(unflatten(v, like))), np.asarray(lin.jvp(unflatten(w, like)))
    np.testing.assert_allclose(jv, each @ v, atol=1e-9)
    np.testing.assert_allclose(lin.jvp(unflatten(2 * v - w, like)), 2 * jv - jw, atol=1e-9)
    back = flatten(lin.vjp(c))
    np.testing.assert_allclose(np.dot(jv, c), np.dot(v, back), atol=1e-9 * (1 + abs(np.dot(jv, c))))
    np.testing.assert_allclose(back, flatten(lin.gradient(c)), atol=1e-10 * (1 + np.abs(back).max()))
    squares = flatten(lin.sum_of_squares(c))
    np.testing.assert_allclose(squares, c @ each**2, atol=1e-9 * (1 + np.abs(squares).max()))


@settings(max_examples=5, deadline=None)
@given(rows=ROWS, seed=SEEDS, data=st.data())
def test_chunks_segments_and_permutations_are_what_they_say(model, rows, seed, data):
    generator, x, actions = question(rows, seed)
    each = matrix(model, x, actions)
    size = data.draw(st.integers(1, rows))
    np.testing.assert_allclose(matrix(model, x, actions, chunk_size=size), each, atol=1e-12)
    options = {"output": LogProb(actions), "chunk_size": size}
    np.testing.assert_allclose(per_sample_norm(model, x, **options), np.linalg.norm(each, axis=1), atol=1e-9)
    np.testing.assert_allclose(gram(model, x, **options), each @ each.T, atol=1e-9 * (1 + (each**2).sum()))
    order = generator.integers(0, rows, rows)  # repeats some samples
    np.testing.assert_allclose(matrix(model, x[order], actions[order]), each[order], atol=1e-12)
    ids = generator.integers(0, rows, rows)
    summed = np.stack([each[ids == s].sum(axis=0) for s in range(rows)])
    options = {"output": LogProb(actions), "segments": ids, "num_segments": rows}
    np.testing.assert_allclose(matrix(model, x, actions, segments=ids, num_segments=rows), summed, atol=1e-10)
    scale = 1 + np.abs(summed @ summed.T).max()
    np.testing.assert_allclose(
        per_sample_norm(model, x, squared=True, **options), (summed**2).sum(1), atol=1e-9 * scale
    )
    np.testing.assert_allclose(gram(model, x, **options), summed @ summed.T, atol=1e-9 * scale)
    lin = linearize(model, x, output=LogProb(actions))
    squares = flatten(lin.sum_of_squares(segments=ids, num_segments=rows))
    np.testing.assert_allclose(squares, (summed**2).sum(axis=0), atol=1e-9 * scale)


@settings(max_examples=5, deadline=None)
@given(rows=ROWS, seed=SEEDS)
def test_the_natural_gradient_follows_from_the_gram_matrix_alone(model, rows, seed):
    """(SᵀS/N + λI)⁻¹ Sᵀ A/N = Sᵀ (SSᵀ + NλI)⁻¹ A: N × N in place of P × P."""
    generator, x, actions = question(rows, seed)
    scores, advantages, damping = matrix(model, x, actions), generator.standard_normal(rows), 0.1
    lin = linearize(model, x, output=LogProb(actions))
    solved = np.linalg.solve(np.asarray(lin.gram()) + rows * damping * np.eye(rows), advantages)
    fisher = scores.T @ scores / rows + damping * np.eye(scores.shape[1])
    expected = np.linalg.solve(fisher, scores.T @ advantages / rows)
    np.testing.assert_allclose(flatten(lin.vjp(solved)), expected, atol=1e-8 * (1 + np.abs(expected).max()))


@settings(max_examples=5, deadline=None)
@given(rows=ROWS, seed=SEEDS)
def test_scores_average_to_zero_under_the_policy_and_their_covariance_is_the_fisher_matrix(model, rows, seed):
    generator, x, _ = question(rows, seed)
    p = tf.nn.softmax(model(x)).numpy()
    by_action = [matrix(model, x, np.full(rows, a)) for a in range(3)]
    mean = sum(p[:, [a]] * by_action[a] for a in range(3))
    np.testing.assert_allclose(mean, 0.0, atol=1e-9 * (1 + np.abs(by_action[0]).max()))
    c, v = generator.uniform(0.1, 1.0, rows), generator.standard_normal(mean.shape[1])
    expected = sum((c * p[:, a] * (by_action[a] @ v)) @ by_action[a] for a in range(3))
    lin = linearize(model, x, output=LogProb(np.zeros(rows, int)))
    product = flatten(lin.fisher_vector_product(unflatten(v, lin.gradient()), sample_weight=c, damping=0.3))
    np.testing.assert_allclose(product, expected + 0.3 * v, atol=1e-8 * (1 + np.abs(expected).max()))
    assert np.dot(v, product - 0.3 * v) >= -1e-10


def test_pythons_own_numbers_keep_their_precision_in_a_float64_model(model):
    """0.3 in float32 is off by 1e-8, which no later cast to float64 mends."""
    _, x, actions = question(3, 0)
    lin = linearize(model, x, output=LogProb(actions))
    thirds, plain = np.full(3, 0.3), [0.3, 0.3, 0.3]
    exact = flatten(lin.gradient(thirds)).numpy()
    for other in (0.3, plain):
        np.testing.assert_allclose(flatten(lin.gradient(other)), exact, rtol=1e-10)
    weighted = gradient(model, x, output=LogProb(actions), sample_weight=plain)
    np.testing.assert_allclose(flatten(weighted), exact, rtol=1e-10)
    damped = flatten(lin.fisher_vector_product(lin.gradient(thirds), damping=0.3))
    free = flatten(lin.fisher_vector_product(lin.gradient(thirds)))
    np.testing.assert_allclose(damped - free, 0.3 * exact, rtol=1e-9, atol=1e-12)


def gaussian_policy():
    x = keras.Input((4,))
    h = layers.Dense(5, "tanh")(x)
    heads = {"mean": layers.Dense(2)(h), "log_std": layers.Dense(2)(h)}
    return zoo.randomized(keras.Model(x, heads))


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_fisher_products_are_the_second_derivative_of_the_divergence(mode):
    """∇²_θ′ KL(π_θ ‖ π_θ′) at θ′ = θ, by differentiating the divergence twice, for a Gaussian whose σ depends on s."""
    model, x = gaussian_policy(), zoo.inputs_for("functional", rows=5)
    generator = np.random.default_rng(0)
    v = {p.path: zoo.normal(generator, *p.shape) for p in model.trainable_variables}
    variables = [p.value for p in model.trainable_variables]
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            new = model(x)
            old = tf.nest.map_structure(tf.stop_gradient, new)
            variance = tf.exp(2 * old["log_std"]) + (old["mean"] - new["mean"]) ** 2
            kl = tf.reduce_sum(new["log_std"] - old["log_std"] + variance / (2 * tf.exp(2 * new["log_std"])) - 0.5)
        directional = sum(tf.reduce_sum(g * d) for g, d in zip(inner.gradient(kl, variables), v.values(), strict=True))
    expected = outer.gradient(directional, variables)

    def product(x, v):
        lin = linearize(model, x, output=LogProb(np.zeros((5, 2)), DiagonalGaussian()))
        return list(lin.fisher_vector_product(v).values())

    run = product if mode == "eager" else tf.function(product, autograph=False, jit_compile=mode == "xla")
    zoo.assert_close(run(tf.constant(x), v), expected)


def test_a_distribution_of_ones_own_says_what_its_fisher_matrix_is():
    class Plain:
        log_prob = staticmethod(lambda parameters, actions: Categorical().log_prob(parameters, actions))
        check_actions = staticmethod(tf.convert_to_tensor)

    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    lin = linearize(model, x, output=LogProb(np.zeros(4, int), Plain()))
    with pytest.raises(NotImplementedError, match="fisher_product"):
        lin.fisher_vector_product(lin.gradient())
