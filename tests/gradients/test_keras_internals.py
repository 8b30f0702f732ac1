"""The contract with Keras: behavior that it does not promise. A failure here after an upgrade names what changed."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad.core import keras_internals, snapshots
from rlgrad.core.keras_internals import ends_in_probabilities
from rlgrad.core.rowwise_layers import is_made_of_rowwise_layers
from rlgrad.gradients.closed_forms.rule_table import rule_for

layers = keras.layers
X = np.ones((2, 4), np.float32)


@pytest.mark.parametrize("name", ["sequential", "functional", "subclassed"])
def test_keras_still_looks_up_call_on_the_instance(name):
    model = zoo.make(name)
    layer = model.hidden if name == "subclassed" else model.get_layer("first")
    with keras_internals.capture(layer) as captured:
        returned = model(X, training=False)
    assert captured.calls == 1, "layer.__dict__['call'] is no longer what Layer.__call__ runs: see capture()"
    np.testing.assert_array_equal(captured.output, layer(X))
    np.testing.assert_array_equal(returned, model(X, training=False))
    assert "call" not in layer.__dict__


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda a: layers.Dense(3, activation=a), (4,)),
        (lambda a: layers.EinsumDense("ab,bc->ac", 3, activation=a), (4,)),
        (lambda a: layers.Conv2D(3, 2, activation=a), (4, 4, 2)),
        (lambda a: layers.Conv2DTranspose(3, 2, activation=a), (4, 4, 2)),
        (lambda a: layers.DepthwiseConv2D(2, activation=a), (4, 4, 2)),
        (lambda a: layers.SeparableConv2D(3, 2, activation=a), (4, 4, 2)),
    ],
)
def test_keras_still_applies_a_layers_activation_last_and_none_leaves_it_out(layer, shape):
    layer, x = layer("softmax"), np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    expected, before = layer(x), layer.activation
    with keras_internals.split_activation(layer) as activation:
        z = layer(x)
    assert layer.activation is before
    np.testing.assert_allclose(
        activation(z), expected, rtol=1e-5, err_msg="a layer's activation is no longer what it does last"
    )
    with keras_internals.split_activation(layers.Flatten()) as activation:
        assert activation is None


def test_a_stateless_scope_still_decides_a_variables_value():
    layer = layers.Dense(3)
    expected = 2 * (layer(X) - layer.bias)
    with keras.StatelessScope(state_mapping=[(layer.kernel, 2 * layer.kernel.value)]):
        np.testing.assert_allclose(
            layer(X), expected, rtol=1e-5, err_msg="keras.StatelessScope no longer decides what layers see"
        )
    np.testing.assert_allclose(2 * layer(X), expected, rtol=1e-5)


def test_the_innermost_stateless_scope_is_still_known_with_its_values():
    layer = layers.Dense(3)
    layer(X)
    doubled, ones = 2 * layer.kernel.value, tf.ones(3)
    assert keras_internals.placed_values() == {}
    with keras.StatelessScope(state_mapping=[(layer.kernel, doubled)]):
        assert keras_internals.placed_values().keys() == {id(layer.kernel)}, "state_mapping is no longer by id"
        with keras.StatelessScope(state_mapping=[(layer.bias, ones)]):  # Keras's own hides the outer one
            np.testing.assert_allclose(layer(X), X @ np.asarray(0.5 * doubled) + 1.0, rtol=1e-5)
        with keras_internals.values_in_place([(layer.bias, ones)]):
            np.testing.assert_allclose(layer(X), X @ np.asarray(doubled) + 1.0, rtol=1e-5)
            with keras_internals.values_in_place([(layer.kernel, 3 * doubled)]):
                np.testing.assert_allclose(layer(X), X @ np.asarray(3 * doubled) + 1.0, rtol=1e-5)
            layer.bias.assign(5 * ones)
        np.testing.assert_allclose(layer(X), X @ np.asarray(doubled), rtol=1e-5, err_msg="an assignment was kept")
    assert keras_internals.placed_values() == {}
    np.testing.assert_allclose(layer(X), X @ np.asarray(0.5 * doubled), rtol=1e-5)


def test_keras_still_says_when_a_layer_does_not_run_its_own_call():
    plain, adapted, quantized = (layers.Dense(4) for _ in range(3))
    for layer in (plain, adapted, quantized):
        layer.build((None, 4))
    adapted.enable_lora(2)
    quantized.quantize("int8")
    with keras.RematScope(mode="full"):
        recomputed = layers.Dense(4)
    with keras_internals.capture(plain):
        assert keras_internals.altered(plain) == "its call was replaced"
    found = [keras_internals.altered(layer) for layer in (plain, adapted, quantized, recomputed)]
    assert found == [None, "LoRA is enabled", "it is quantized", "it is rematerialized"], (
        "lora_enabled, quantization_mode or _remat_mode no longer say what a layer runs: see altered()"
    )


def test_keras_still_lists_layers_at_every_depth_and_once():
    names = [layer.name for layer in keras_internals.all_layers(zoo.make("nested"))]
    assert {"inner", "d", "e", "out"} <= set(names), (
        "Layer._flatten_layers() no longer lists nested layers: see all_layers()"
    )
    assert names.count("d") == 1
    assert "readout" in [layer.name for layer in keras_internals.all_layers(zoo.make("subclassed"))]


def test_keras_still_keeps_losses_where_they_are_restored():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activity_regularizer="l2")])
    model(X)
    (before,) = model.losses
    with keras_internals.kept_losses([model, *keras_internals.all_layers(model)]):
        model(2 * X)
        assert model.losses[0] is not before
    assert model.losses[0] is before, "layer._losses no longer holds what add_loss left: see kept_losses()"


def test_a_tape_still_watches_what_a_keras_variables_value_is():
    model = zoo.make("sequential")
    sources = keras_internals.tape_sources(model.trainable_variables)
    assert all(isinstance(source, tf.Variable) for source in sources), (
        "Variable.value is no tf.Variable: see tape_sources()"
    )
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        y = model(X)
    assert all(g is not None for g in tape.gradient(y, sources))
    own = tf.Variable(1.0)
    assert keras_internals.tape_sources([own])[0] is own


def test_symbolic_inputs_and_outputs_still_have_names_and_shapes():
    reference = keras_internals.expected_inputs(zoo.make("sequential"))
    assert tuple(reference.shape) == (None, 4)
    assert list(keras_internals.expected_inputs(zoo.make("two_inputs"))) == ["a", "b"]
    assert keras_internals.expected_inputs(zoo.make("subclassed")) is None
    assert list(keras_internals.symbolic_outputs(zoo.two_heads())) == ["policy", "value"]
    assert keras_internals.symbolic_outputs(zoo.make("subclassed")) is None
    x = keras.Input((4,))
    model = keras.Model(x, [layers.Dense(1, name="a")(x), layers.Dense(1, name="b")(x)])
    assert keras_internals.output_names(model, 2) == ["a", "b"], "model.output_names changed: see output_names()"
    assert keras_internals.output_names(zoo.make("subclassed"), 2) == ["0", "1"]


def test_recurrent_layers_are_recognized():
    assert keras_internals.has_loops(zoo.make("recurrent"))
    unrolled = keras.Sequential([keras.Input((3, 2)), layers.Bidirectional(layers.GRU(2, unroll=True))])
    assert not keras_internals.has_loops(unrolled)
    assert not keras_internals.has_loops(zoo.make("nested"))
    stateful = keras.Sequential([keras.Input((3, 2), batch_size=2), layers.GRU(2, stateful=True, name="memory")])
    assert keras_internals.stateful_layers(stateful) == ["memory"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("implementation", [1, 2])
@pytest.mark.parametrize("cell", [layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell, "reset_before"])
def test_keras_cells_still_compute_what_is_written_out_for_them(cell, implementation, bias):
    options = {"use_bias": bias} | ({} if cell is layers.SimpleRNNCell else {"implementation": implementation})
    cell = layers.GRUCell(3, reset_after=False, **options) if cell == "reset_before" else cell(3, **options)
    generator = np.random.default_rng(0)
    x, *states = (tf.constant(generator.standard_normal((5, n)), tf.float32) for n in (2, 3, 3))
    states = states if isinstance(cell, layers.LSTMCell) else states[:1]
    cell(x, states)
    zoo.randomized(cell)
    expected, seen = tf.nest.flatten(cell(x, states)), []
    ran = rule_for(cell).run(cell, cell.call, seen.append, x, states)
    got = tf.nest.flatten(ran.assemble(*ran.outputs))
    tolerance = 0.0 if implementation == 2 else 1e-6  # 1 takes the products gate by gate
    for mine, keras_own in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, keras_own, rtol=0, atol=tolerance, err_msg="see recurrent_rules.py")
    assert seen


def test_what_is_assigned_in_a_stateless_scope_is_still_not_kept():
    model = keras.Sequential([keras.Input((3, 2)), layers.LSTM(2, unroll=True, dropout=0.5)])
    (seed,) = (v for v in model.variables if "seed" in v.path)
    x, before = np.ones((1, 3, 2), np.float32), np.asarray(seed)
    with keras.StatelessScope(state_mapping=[]):
        model(x, training=False)
    np.testing.assert_array_equal(seed, before)
    model(x, training=False)
    assert (np.asarray(seed) != before).any(), "Keras draws no mask at inference any more: this test tests nothing"


def test_keras_still_keeps_its_books_in_attributes_that_no_call_reads():
    model = zoo.make("sequential")
    snapshot = snapshots.Snapshot(model)
    model.compile("adam", "mse")
    model.fit(X, np.zeros((len(X), 3)), verbose=0)
    model.predict(X, verbose=0), model.evaluate(X, np.zeros((len(X), 3)), verbose=0)
    new = vars(model).keys() - keras_internals.bookkeeping() - vars(zoo.make("sequential")).keys()
    assert not new, f"fit() sets attributes that are not known as Keras's own books: {new}; see bookkeeping()"
    assert snapshot.holds(), "compile, fit or predict changes what rlgrad takes for a part of the model"


def ends(build):
    x = keras.Input((4,))
    return ends_in_probabilities(keras.Model(x, build(x)))


def test_an_ending_in_probabilities_is_found_in_every_kind_of_layer():
    assert ends(lambda x: layers.Dense(3, "softmax")(x)) == "softmax"
    assert ends(lambda x: layers.Dense(3, "sigmoid")(x)) == "sigmoid"
    assert ends(lambda x: layers.Dense(3, "hard_sigmoid")(x)) == "hard_sigmoid"
    assert ends(lambda x: layers.Dense(3, keras.ops.softmax)(x)) == "softmax"
    assert ends(lambda x: layers.Dense(3, activation=layers.Softmax())(x)) == "softmax"
    assert ends(lambda x: layers.Softmax()(layers.Dense(3)(x))) == "softmax"
    assert ends(lambda x: layers.Activation("sigmoid")(layers.Dense(3)(x))) == "sigmoid"
    assert ends(lambda x: keras.ops.softmax(layers.Dense(3)(x))) == "softmax"
    assert ends(lambda x: keras.ops.sigmoid(layers.Dense(3)(x))) == "sigmoid"
    assert ends(lambda x: layers.Reshape((3, 1))(layers.Dropout(0.1)(layers.Dense(3, "softmax")(x)))) == "softmax"
    assert ends(lambda x: layers.Activation("linear")(layers.Dense(3, "softmax")(x))) == "softmax"
    assert ends(lambda x: layers.TimeDistributed(layers.Dense(3, "softmax"))(layers.Reshape((2, 2))(x))) == "softmax"


def test_an_ending_in_numbers_of_any_size_is_let_through():
    assert ends(lambda x: layers.Dense(3)(x)) is None
    assert ends(lambda x: layers.Dense(3, "tanh")(x)) is None
    assert ends(lambda x: layers.Dense(3)(layers.Dense(3, "sigmoid")(x))) is None
    assert ends(lambda x: layers.Add()([layers.Dense(3, "softmax")(x), layers.Dense(3)(x)])) is None
    assert ends(lambda x: keras.ops.log_softmax(layers.Dense(3)(x))) is None
    assert ends(lambda x: keras.ops.log(layers.Dense(3, "softmax")(x))) is None


def test_an_ending_is_found_in_sequential_nested_and_unbuilt_models():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    assert ends_in_probabilities(inner) == "softmax"
    assert ends_in_probabilities(keras.Sequential([keras.Input((4,)), inner])) == "softmax"
    assert ends(lambda x: inner(x)) == "softmax"
    assert ends_in_probabilities(keras.Sequential([layers.Dense(3, "sigmoid")])) == "sigmoid"
    assert ends_in_probabilities(zoo.make("nested")) is None
    assert ends_in_probabilities(zoo.make("subclassed")) is None


def test_each_head_has_an_ending_of_its_own():
    x = keras.Input((4,))
    inner = keras.Model(x, {"b": layers.Dense(3, "softmax")(x), "a": layers.Dense(3)(x)})
    y = inner(x)
    model = keras.Model(x, {"policy": y["b"], "value": layers.Dense(1, "sigmoid")(x), "q": y["a"]})
    assert [ends_in_probabilities(model, head) for head in ("policy", "value", "q")] == ["softmax", "sigmoid", None]
    with pytest.raises(ValueError, match="head=None"):
        ends_in_probabilities(model)
    with pytest.raises(ValueError, match="head='polcy'"):
        ends_in_probabilities(model, "polcy")


def test_the_parts_of_a_model_still_say_what_its_trainable_variables_are():
    for name in zoo.ONE_OUTPUT:
        model = zoo.make(name)
        parts = snapshots.Snapshot(model)
        assert parts.holds()
        assert {id(v) for v in model.trainable_variables} <= set(parts._ids), (
            "model.trainable_variables has others than those of _flatten_layers(): see Snapshot"
        )
        for thing in [model, *model._flatten_layers(include_self=False), *model.trainable_variables]:
            before = list(map(id, model.trainable_variables))
            thing.trainable = False
            if before != list(map(id, model.trainable_variables)):
                assert not parts.holds(), f"trainable=False of {thing} is not seen: see Snapshot"
            thing.trainable = True
            model.trainable = True
        assert snapshots.Snapshot(model).holds()


def test_the_parts_of_a_model_that_decides_itself_what_is_trainable_are_never_known():
    class Own(keras.Sequential):
        @property
        def trainable_variables(self):
            return self.variables[:1]

    assert not snapshots.Snapshot(Own([keras.Input((4,)), layers.Dense(2)])).known


@pytest.mark.parametrize("backend", ["jax", "torch", "openvino"])
def test_another_backend_is_refused(backend, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    with pytest.raises(RuntimeError, match=f"Keras runs on '{backend}'. Set KERAS_BACKEND=tensorflow"):
        keras_internals.require_tensorflow_backend()


def test_the_backend_is_checked_when_the_package_is_imported():
    code = "import keras; keras.backend.backend = lambda: 'jax'; import rlgrad.gradients"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert result.returncode != 0
    assert "RuntimeError: rlgrad.gradients differentiates with TensorFlow" in result.stderr


def test_a_mask_is_an_attribute_of_its_tensor_and_goes_on_to_a_copy():
    ids = np.array([[1, 0]])
    table = keras.layers.Embedding(3, 2, mask_zero=True)(ids)
    same = keras_internals.identity_with_mask(table)
    assert same is not table
    np.testing.assert_array_equal(same._keras_mask, [[True, False]])
    assert not hasattr(keras_internals.identity_with_mask(tf.constant(ids)), "_keras_mask")


def test_a_layer_inside_of_a_rematerialized_model_is_rematerialized_with_it():
    with keras.RematScope(mode="full"):
        inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="in")])
    other = keras.layers.Dense(1, name="after")
    model = keras.Sequential([keras.Input((2,)), inner, other])
    assert keras_internals.rematerialized_around(model, inner)
    assert keras_internals.rematerialized_around(model, inner.layers[0])
    assert not keras_internals.rematerialized_around(model, other)


def test_a_saved_layer_says_whether_it_holds_a_loop(tmp_path):
    for layer, holds in [(keras.layers.GRU(2), True), (keras.layers.Dense(2), False)]:
        saved = keras.Sequential([keras.Input((3, 2)), layer])
        path = str(tmp_path / layer.name)
        saved.export(path, verbose=False)
        served = keras.layers.TFSMLayer(path, call_endpoint="serve")
        inner = keras.Sequential([keras.Input((3, 2)), served])
        outer = keras.Sequential([keras.Input((3, 2)), inner])
        assert keras_internals.has_saved_loops(served) is holds
        assert keras_internals.has_saved_loops(outer) is holds
    assert not keras_internals.has_saved_loops(saved)


def test_functional_models_are_known_by_their_class_and_list_all_that_they_run():
    inputs = keras.Input((3,))
    plain = keras.Model(inputs, keras.layers.Dense(2)(keras.Sequential([keras.layers.Dense(2)])(inputs)))
    assert is_made_of_rowwise_layers(plain)
    assert is_made_of_rowwise_layers(
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax"), plain.layers[-1]])
    )

    class Own(keras.layers.Dense):
        pass

    class OwnModel(keras.Model):
        pass

    for other in (
        keras.Model(inputs, keras.ops.mean(inputs, axis=0)),
        keras.Model(inputs, Own(2)(inputs)),
        OwnModel(inputs, keras.layers.Dense(2)(inputs)),
        keras.Model(inputs, keras.layers.Dense(2, activation=lambda y: y)(inputs)),
        keras.Model(inputs, keras.layers.Concatenate(axis=0)([inputs, inputs])),
        keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda y: y)]),
        keras.Sequential([keras.Input(()), keras.layers.Activation("softmax")]),
    ):
        assert not is_made_of_rowwise_layers(other)


def test_a_layers_compute_dtype_is_what_it_computes_in():
    for policy, half in (("mixed_float16", True), ("bfloat16", True), ("float32", False), ("float64", False)):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=policy), keras.layers.Dense(2)])
        assert keras_internals.computes_in_half(model) == half
        assert model.layers[0](np.ones((1, 3))).dtype == model.layers[0].compute_dtype


def test_layers_draw_from_generators_whose_states_they_assign():
    model = keras.Sequential([keras.Input((3,)), layers.Dropout(0.5), layers.Dense(2), layers.GaussianNoise(0.1)])
    states = keras_internals.seed_states(model)
    assert [s.path for s in states[:2]] == [v.path for v in model.variables if "seed" in v.path]
    assert keras_internals.seed_generators(model.layers[0])[0].state is states[0]
    before = [s.numpy() for s in states[:2]]
    model(np.ones((2, 3), np.float32), training=True)
    assert all(np.any(s.numpy() != b) for s, b in zip(states, before, strict=False))
    keras.random.normal((1,))
    assert len(keras_internals.seed_states(model)) == 3  # Keras's own generator is there now
