"""Gradients by chosen inputs: at other weights, and of a linearization, beside inputs that have no gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo
from helpers.slow import mostly_slow

from rlgrad import gradients
from rlgrad.gradients import LogProb, input_gradient, linearize

layers = keras.layers
ROWS = 3


def mixed():
    """A float action beside a byte image, token ids, a mask, and numbers that only one head reads."""
    inputs = {
        "action": keras.Input((2,), name="action"),
        "image": keras.Input((4, 4, 1), dtype="uint8", name="image"),
        "ids": keras.Input((3,), dtype="int32", name="ids"),
        "mask": keras.Input((2,), dtype="bool", name="mask"),
        "unused": keras.Input((2,), name="unused"),
    }
    seen = layers.Flatten()(layers.Conv2D(2, 2, activation="tanh")(layers.Rescaling(1 / 255)(inputs["image"])))
    words = layers.Flatten()(layers.Embedding(5, 2)(inputs["ids"]))
    kept = keras.ops.where(inputs["mask"], inputs["action"], 0.5 * inputs["action"])
    h = layers.Dense(4, "tanh")(layers.Concatenate()([seen, words, kept]))
    q = layers.Dense(2, name="q")(h)
    return zoo.randomized(keras.Model(inputs, {"q": q, "other": layers.Dense(1)(inputs["unused"])}))


def numbers(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "action": zoo.normal(rng, ROWS, 2),
        "image": rng.integers(0, 256, (ROWS, 4, 4, 1)).astype(np.uint8),
        "ids": rng.integers(0, 5, (ROWS, 3)),
        "mask": rng.integers(0, 2, (ROWS, 2)).astype(bool),
        "unused": zoo.normal(rng, ROWS, 2),
    }


def by_tape(model, x, f, key="action"):
    x = tf.nest.map_structure(tf.constant, x)
    with tf.GradientTape() as tape:
        tape.watch(x[key])
        total = tf.reduce_sum(f(model(x, training=False)))
    return tape.gradient(total, x[key])


def scaled(model, factor):
    copy = keras.models.clone_model(model)
    copy.set_weights([factor * np.asarray(v) for v in model.weights])
    return copy


C = np.array([0.5, -2.0, 1.0], np.float32)


@pytest.mark.parametrize("mode", ["eager", "graph", pytest.param("xla", marks=pytest.mark.xla)])
def test_chosen_inputs_have_gradients_beside_all_kinds_of_others(mode):
    model, x = mixed(), numbers()
    values = {v.path: 0.5 * np.asarray(v) for v in model.trainable_variables}
    other = scaled(model, 0.5)

    def run(x):
        lin = linearize(model, x, output={"q": gradients.Output.of("q", unit=1), "other": "other"})
        at = lin.at(values)
        options = {"output": gradients.Output.of("q", unit=1), "sample_weight": C}
        return {
            "function": input_gradient(model, x, inputs="action", **options),
            "at": input_gradient(model, x, inputs="action", at=values, **options),
            "listed": input_gradient(model, x, inputs=["action"], at=list(values.values()), **options)["action"],
            "linearization": lin.input_gradient({"q": C}, inputs="action"),
            "linearization at": at.input_gradient({"q": C}, inputs=["action"])["action"],
            "both": lin.input_gradient({"q": C, "other": 2.0}, inputs=["unused", "action"]),
        }

    if mode == "eager":
        found = run(x)
    else:
        traced = tf.function(run, autograph=False, jit_compile=mode == "xla")
        found = traced(tf.nest.map_structure(tf.constant, x | {"ids": x["ids"].astype(np.int32)}))
    here, there = (by_tape(m, x, lambda y: C * y["q"][:, 1]) for m in (model, other))
    for name, expected in {"function": here, "at": there, "listed": there, "linearization": here}.items():
        zoo.assert_close([found[name]], [expected])
    zoo.assert_close([found["linearization at"]], [there])
    assert list(found["both"]) == ["unused", "action"]
    unused = by_tape(model, x, lambda y: 2.0 * y["other"], "unused")
    zoo.assert_close(found["both"].values(), [unused, here])


@mostly_slow("name", ["two_inputs", "convolution", "recurrent", "subclassed"], quick=2)
def test_without_inputs_all_of_them_are_meant(name):
    model, x = zoo.make(name), zoo.inputs_for(name)
    lin = linearize(model, x, output=LogProb([0, 2, 1, 1]))
    credit = zoo.normal(np.random.default_rng(0), 4)
    found = lin.input_gradient(credit)
    expected = input_gradient(model, x, output=LogProb([0, 2, 1, 1]), sample_weight=credit)
    tf.nest.assert_same_structure(found, expected)
    zoo.assert_close(tf.nest.flatten(found), tf.nest.flatten(expected))


def test_the_input_gradient_of_a_linearization_comes_from_the_same_run():
    model = zoo.make("sequential")
    x = zoo.inputs_for("sequential")

    def products(ask):
        graph = tf.function(ask, autograph=False).get_concrete_function(tf.constant(x)).graph
        return sum(op.type == "MatMul" for op in graph.get_operations())

    def both(x):
        lin = linearize(model, x)
        return lin.input_gradient(), list(lin.gradient().values())

    alone = products(lambda x: linearize(model, x).input_gradient())
    assert alone == 4  # two layers forward, and back to the input
    assert products(lambda x: list(linearize(model, x).gradient().values())) == 5
    assert products(both) == 4 + 5 - 2  # one forward pass

    lin = linearize(model, x)
    before = input_gradient(model, x)
    model.trainable_variables[0].assign_add(tf.ones((4, 6)))
    zoo.assert_close([lin.input_gradient()], [before])


def test_the_way_in_which_the_input_is_written_is_that_of_the_call():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    for _ in range(3):  # the first two share a program
        assert tf.is_tensor(linearize(model, x).input_gradient())
        listed = linearize(model, [x]).input_gradient()
        assert isinstance(listed, list)
        assert tf.is_tensor(linearize(model, [x]).input_gradient(inputs=0))


def test_a_tensor_that_is_an_input_twice_or_a_target_too_counts_once_for_each():
    model = zoo.randomized(keras.Model([a := keras.Input((2,)), b := keras.Input((2,))], layers.Dense(2)(a * b + a)))
    x = tf.constant(zoo.normal(np.random.default_rng(0), ROWS, 2))
    for output, target in ((None, None), (lambda y, t: tf.reduce_sum((y - t) ** 2, axis=-1), x)):
        expected = input_gradient(model, [x, tf.identity(x)], output=output, target=target)
        zoo.assert_close(linearize(model, [x, x], output=output, target=target).input_gradient(), expected)
        zoo.assert_close(input_gradient(model, [x, x], output=output, target=target), expected)
    noise = tf.constant(zoo.normal(np.random.default_rng(1), ROWS, 2))
    action = gradients.Action(noise, gradients_of_noise())
    actor = zoo.randomized(keras.Model(i := keras.Input((2,)), {"mean": layers.Dense(2)(i), "log_std": 0.1 * i}))
    expected = input_gradient(actor, tf.identity(noise), output=action)
    zoo.assert_close([linearize(actor, noise, output=action).input_gradient()], [expected])


def gradients_of_noise():
    from rlgrad.distributions import DiagonalGaussian

    return DiagonalGaussian()


@pytest.mark.parametrize("traced", [False, True])
def test_what_has_no_gradient_is_refused(traced):
    model, x = mixed(), numbers()

    def refused(error, match, credit=None, **options):
        def ask(x):
            lin = linearize(model, x, output={"q": gradients.Output.of("q", unit=1), "other": "other"})
            return lin.input_gradient(credit, **options)

        run = tf.function(ask, autograph=False) if traced else ask
        with pytest.raises(error, match=match):
            run(x)

    refused(TypeError, "uint8", inputs="image")
    refused(TypeError, "Say what is to be differentiated")
    refused(gradients.DisconnectedGradientError, "unused.*It depends on inputs='action'", {"q": 1.0}, inputs="unused")
    refused(ValueError, "no part 'acton'. Did you mean 'action'", inputs="acton")
    refused(ValueError, "No output is called", {"p": 1.0}, inputs="action")
    refused(ValueError, "shape", {"q": np.ones((ROWS, 1))}, inputs="action")


def test_samples_that_are_mixed_are_refused():
    class Centred(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            y = self.dense(x)
            return {"mixed": y - tf.reduce_mean(y, axis=0), "own": y}

    model, x = Centred(), zoo.inputs_for("sequential")
    model(x)
    lin = linearize(model, x, output={"mixed": "mixed", "own": "own"})
    with pytest.raises(gradients.BatchCoupledError):
        lin.input_gradient()
    zoo.assert_close([lin.input_gradient({"own": 1.0})], [input_gradient(model, x, output="own")])
    sequential = zoo.make("sequential")
    with pytest.raises(gradients.BatchCoupledError, match="function given as output"):
        linearize(sequential, x, output=lambda y: y[:, 0] - tf.reduce_mean(y[:, 0])).input_gradient()


def test_half_precision_keeps_small_credits_of_inputs():
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = zoo.make("sequential")
    finally:
        keras.config.set_dtype_policy(previous)
    x = zoo.inputs_for("sequential")
    usual, small = (linearize(model, x, output=1).input_gradient([c, -c, c, 2 * c]) for c in (1.0, 2.0**-30))
    zoo.assert_close([small * 2.0**30], [usual], rtol=1e-2, atol=1e-3)
