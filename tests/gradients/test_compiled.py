"""Eager calls are compiled once, keep nothing alive and leave the model as it was."""

import gc
import itertools
import logging
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo
from helpers.slow import mostly_slow

from rlgrad import gradients
from rlgrad.core.reach import STORED
from rlgrad.gradients import Entropy, LogProb, gradient, input_gradient, jacobian, linearize, per_sample_gradient
from rlgrad.gradients.programs import cache, program

layers = keras.layers


class Counted(keras.Model):
    """Counts how often its Python code runs, which in a compiled call is how often it is traced.

    It counts where rlgrad does not look: an attribute would have its earlier value again.
    """

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3, name="hidden")
        self.dense.build((None, 4))
        self.built, self.counter = True, itertools.count()

    def call(self, x):
        next(self.counter)
        return self.dense(x)

    @property
    def runs(self):
        return int(repr(self.counter).removeprefix("count(").removesuffix(")"))


def squared_norm(y):
    return tf.reduce_sum(y**2, axis=-1)


# Each with the times that it traces a model. Functions about samples first run a model whose code is its own three times, to
# see whether it mixes them; most trace it once on no numbers, to see which layers have a closed form there, or to count rows.
# The Gauss-Newton matrix is two programs.
ASKED = {
    "gradient": (1, lambda model, x, v, **options: gradient(model, x, **options)),
    "per_sample": (5, lambda model, x, v, **options: per_sample_gradient(model, x, **options)),
    "jacobian": (5, lambda model, x, v, **options: jacobian(model, x)),
    "input": (4, lambda model, x, v, output, **options: input_gradient(model, x, output=output)),
    "input_jacobian": (5, lambda model, x, v, **options: gradients.input_jacobian(model, x)),
    "input_jvp": (5, lambda model, x, v, **options: gradients.input_jvp(model, x, np.cos(x))),
    "activation": (4, lambda model, x, v, **options: gradients.activation_gradient(model, x, at="hidden", **options)),
    "clipped": (5, lambda model, x, v, **options: gradients.clipped_gradient(model, x, max_norm=0.1, **options)),
    "hessian": (1, lambda model, x, v, **options: gradients.hessian_vector_product(model, x, v, **options)),
    "gauss_newton": (
        5,
        lambda model, x, v, sample_weight, **options: gradients.gauss_newton_vector_product(
            model, x, v, loss=squared_norm, sample_weight=sample_weight
        ),
    ),
    "jacobian_gram": (5, lambda model, x, v, **options: gradients.jacobian_gram(model, x)),
    "linearize": (
        1,
        lambda model, x, v, output, sample_weight: linearize(model, x, output={"a": output, "b": 1}).gradient(
            {"a": sample_weight, "b": 2.0}
        ),
    ),
}


@mostly_slow(
    "function", list(ASKED), quick=["gradient", "jacobian", "clipped", "input_jvp", "gauss_newton", "linearize"]
)
def test_a_hundred_calls_with_other_numbers_and_batch_sizes_trace_once(function):
    model, generator = Counted(), np.random.default_rng(0)
    count, call = ASKED[function]

    def ask(n, scale):
        x, actions, c = zoo.normal(generator, n, 4), generator.integers(0, 3, n), generator.standard_normal(n)
        v = {variable.path: zoo.normal(generator, *variable.shape) for variable in model.weights}
        call(model, x, v, output=LogProb(actions) + scale * Entropy(), sample_weight=c)

    ask(3, 0.1)
    traced = model.runs
    for i in range(100):
        ask(1 + i % 7, 0.01 * i)
    assert model.runs == traced == count
    assert len(program.programs_of(model)) == (2 if function == "gauss_newton" else 1)


def test_functions_see_the_weights_of_the_moment():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    before = gradient(model, x, output=0)
    model.layers[1].kernel.assign(2.0 * model.layers[1].kernel)
    after = gradient(model, x, output=0)
    zoo.assert_close([after["plain/first/kernel"]], [2.0 * np.asarray(before["plain/first/kernel"])])


def test_what_shapes_the_computation_is_not_confused():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    first = [np.asarray(gradient(model, x, output=k)["plain/out/bias"]) for k in (0, 1, [0, 1, 1, 2])]
    np.testing.assert_array_equal(first, [[4, 0, 0], [0, 4, 0], [1, 2, 1]])
    assert list(gradient(model, x, layer="first")) != list(gradient(model, x))
    model.add(layers.Dense(2, name="more"))
    assert "plain/more/kernel" in gradient(model, x)
    model.layers[0].trainable = False
    assert "plain/first/kernel" not in gradient(model, x)


