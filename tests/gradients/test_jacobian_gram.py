"""J Jᵀ over samples and units, against the Jacobian that a tape gives for each sample and unit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import small_models, zoo

from rlgrad.gradients import gram, jacobian_gram
from rlgrad.gradients.programs.program import programs_of

layers = keras.layers
C = np.array([0.5, -2.0, 1.0])


def rows_of(model, x, count=3, units=3):
    """(N·K, P): row n·K + k is the gradient of unit k of sample n."""
    by_unit = [zoo.one_by_one(model, x, lambda y, n, k=k: tf.reshape(y, [-1])[k], count) for k in range(units)]
    flat = [np.concatenate([g.reshape(count, -1) for g in parts], axis=1) for parts in by_unit]
    return np.stack(flat, axis=1).reshape(count * units, -1).astype(np.float64)


@pytest.mark.parametrize(
    "name",
    ["functional", "shared", "convolution", "embedding", "layer_norm", "recurrent", "subclassed", "two_inputs", "tied"],
)
def test_it_is_the_jacobian_times_itself(name):
    tied = name == "tied"
    model = zoo.randomized(small_models.built(small_models.TiedProjection(), (5,))) if tied else zoo.make(name)
    x = zoo.inputs_for("embedding" if tied else name, 3)
    J = np.repeat(C, 3)[:, None] * rows_of(model, x)
    zoo.assert_close([jacobian_gram(model, x, sample_weight=C)], [J @ J.T])


def test_parts_of_the_weights_and_the_output_of_a_layer():
    model, x = zoo.make("functional"), zoo.inputs_for("functional", 3)
    J = rows_of(keras.Model(model.input, model.get_layer("first").output), x, units=6)[:, : 4 * 6]
    zoo.assert_close([jacobian_gram(model, x, layer="first", weights="first/kernel")], [J @ J.T])


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_chunks_and_another_batch_change_nothing(mode):
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential", 3)
    J = rows_of(model, x)

    def ask(x):
        return jacobian_gram(model, x, chunk_size=2), jacobian_gram(model, x[:2], x[2:], chunk_size=2)

    run = ask if mode == "eager" else tf.function(ask, jit_compile=True, autograph=False)
    zoo.assert_close(run(tf.constant(x)), [J @ J.T, J[:6] @ J[6:].T])


def test_of_one_number_per_sample_it_is_gram():
    model, x = zoo.make("functional"), zoo.inputs_for("functional", 3)
    unit, other = np.array([2, 0, 1]), np.array([1, 1])
    zoo.assert_close([jacobian_gram(model, x, output=unit)], [gram(model, x, output=unit)])
    options = {"output": unit, "output_y": other}
    zoo.assert_close([jacobian_gram(model, x, x[:2], **options)], [gram(model, x, x[:2], **options)])


def test_many_units_and_units_with_several_axes():
    wide = zoo.randomized(keras.Sequential([keras.Input((3,)), layers.Dense(2, "tanh"), layers.Dense(66)]))
    x = zoo.normal(np.random.default_rng(0), 2, 3)
    J = rows_of(wide, x, 2, 66)
    zoo.assert_close([jacobian_gram(wide, x)], [J @ J.T])
    conv = zoo.randomized(keras.Sequential([keras.Input((3, 3, 1)), layers.Conv2D(2, 2, activation="tanh")]))
    x = zoo.normal(np.random.default_rng(0), 2, 3, 3, 1)
    J = rows_of(conv, x, 2, 8)
    zoo.assert_close([jacobian_gram(conv, x)], [J @ J.T])


def test_no_rows_and_any_number_of_rows_from_one_program():
    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    for rows in (4, 2, 0):
        assert jacobian_gram(model, x[:rows]).shape == (3 * rows, 3 * rows)
    assert len(programs_of(model)) == 1
    assert jacobian_gram(model, x, x[:0]).shape == (12, 0)
    assert jacobian_gram(model, x[:0], x).shape == (0, 12)


def test_refusals_say_what_to_ask_instead():
    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    with pytest.raises(MemoryError, match=r"4 by 4 samples with 3 units each would take 0.000576 MB.*x\[a:b\], x"):
        jacobian_gram(model, x, memory_limit=575)
    with pytest.raises(MemoryError, match=r"cotangents of all units, for 4 samples.*Give chunk_size=\d+"):
        jacobian_gram(model, x, memory_limit=700)
    assert jacobian_gram(model, x, memory_limit=2000, chunk_size=1).shape == (12, 12)
    with pytest.raises(ValueError, match="sample_weight= and segments= belong to x"):
        jacobian_gram(model, x, x, sample_weight=np.ones(4))
    with pytest.raises(ValueError, match="y is missing"):
        jacobian_gram(model, x, output_y=1)
    with pytest.raises(ValueError, match=r"one number per sample, shape \(N,\), got \(4, 3\)"):
        jacobian_gram(model, x, sample_weight=np.ones((4, 3)))
