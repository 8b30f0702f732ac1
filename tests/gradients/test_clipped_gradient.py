"""Gradients that are clipped one by one and added, against gradients of batches of one that are clipped by NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import small_models, zoo

from rlgrad.gradients import by_layer, clipped_gradient, gradient
from rlgrad.gradients.programs.program import programs_of

layers = keras.layers
C = np.array([0.5, -2.0, 1.0, 3.0])


def clipped(rows, most):
    """Σ_s min(1, C / ‖g_s‖) g_s of some variables' (S, *shape); 0 counts as 0."""
    lengths = np.sqrt(sum((g.reshape(len(g), -1) ** 2).sum(axis=1) for g in rows))
    scale = np.minimum(1.0, most / np.where(lengths > 0, lengths, 1.0))
    return [np.tensordot(scale, g, 1) for g in rows]


def lengths_of(rows):
    return np.sqrt(sum((g.reshape(len(g), -1) ** 2).sum(axis=1) for g in rows))


def samples(model, x, rows=4):
    return [g.astype(np.float64) for g in zoo.one_by_one(model, x, lambda y, n: C[n % 4] * y[0, 1], rows)]


def ask(model, x, **options):
    rows = tf.nest.flatten(x)[0].shape[0]
    return list(clipped_gradient(model, x, output=1, sample_weight=np.resize(C, rows), **options).values())


@pytest.mark.parametrize(
    "name",
    [
        "functional",
        "nested",
        "shared",
        "convolution",
        "embedding",
        "layer_norm",
        "batch_norm",
        "recurrent",
        "subclassed",
        "two_inputs",
        "depthwise",
    ],
)
def test_each_sample_is_made_no_longer_than_the_limit(name):
    model, x = zoo.make(name), zoo.inputs_for(name)
    rows = samples(model, x)
    most = float(np.median(lengths_of(rows)))
    assert 0 < (lengths_of(rows) > most).sum() < 4
    zoo.assert_close(ask(model, x, max_norm=most), clipped(rows, most))


def test_a_table_that_is_also_the_output_projection_counts_with_its_whole_gradient():
    model = zoo.randomized(small_models.built(small_models.TiedProjection(), (5,)))
    x = zoo.inputs_for("embedding")
    rows = samples(model, x)
    most = float(np.median(lengths_of(rows)))
    zoo.assert_close(ask(model, x, max_norm=most), clipped(rows, most))


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_each_layer_and_each_variable_by_itself(mode):
    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    rows, most = samples(model, x), 1.3
    keys = list(gradient(model, x))
    expected = []
    for name, part in by_layer(dict.fromkeys(keys)).items():
        expected += clipped([rows[keys.index(f"{name}/{variable}")] for variable in part], most)
    expected += [clipped([g], most)[0] for g in rows]

    def both(x, most):
        return [*ask(model, x, max_norm=most, per="layer"), *ask(model, x, max_norm=most, per="variable")]

    run = both if mode == "eager" else tf.function(both, jit_compile=mode == "xla", autograph=False)
    zoo.assert_close(run(tf.constant(x), tf.constant(most)), expected)


@pytest.mark.parametrize("size", [None, 3, 1])
def test_rows_of_a_segment_are_added_before_they_are_clipped(size):
    model, x = zoo.make("functional"), zoo.inputs_for("functional", 6)
    ids = np.array([1, 0, 1, 3, 0, 1])
    summed = [np.stack([g[ids == s].sum(axis=0) for s in range(4)]) for g in samples(model, x, 6)]
    most = 2.0
    assert 0 < (lengths_of(summed) > most).sum() < 4
    zoo.assert_close(ask(model, x, max_norm=most, segments=ids, chunk_size=size), clipped(summed, most))
    run = tf.function(
        lambda x: ask(model, x, max_norm=most, segments=ids, num_segments=4), jit_compile=True, autograph=False
    )
    if size is None:
        zoo.assert_close(run(x), clipped(summed, most))


@pytest.mark.parametrize("method", ["auto", "vmap", "loop"])
def test_chunks_and_methods_change_nothing(method):
    model, x = zoo.make("subclassed"), zoo.inputs_for("subclassed", 5)
    rows = samples(model, x, 5)
    zoo.assert_close(ask(model, x, max_norm=1.0, chunk_size=2, method=method), clipped(rows, 1.0))


def test_a_gradient_of_length_zero_counts_as_zero_and_can_be_differentiated():
    model = zoo.randomized(keras.Sequential([keras.Input((2,)), layers.Dense(2, use_bias=False)]))
    x = tf.constant([[0.0, 0.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        (g,) = clipped_gradient(model, x, output=0, max_norm=1.0).values()
        seen = tf.reduce_sum(g * [[1.0, 0.0], [2.0, 0.0]])
    np.testing.assert_allclose(g, [[0.6, 0.0], [0.8, 0.0]], rtol=1e-6)
    # The first sample is not clipped: d/dx = (1, 2). The second is x/‖x‖: (I − x̂ x̂ᵀ)(1, 2)/5.
    np.testing.assert_allclose(tape.gradient(seen, x), [[1.0, 2.0], [-0.064, 0.048]], atol=1e-6)


def test_what_cannot_be_clipped_is_not_left_out_without_a_word():
    model = zoo.randomized(keras.Sequential([keras.Input((2,)), layers.Dense(2, use_bias=False)]))
    for far in (1e20, np.inf, np.nan):
        (g,) = clipped_gradient(model, np.array([[far, 1.0], [3.0, 4.0]], np.float32), output=0, max_norm=1.0).values()
        assert np.isnan(np.asarray(g)[:, 0]).all(), far
    (g,) = clipped_gradient(model, np.array([[1e-30, 0.0]], np.float32), output=0, max_norm=1e-25).values()
    np.testing.assert_allclose(g[0, 0], 1e-30)


def test_another_limit_or_batch_compiles_nothing_and_no_rows_give_zeros():
    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    for rows, most in ((4, 1.0), (2, 3.0), (0, np.float32(2)), (3, tf.constant(0.5))):
        got = clipped_gradient(model, x[:rows], max_norm=most)
        assert [g.shape for g in got.values()] == [v.shape for v in model.trainable_variables]
        assert rows or not any(np.any(g) for g in got.values())
    assert len(programs_of(model)) == 1
    zoo.assert_close(clipped_gradient(model, x, max_norm=1e9).values(), gradient(model, x).values())


def test_refusals_say_what_was_expected():
    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    for wrong in (0.0, -1, np.nan, [1.0, 2.0]):
        with pytest.raises(ValueError, match="max_norm= is one positive number"):
            clipped_gradient(model, x, max_norm=wrong)
    with pytest.raises(ValueError, match="per= is one of"):
        clipped_gradient(model, x, max_norm=1.0, per="head")
    with pytest.raises(MemoryError, match=r"Give chunk_size=\d+"):
        clipped_gradient(model, x, max_norm=1.0, memory_limit=100)
    run = tf.function(lambda most: list(clipped_gradient(model, x, max_norm=most).values()), autograph=False)
    assert all(np.isnan(g).all() for g in run(tf.constant(-1.0)))