def test_functions_given_as_outputs_are_not_kept_because_what_they_capture_may_change():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    scale = [1.0]
    scaled = lambda y: scale[0] * y[:, 0]
    before = gradient(model, x, output=scaled)
    scale[0] = 3.0
    zoo.assert_close(gradient(model, x, output=scaled).values(), [3.0 * np.asarray(g) for g in before.values()])
    assert program.programs_of(model) == []


def test_a_model_that_is_no_longer_used_is_freed():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    gradient(model, x, output=LogProb([0, 1, 2, 0]))
    per_sample_gradient(model, x, layer="first")
    linearize(model, x).gradient()
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_the_number_of_kept_functions_is_bounded(monkeypatch):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 2)
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    for layer in ("first", "out", None, "first"):
        gradient(model, x, layer=layer)
    assert len(program.programs_of(model)) == 2


def state(model):
    everything = [model, *model._flatten_layers(include_self=False)]
    return (
        [np.asarray(v).tolist() for v in model.variables],
        [sorted(layer.__dict__.keys() - {STORED}) for layer in everything],
        [id(loss) for layer in everything for loss in layer._losses],
        [layer.__dict__.get("call") for layer in everything],
    )


def with_losses():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, activity_regularizer="l2", kernel_regularizer="l2", name="first"),
            layers.BatchNormalization(),
            layers.Dropout(0.5, seed=3),
            layers.Dense(3, name="out"),
        ]
    )


@pytest.mark.parametrize("traced", [False, True])
def test_the_model_is_untouched_also_by_a_call_that_fails(traced):
    model, x = zoo.randomized(with_losses()), zoo.inputs_for("sequential")
    model(x)
    before = state(model)
    assert before[2]

    def every_function(x):
        for function in (gradient, per_sample_gradient, jacobian, input_gradient):
            function(model, x, layer="out", output=1)
        linearize(model, x, output={"a": 1}).gradient({"a": 1.0})
        with pytest.raises(ZeroDivisionError):
            gradient(model, x, layer="out", output=lambda y: y[:, 0] * (1 / 0))
        with pytest.raises(ValueError, match="batch axis"):
            gradient(model, x, layer="out", output=lambda y: tf.reduce_sum(y))
        return x

    (tf.function(every_function, autograph=False) if traced else every_function)(tf.constant(x))
    assert state(model) == before


def test_a_layers_own_error_comes_through_and_restores_it():
    def fails(inputs, training=None):
        raise ArithmeticError("on purpose")

    model = zoo.make("sequential")
    model.layers[0].call = fails
    with pytest.raises(ArithmeticError, match="on purpose"):
        gradient(model, zoo.inputs_for("sequential"), layer="first")
    assert model.layers[0].__dict__["call"] is fails


def test_what_cannot_be_vectorized_runs_in_a_loop_without_pages_of_log(caplog, monkeypatch):
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    expected = per_sample_gradient(model, x, output=1)
    fresh = keras.models.clone_model(model)
    fresh.set_weights(model.get_weights())

    def fails(function, elements, **kwargs):
        raise NotImplementedError("no rule")

    monkeypatch.setattr(tf, "vectorized_map", fails)
    zoo.assert_close(per_sample_gradient(fresh, x, output=1).values(), expected.values())
    monkeypatch.undo()
    with caplog.at_level(logging.WARNING), caplog.at_level(logging.INFO, logger="tensorflow"):
        for name in ("convolution", "convolution_3d", "depthwise"):
            per_sample_gradient(zoo.make(name), zoo.inputs_for(name))
            assert tf.get_logger().level == logging.INFO
    assert [record for record in caplog.records if "while_loop" in record.getMessage()] == []


def test_what_fails_only_when_it_runs_vectorized_is_compiled_again_as_a_loop(monkeypatch):
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    real = tf.vectorized_map

    def broken(function, elements, **kwargs):
        results = real(function, elements, **kwargs)
        with tf.control_dependencies([tf.debugging.Assert(False, ["vectorized badly"])]):
            return [tf.identity(result) for result in results]

    monkeypatch.setattr(tf, "vectorized_map", broken)
    got = per_sample_gradient(model, x, output=1)
    again = per_sample_gradient(model, x, output=1)
    zoo.assert_close(got.values(), zoo.one_by_one(model, x, lambda y, n: y[0, 1], 4))
    zoo.assert_close(again.values(), got.values())


def test_gradients_of_gradients_can_be_taken():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    kernel = model.layers[0].kernel.value
    with tf.GradientTape() as tape:
        square = tf.reduce_sum(gradient(model, x, output=0)["plain/out/kernel"] ** 2)
    with tf.GradientTape() as outer:
        h = tf.reduce_sum(tf.tanh(x @ kernel + model.layers[0].bias), axis=0)
        expected = tf.reduce_sum(h**2)
    np.testing.assert_allclose(tape.gradient(square, kernel), outer.gradient(expected, kernel), rtol=1e-3, atol=1e-5)
