"""Training mode: equal to a hand-written tape of `stateless_call`, from explicit seeds, with statistics that are returned."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad import gradients, random
from rlgrad.core import keras_internals

layers = keras.layers
ROWS, SEED = 5, np.array([3, -4], np.int32)
X = zoo.normal(np.random.default_rng(0), ROWS, 4)


@keras.saving.register_keras_serializable("tests")
class Scale(layers.Layer):
    """A layer without a closed form."""

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], name="scale", initializer="ones")

    def call(self, x):
        return tf.sin(x * self.scale)


def dropout():
    parts = [layers.Dense(6, "tanh"), layers.Dropout(0.5), layers.LayerNormalization(), layers.Dropout(0.2)]
    return zoo.randomized(keras.Sequential([keras.Input((4,)), *parts, layers.Dense(3)]))


def with_a_free_layer():
    parts = [layers.Dense(6, "tanh"), layers.Dropout(0.5), Scale(), layers.Dense(3)]
    return zoo.randomized(keras.Sequential([keras.Input((4,)), *parts]))


def normalized(**options):
    norm = layers.BatchNormalization(name="norm", **options)
    return zoo.randomized(keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), norm, layers.Dense(3)]))


def both():
    parts = [layers.Dense(6, "tanh"), layers.Dropout(0.3), layers.BatchNormalization()]
    return zoo.randomized(keras.Sequential([keras.Input((4,)), *parts, layers.Dense(3)]))


def by_hand(model, x, seed, weights=None):
    """What the model returns, the gradient of each row's sum by each weight, and the statistics, of Keras's own call."""
    trained = [tf.convert_to_tensor(v) for v in (weights or model.trainable_variables)]
    drawn = {id(s): random.fold_in(seed, i) for i, s in enumerate(keras_internals.seed_states(model))}
    rest = [tf.cast(drawn[id(v)], v.dtype) if id(v) in drawn else v.value for v in model.non_trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(trained)
        y, after = model.stateless_call(trained, rest, x, training=True)
        rows = tf.unstack(tf.reduce_sum(y, axis=-1), num=ROWS)
    by_row = [tape.gradient(row, trained) for row in rows]
    still = {v.path: a for v, a in zip(model.non_trainable_variables, after, strict=True) if id(v) not in drawn}
    return y, [tf.stack(parts) for parts in zip(*by_row, strict=True)], still


def summed(by_row):
    return [tf.reduce_sum(g, axis=0) for g in by_row]


def values(model):
    return [v.numpy() for v in model.variables]


@pytest.mark.parametrize("make", [dropout, normalized, both])
def test_each_function_is_a_tape_of_keras_own_call_and_leaves_the_model_alone(make):
    model = make()
    before = values(model)
    y, by_row, _ = by_hand(model, X, SEED)
    mode = {"training": True, "seed": SEED}
    for _ in range(2):  # asked, and known from before
        value, found = gradients.value_and_gradient(model, X, **mode)
        zoo.assert_close([value], [tf.reduce_sum(y, axis=-1)])
        zoo.assert_close(found.values(), summed(by_row))
        zoo.assert_close(gradients.gradient(model, X, **mode).values(), summed(by_row))
        zoo.assert_close([gradients.evaluate(model, X, **mode)], [y])
        lin = gradients.linearize(model, X, **mode)
        zoo.assert_close([lin.outputs, *lin.gradient().values()], [tf.reduce_sum(y, axis=-1), *summed(by_row)])
    for kept, now in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_other_weights_are_run_in_training_mode_too():
    model = both()
    weights = [np.asarray(v.value) + 0.1 for v in model.trainable_variables]
    y, by_row, still = by_hand(model, X, SEED, weights)
    zoo.assert_close([gradients.evaluate(model, X, at=weights, training=True, seed=SEED)], [y])
    lin = gradients.linearize(model, X, training=True, seed=SEED).at(weights)
    zoo.assert_close(lin.gradient().values(), summed(by_row))
    zoo.assert_close(lin.statistics.values(), still.values())


@pytest.mark.parametrize("options", [{}, {"renorm": True}, {"momentum": 0.5}])
def test_statistics_are_returned_by_their_paths_and_none_at_inference(options):
    model = normalized(**options)
    before = values(model)
    _, by_row, still = by_hand(model, X, SEED)
    for _ in range(2):
        lin = gradients.linearize(model, X, training=True)
        assert {key.split("/")[-1] for key in lin.statistics} >= {"moving_mean", "moving_variance"}
        assert lin.statistics.keys() == still.keys()
        zoo.assert_close(lin.statistics.values(), still.values())
        zoo.assert_close(lin.gradient().values(), summed(by_row))
    moved = {v.path: np.any(lin.statistics[v.path] != v.value) for v in model.non_trainable_variables}
    assert all(moved.values()) or options.get("renorm")
    for kept, now in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(kept, now)
    assert gradients.linearize(model, X).statistics == {}


def test_the_same_seed_gives_the_same_masks_and_another_one_others():
    model = dropout()
    once, again, other = (gradients.evaluate(model, X, training=True, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - other).max() > 0.01
    assert np.abs(gradients.evaluate(model, X) - once).max() > 0.01
    large = gradients.evaluate(model, X, training=True, seed=2**32 + 7)
    assert np.abs(once - large).max() > 0.01


def test_layers_draw_independent_numbers():
    x = keras.Input((64,))
    model = keras.Model(x, layers.Concatenate()([layers.Dropout(0.5)(x), layers.Dropout(0.5)(x)]))
    left, right = np.split(gradients.evaluate(model, np.ones((4, 64), np.float32), training=True, seed=1), 2, axis=-1)
    assert 0.3 < np.mean(left == right) < 0.7


@pytest.mark.parametrize("make", [dropout, with_a_free_layer])
def test_rows_of_a_dropout_have_their_own_gradients(make):
    """Also in a layer without a closed form, where a sample that is run by itself would have the first row's mask."""
    model = make()
    _, by_row, _ = by_hand(model, X, SEED)
    lin = gradients.linearize(model, X, training=True, seed=SEED)
    zoo.assert_close(lin.per_sample().values(), by_row)
    flat = np.concatenate([np.reshape(g, (ROWS, -1)) for g in by_row], axis=-1)
    zoo.assert_close([lin.norm(), lin.gram()], [np.linalg.norm(flat, axis=-1), flat @ flat.T])


