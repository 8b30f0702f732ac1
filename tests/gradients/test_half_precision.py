"""Weights, credits and directions do not pass through float16 or bfloat16: small ones count as if applied afterwards."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rlgrad import gradients as G
from rlgrad.gradients import LogProb, PerSequence
from rlgrad.gradients.programs.half_precision import in_ranges

layers = keras.layers
POLICIES = ["mixed_float16", "mixed_bfloat16", "float16"]
X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
# Advantages divided by a large N: below everything that float16 has; one sample weighs a million times as much as another.
C = 1e-9 * np.array([1.0, -2.0, 1e3, 0.5, -1e6, 3.0])


def network(policy, *inner, head="float32"):
    keras.utils.set_random_seed(3)
    hidden = inner or (layers.Dense(8, "tanh", dtype=policy),)
    head = policy if policy == "float16" else head
    return keras.Sequential(
        [keras.Input((4,), dtype="float16" if policy == "float16" else None), *hidden, layers.Dense(3, dtype=head)]
    )


def exact(model, **options):
    """The gradient of each sample without weights, float64 (N, P)."""
    rows = G.per_sample_gradient(model, X, **options)
    return np.concatenate([np.asarray(tf.cast(g, tf.float64)).reshape(6, -1) for g in rows.values()], axis=1)


def flat(gradients):
    return np.concatenate([np.ravel(tf.cast(g, tf.float64)) for g in gradients.values()])


def close(got, wanted, tolerance):
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted)
    assert np.all((got != 0) == (wanted != 0))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_weights_are_as_good_as_if_they_were_applied_afterwards(policy):
    model = network(policy)
    wanted = exact(model)
    close(flat(G.gradient(model, X, sample_weight=C)), C @ wanted, 1e-5)
    close(exact(model, sample_weight=C), C[:, None] * wanted, 1e-5)
    close(G.per_sample_norm(model, X, sample_weight=C), np.abs(C) * np.linalg.norm(wanted, axis=1), 1e-5)
    close(G.gram(model, X, sample_weight=1e-4 * np.ones(6)), 1e-8 * wanted @ wanted.T, 1e-5)
    plain = np.asarray(G.input_gradient(model, X), np.float64)
    close(G.input_gradient(model, X, sample_weight=C), C[:, None] * plain, 1e-5)
    units, whole = (list(G.jacobian(model, X, **o).values()) for o in ({"sample_weight": C}, {}))
    for some, all_ in zip(units, whole, strict=True):
        close(np.reshape(some, [6, -1]), C[:, None] * np.reshape(all_, [6, -1]), 1e-5)
    j = np.concatenate([np.reshape(g, [18, -1]) for g in whole], axis=1).astype(np.float64)
    close(G.jacobian_gram(model, X, sample_weight=1e-4 * np.ones(6)), 1e-8 * j @ j.T, 1e-5)
    rows = C[:, None] * wanted
    lengths = np.linalg.norm(rows, axis=1)
    clipped = (np.minimum(1.0, 1e-7 / lengths)[:, None] * rows).sum(axis=0)
    assert 0 < np.sum(lengths > 1e-7) < 6
    close(flat(G.clipped_gradient(model, X, max_norm=1e-7, sample_weight=C)), clipped, 1e-5)
    activation, slope = G.activation_gradient(model, X, at=0)
    assert activation.dtype == tf.float32
    tolerance = 1e-2 if "bfloat16" in policy else 1e-3  # of the credits' own digits
    close(G.activation_gradient(model, X, at=0, sample_weight=C)[1][4], C[4] * np.asarray(slope)[4], tolerance)
    close(
        G.activation_gradient(model, X, at=0, sample_weight=C[:1] * np.ones(6))[1], C[0] * np.asarray(slope), tolerance
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_second_derivatives_along_a_small_direction_with_small_weights(policy):
    model, same = network(policy, head=policy), network("float32")
    same.set_weights([w.astype("float32") for w in model.get_weights()])
    c = 1e-5 * np.array([1.0, -2.0, 1e3, 0.5, -1e4, 3.0])  # results in float16 must not underflow themselves
    size = 1e-2 if policy == "float16" else 1e-9
    v = {k: size * np.random.default_rng(1).standard_normal(g.shape) for k, g in G.gradient(model, X).items()}

    def product(kind, model):
        direction = dict(zip([v.path for v in model.trainable_variables], v.values(), strict=True))
        if kind == "loss":
            loss = {
                "loss": lambda y, t: tf.reduce_sum((y - tf.cast(t, y.dtype)) ** 2, axis=1),
                "target": np.ones((6, 3)),
            }
            return flat(G.gauss_newton_vector_product(model, X, direction, sample_weight=c, **loss))
        if kind == "credit":
            lin = G.linearize(model, X, output=0)
            return flat(lin.hessian_vector_product(direction, c))
        return flat(G.hessian_vector_product(model, X, direction, output=0, sample_weight=c))

    for kind in ("loss", "credit", "weights"):
        got, wanted = product(kind, model), product(kind, same)
        assert np.linalg.norm(got - wanted) <= (6e-2 if "bfloat16" in policy else 2e-2) * np.linalg.norm(wanted)


@pytest.mark.parametrize("policy", POLICIES)
def test_credits_and_directions_of_a_linearization(policy):
    model = network(policy, head=policy)
    tolerance = 2e-2 if policy == "mixed_bfloat16" else 4e-3  # of one backward pass in that precision
    lin, wanted = G.linearize(model, X), exact(model)
    small = 1e-4 if policy == "float16" else 1.0  # results in float16 must not underflow themselves
    c = C * small * 1e6 if policy == "float16" else C
    close(flat(lin.vjp(c)), c @ wanted, tolerance)
    assert np.linalg.norm(flat(lin.gradient(c)) - c @ wanted) <= tolerance * np.linalg.norm(c @ wanted)
    v = {key: 1e-9 * np.random.default_rng(1).standard_normal(g.shape) for key, g in G.gradient(model, X).items()}
    close(lin.jvp(v), wanted @ flat(v), tolerance)
    close(flat(lin.sum_of_squares(np.abs(C))), np.abs(C) @ wanted**2, tolerance)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_layers_without_a_closed_form(policy):
    class Scaled(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

        def call(self, x):
            return x * self.scale

    model = network(policy, layers.Dense(8, "tanh", dtype=policy), Scaled(dtype=policy))
    wanted = exact(model)
    tolerance = 2e-2 if policy == "mixed_bfloat16" else 2e-3
    got = flat(G.gradient(model, X, sample_weight=C))
    assert np.linalg.norm(got - C @ wanted) <= tolerance * np.linalg.norm(C @ wanted)
    without_the_largest = C * (np.abs(C) < 1e-4)
    got = flat(G.gradient(model, X, sample_weight=without_the_largest))
    assert np.linalg.norm(got - without_the_largest @ wanted) <= tolerance * np.linalg.norm(
        without_the_largest @ wanted
    )
    close(exact(model, sample_weight=C), C[:, None] * wanted, 1e-5)
    close(exact(model, sample_weight=C, method="loop"), C[:, None] * exact(model, method="loop"), 1e-5)


def test_weights_of_steps():
    model = keras.Sequential([keras.Input((5, 4)), layers.Dense(8, "tanh", dtype="mixed_float16"), layers.Dense(2)])
    x = np.random.default_rng(1).standard_normal((3, 5, 4)).astype(np.float32)
    weights = np.random.default_rng(2).standard_normal((3, 5))

    def of_steps(scale, c):
        output = PerSequence(lambda y: y[..., 0], scale * weights)
        return (
            G.value_and_gradient(model, x, output=output, sample_weight=c),
            G.per_sample_gradient(model, x, output=output, sample_weight=c),
        )

    (value, total), rows = of_steps(1.0, [1.0, 2.0, 3.0])
    (small_value, small_total), small_rows = of_steps(1e-7, [1e-3, 2e-3, 3e-3])
    close(small_value, 1e-7 * np.asarray(value), 1e-5)
    close(flat(small_total), 1e-10 * flat(total), 2e-3)
    close(flat(small_rows), 1e-10 * flat(rows), 2e-3)


def test_a_fisher_product_of_a_small_direction():
    model = network("mixed_float16")
    keys = G.gradient(model, X, output=LogProb([0] * 6))
    v = {key: np.random.default_rng(1).standard_normal(g.shape) for key, g in keys.items()}
    lin = G.linearize(model, X, output=LogProb([0] * 6))
    wanted = flat(lin.fisher_vector_product(v))
    small = lin.fisher_vector_product({key: 1e-8 * g for key, g in v.items()}, sample_weight=1e-6, damping=0.0)
    close(flat(small), 1e-14 * wanted, 5e-3)
    damped = lin.fisher_vector_product(v, sample_weight=0.0, damping=1e-9)
    close(flat(damped), 1e-9 * flat(v), 1e-5)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.xla)])
def test_in_a_function(compiled):
    model = network("mixed_float16")
    wanted = C @ exact(model)

    @tf.function(jit_compile=compiled, autograph=False)
    def ask(x, c):
        return G.gradient(model, x, sample_weight=c), G.linearize(model, x).gradient(c)

    weighted, credited = ask(X, tf.constant(C, tf.float32))
    close(flat(weighted), wanted, 3e-3)
    assert np.linalg.norm(flat(credited) - wanted) <= 5e-3 * np.linalg.norm(wanted)


def test_several_credits_of_one_linearization_add_up():
    model = network("mixed_float16")
    lin = G.linearize(model, X, output={"a": 0, "b": 1})
    a, b = (exact(model, output=k) for k in (0, 1))
    got = flat(lin.gradient({"a": C, "b": 1e-3 * C}))
    wanted = C @ a + 1e-3 * C @ b
    assert np.linalg.norm(got - wanted) <= 3e-3 * np.linalg.norm(wanted)
    assert not flat(lin.gradient({"a": 0.0 * C, "b": 0.0})).any()
    assert np.isnan(flat(lin.gradient({"a": np.nan * C}))).any()


def test_samples_that_are_mixed_keep_their_weights():
    class Mixed(layers.Layer):
        def call(self, x):
            return x - keras.ops.mean(x, axis=0)

    half = network("mixed_float16", layers.Dense(8, "tanh", dtype="mixed_float16"), Mixed(dtype="mixed_float16"))
    whole = network("float32", layers.Dense(8, "tanh"), Mixed())
    whole.set_weights(half.get_weights())
    wanted = flat(G.gradient(whole, X, sample_weight=C))
    assert np.linalg.norm(flat(G.gradient(half, X, sample_weight=C)) - wanted) <= 5e-3 * np.linalg.norm(wanted)


def test_a_weight_of_another_shape_is_refused():
    model = network("mixed_float16")
    for ask in (G.gradient, G.per_sample_gradient, G.input_gradient):
        with pytest.raises(ValueError, match="sample_weight"):
            ask(model, X, sample_weight=np.ones((6, 3)))


def test_each_weight_is_in_one_range_of_sizes_and_comes_out_as_it_was():
    """Sizes down to 2⁻²⁴ of the largest, and those at the ranges' borders; what is smaller than that is in the last."""
    sizes = np.float32(2.0) ** np.arange(3, -36, -1)
    weights = np.concatenate([sizes, -sizes, 1.999 * sizes[1:], np.nextafter(sizes, np.float32(0.0)), [0.0]])
    found = in_ranges([tf.constant(weights[:50], tf.float32), tf.constant(weights[50:], tf.float32)])
    assert [float(scale) for scale, _ in found] == [8.0, 8.0 * 2.0**-8, 8.0 * 2.0**-16]
    scales = np.array([float(scale) for scale, _ in found])
    parts = np.stack([np.concatenate([part.numpy() for part in parts]) for _, parts in found])
    np.testing.assert_array_equal((scales[:, None] * parts).sum(axis=0), weights.astype(np.float32))
    assert ((parts != 0.0).sum(axis=0) == (weights != 0.0)).all(), "the ranges that a weight is in"
    assert np.abs(parts).max() < 2.0
    assert np.abs(parts[:-1])[parts[:-1] != 0.0].min() >= 2.0**-7
    first, *others = in_ranges([tf.constant([1.0, np.nan])])
    assert np.isnan(first[1][0][1]), "what is not a number stays in the first"
    assert [float(part[1]) for _, (part,) in others] == [0.0, 0.0]
