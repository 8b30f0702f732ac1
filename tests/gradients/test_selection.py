"""layer= and weights=: what each way of naming means, and what a wrong name says."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad.gradients import DisconnectedGradientError, LogProb, gradient, input_gradient, jacobian, per_sample_gradient

layers = keras.layers


def paths(model, weights, **kwargs):
    return list(gradient(model, zoo.inputs_for("functional"), weights=weights, **kwargs))


def test_every_way_of_naming_weights_chooses_those_and_keeps_the_models_order():
    model = zoo.make("functional")
    first, out = model.get_layer("first"), model.get_layer("out")
    whole = gradient(model, zoo.inputs_for("functional"))
    both = ["first/kernel", "first/bias"]
    assert paths(model, "first") == paths(model, first) == paths(model, 1) == both
    assert paths(model, "first/bias") == paths(model, first.bias) == ["first/bias"]
    assert paths(model, "bias") == ["first/bias", "side/bias", "out/bias"]
    assert paths(model, -1) == paths(model, "out") == ["out/kernel", "out/bias"]
    assert paths(model, [out.bias, "first", first.kernel]) == [*both, "out/bias"]
    chosen = gradient(model, zoo.inputs_for("functional"), weights=["out", "first"])
    for path, value in chosen.items():
        np.testing.assert_array_equal(value, whole[path])


def test_nested_layers_and_the_models_own_weights_are_found_by_name():
    nested = zoo.make("nested")
    assert paths(nested, "inner") == ["inner/d/kernel", "inner/d/bias", "inner/e/kernel", "inner/e/bias"]
    assert paths(nested, "d") == ["inner/d/kernel", "inner/d/bias"]
    subclassed = zoo.make("subclassed")
    assert paths(subclassed, "scale") == ["sub/scale"]
    assert paths(subclassed, "hidden") == ["sub/hidden/kernel", "sub/hidden/bias"]


def test_a_frozen_float_variable_can_be_named():
    model, x = zoo.make("batch_norm"), zoo.inputs_for("batch_norm")
    norm = model.layers[1]
    got = gradient(model, x, output=0, weights=[norm.moving_mean, norm.gamma])
    assert list(got) == [norm.gamma.path, norm.moving_mean.path]
    expected = zoo.one_by_one(model, x, lambda y, n: y[0, 0], 4, [norm.gamma, norm.moving_mean])
    zoo.assert_close(got.values(), [e.sum(axis=0) for e in expected])
    model.layers[0].trainable = False
    assert model.layers[0].kernel.path not in gradient(model, x)
    assert list(gradient(model, x, weights=model.layers[0].kernel)) == [model.layers[0].kernel.path]


def test_without_weights_only_the_connected_ones_are_listed():
    model, x = zoo.randomized(zoo.two_heads()), zoo.inputs_for("functional")
    assert list(gradient(model, x, output="value")) == ["body/kernel", "body/bias", "v/kernel", "v/bias"]
    assert list(gradient(model, x, output=LogProb([0, 1, 2, 0]))) == [
        "body/kernel",
        "body/bias",
        "logits/kernel",
        "logits/bias",
    ]


@pytest.mark.parametrize("function", [gradient, per_sample_gradient, jacobian])
def test_an_unconnected_weight_raises_and_lists_what_is_connected(function):
    model, x = zoo.randomized(zoo.two_heads()), zoo.inputs_for("functional")
    with pytest.raises(
        DisconnectedGradientError, match=r"chosen weights: logits/kernel, logits/bias\. Connected are: body/ke"
    ):
        function(model, x, output="value", weights=["logits", "v"])
    with pytest.raises(DisconnectedGradientError, match="does not depend on any trainable weight"):
        function(model, x, output=lambda y: tf.stop_gradient(y["value"])[:, 0])


def test_a_layers_output_is_differentiated_wherever_the_layer_is():
    x = zoo.inputs_for("functional")
    c = np.random.default_rng(0).standard_normal(4).astype(np.float32)
    for model, name, chain in [
        (m := zoo.make("sequential"), "first", [m.layers[0]]),
        (m := zoo.make("functional"), "side", [m.get_layer("side")]),
        (m := zoo.make("nested"), "d", [m.get_layer("inner").layers[0]]),
        (m := zoo.make("nested"), "inner", m.get_layer("inner").layers),
        (m := zoo.make("subclassed"), "hidden", [m.hidden]),
    ]:
        with tf.GradientTape() as tape:
            y = tf.constant(x)
            for layer in chain:
                y = layer(y)
            total = tf.reduce_sum(c * y[:, 1])
        expected = tape.gradient(total, [v.value for layer in chain for v in layer.trainable_variables])
        for chosen in (name, next(layer for layer in zoo_layers(model) if layer.name == name)):
            got = gradient(model, x, layer=chosen, output=1, sample_weight=c)
            zoo.assert_close(got.values(), expected)
        each = per_sample_gradient(model, x, layer=name, output=1, sample_weight=c)
        zoo.assert_close([np.sum(g, axis=0) for g in each.values()], expected)


def zoo_layers(model):
    return [layer for outer in model.layers for layer in [outer, *getattr(outer, "layers", [])]]


def test_a_layer_can_be_named_by_position_and_its_input_gradient_taken():
    model, x = zoo.make("convolution"), zoo.inputs_for("convolution")
    filters = input_gradient(model, x, layer=0, output=2)
    with tf.GradientTape() as tape:
        tape.watch(tensor := tf.constant(x))
        total = tf.reduce_sum(model.layers[0](tensor)[..., 2])
    zoo.assert_close([filters], [tape.gradient(total, tensor)])


@pytest.mark.parametrize("jit", [False, True])
def test_a_layers_output_can_be_differentiated_in_the_callers_compiled_function(jit):
    model, x = zoo.make("nested"), zoo.inputs_for("nested")
    run = tf.function(lambda x: list(gradient(model, x, layer="d").values()), jit_compile=jit, autograph=False)
    zoo.assert_close(run(x), gradient(model, x, layer="d").values())


def test_a_layer_that_runs_twice_or_never_is_refused():
    x = zoo.inputs_for("shared")
    with pytest.raises(ValueError, match="'twice' was called 2 times"):
        gradient(zoo.make("shared"), x, layer="twice")

    class Spare(zoo.Subclassed):
        def call(self, x):
            return self.hidden(x)

    model = Spare()
    model(x)
    with pytest.raises(ValueError, match="'wrapped' was not reached"):
        gradient(model, x, layer="wrapped")


def test_wrong_names_say_what_was_meant():
    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    cases = [
        ({"weights": "frist"}, ValueError, "no layer or weight 'frist'. Did you mean 'first'"),
        ({"weights": "zzz"}, ValueError, "There are: .*'first'.*'out/bias'"),
        ({"weights": 9}, ValueError, r"weights=9, but model .* has 5 layers \(0 … 4\)"),
        ({"weights": []}, ValueError, "selects nothing"),
        ({"weights": 1.5}, TypeError, "got float"),
        ({"weights": True}, TypeError, "got bool"),
        ({"weights": 0}, ValueError, "has no trainable weights"),
        ({"weights": keras.Variable(1, dtype="int32")}, ValueError, "dtype int32"),
        ({"weights": keras.Variable(1.0, name="stranger")}, DisconnectedGradientError, "stranger"),
        ({"layer": "sidee"}, ValueError, "no layer 'sidee'. Did you mean 'side'"),
        ({"layer": 1.0}, TypeError, "got float"),
        ({"layer": layers.Dense(3, name="elsewhere")}, ValueError, "'elsewhere' is not part of model"),
    ]
    for kwargs, error, message in cases:
        with pytest.raises(error, match=message):
            gradient(model, x, **kwargs)


def test_two_layers_of_one_name_are_not_guessed_at():
    x = keras.Input((4,))
    towers = [keras.Sequential([keras.Input((4,)), layers.Dense(2, name="d")], name=f"t{i}") for i in range(2)]
    model = keras.Model(x, layers.Add()([tower(x) for tower in towers]))
    with pytest.raises(ValueError, match=r"2 layers of model .* are called 'd'. Pass the layer itself"):
        gradient(model, zoo.inputs_for("functional"), weights="d")
    assert list(gradient(model, zoo.inputs_for("functional"), weights="t1")) == ["t1/d/kernel", "t1/d/bias"]


def test_a_model_without_trainable_weights_says_so():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    model.trainable = False
    with pytest.raises(ValueError, match="'plain' has no trainable weights"):
        gradient(model, x)
    with pytest.raises(ValueError, match=r"'first' has no trainable weights.*not trainable; name them"):
        gradient(model, x, weights="first")
    assert len(gradient(model, x, weights=model.layers[0].kernel)) == 1
    with pytest.raises(DisconnectedGradientError, match="Connected are: none"):
        gradient(model, x, layer="first", weights=model.layers[1].kernel)