def test_input_gradients_pass_the_masks():
    model = dropout()
    states = keras_internals.seed_states(model)
    placed = [(s, tf.cast(random.fold_in(SEED, i), s.dtype)) for i, s in enumerate(states)]
    x = tf.constant(X)
    with keras.StatelessScope(placed), tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(model(x, training=True))
    expected = tape.gradient(y, x)
    mode = {"training": True, "seed": SEED}
    zoo.assert_close([gradients.input_gradient(model, X, **mode)], [expected])
    zoo.assert_close([gradients.linearize(model, X, **mode).input_gradient()], [expected])


@pytest.mark.parametrize("make", [normalized, lambda: normalized(renorm=True)])
def test_batch_statistics_have_no_gradient_of_a_sample(make):
    model = make()
    lin = gradients.linearize(model, X, training=True)
    for ask in (lin.per_sample, lin.norm, lin.gram, lambda: gradients.input_gradient(model, X, training=True)):
        with pytest.raises(gradients.BatchCoupledError, match="norm"):
            ask()
    gradients.linearize(model, X).per_sample()  # at inference they are constants


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.xla)])
def test_inside_of_a_function_of_the_caller(jit):
    """XLA's floats from a seed are its own, so there the hand-written tape is compiled as well."""
    model = both()

    @tf.function(jit_compile=jit)
    def run(x, seed):
        lin = gradients.linearize(model, x, training=True, seed=seed)
        y, by_row, still = by_hand(model, x, seed)
        expected = [tf.reduce_sum(y, axis=-1), *summed(by_row), *still.values()]
        return [lin.outputs, *lin.gradient().values(), *lin.statistics.values()], expected

    before = values(model)
    zoo.assert_close(*run(X, SEED))
    for kept, now in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_what_is_refused():
    model = dropout()
    with pytest.raises(ValueError, match=r"in training mode, in 'dropout.*pass seed="):
        gradients.gradient(model, X, training=True)
    with pytest.raises(ValueError, match="training=True, or leave it out"):
        gradients.gradient(model, X, seed=1)
    with pytest.raises(TypeError, match="True or False"):
        gradients.gradient(model, X, training=tf.constant(True))
    for seed, kind in ((-1, ValueError), (2**64, ValueError), ([1, 2, 3], ValueError), (0.5, TypeError)):
        with pytest.raises(kind, match="seed= is an integer"):
            gradients.gradient(model, X, training=True, seed=seed)
    gradients.gradient(normalized(), X, training=True)  # draws nothing


def test_a_layer_that_draws_from_keras_own_generator_is_seen():
    class Noisy(layers.Layer):
        def call(self, x, training=False):
            return x + keras.random.normal(tf.shape(x)) if training else x

    model = keras.Sequential([keras.Input((4,)), Noisy(), layers.Dense(2)])
    keras.random.normal((1,))
    with pytest.raises(ValueError, match="its own code"):
        gradients.gradient(model, X, training=True)
    once, again = (gradients.evaluate(model, X, training=True, seed=2) for _ in range(2))
    np.testing.assert_array_equal(once, again)
