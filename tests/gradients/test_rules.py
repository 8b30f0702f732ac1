"""Closed forms of one's own, and the ways around closed forms: per variable, per layer, on request."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import architectures, small_models, zoo

from rlgrad.gradients import (
    LogProb,
    flatten,
    gradient,
    linearize,
    per_sample_gradient,
    per_sample_norm,
    plan,
    register_rule,
)
from rlgrad.gradients.closed_forms import rule_table
from rlgrad.gradients.closed_forms.factors import Direct, Factor, total
from rlgrad.gradients.closed_forms.lookups import Lookup
from rlgrad.gradients.closed_forms.outer_products import OuterProduct

layers = keras.layers
ACTIONS = np.array([2, 0, 1, 1])


class Scale(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale


def scaled():
    return zoo.randomized(keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), Scale(), layers.Dense(3)]))


@pytest.fixture
def rules(monkeypatch):
    monkeypatch.setattr(rule_table, "_RULES", dict(rule_table._RULES))


def test_a_rule_of_ones_own_is_used_for_exactly_its_class(rules):
    model, x = scaled(), zoo.inputs_for("functional")
    expected = per_sample_gradient(model, x, output=LogProb(ACTIONS))
    assert [row.route for row in plan(model, x).rows] == ["closed form", "vectorized", "closed form"]

    @register_rule(Scale, "scale")
    def scale_rule(call):
        return {"scale": Direct(call.cotangent * call.inputs)}

    assert [row.route for row in plan(model, x).rows] == ["closed form"] * 3
    zoo.assert_close(
        per_sample_gradient(model, x, output=LogProb(ACTIONS), method="factors").values(), expected.values()
    )

    class More(Scale):
        pass

    other = keras.Sequential([keras.Input((4,)), More(), layers.Dense(3)])
    assert [row.route for row in plan(other, x).rows] == ["vectorized", "closed form"]


def test_a_rule_that_returns_the_wrong_thing_is_named(rules):
    model, x = scaled(), zoo.inputs_for("functional")
    register_rule(Scale, "scale")(lambda call: {"scale": Direct(tf.reduce_sum(call.cotangent, axis=1))})
    with pytest.raises(ValueError, match=r"gradients of shape \(N, 5\) for 'scale'"):
        per_sample_gradient(model, x)
    register_rule(Scale, "scale")(lambda call: {})
    with pytest.raises(ValueError, match="covers 'scale'"):
        per_sample_gradient(scaled(), x)

    @register_rule(Scale, "scale")
    def declines(call):
        raise NotImplementedError("not today")

    assert plan(scaled(), x).rows[1].reason == "not today"
    with pytest.raises(TypeError, match="names of the attributes"):
        register_rule(Scale)


def test_only_the_variables_without_a_closed_form_take_another_route(monkeypatch):
    model, x = zoo.make("subclassed"), zoo.inputs_for("subclassed")
    vectorized = []
    real = tf.vectorized_map

    def counting(function, elements, **options):
        results = real(function, elements, **options)
        vectorized.extend(results)
        return results

    monkeypatch.setattr(tf, "vectorized_map", counting)
    got = per_sample_gradient(model, x, output=LogProb(ACTIONS))
    assert [tuple(g.shape[1:]) for g in vectorized] == [(3,)]
    expected = zoo.one_by_one(model, x, lambda y, n: tf.nn.log_softmax(y[0])[ACTIONS[n]], 4)
    zoo.assert_close(got.values(), expected)


def test_the_other_route_does_not_compute_again_what_the_layers_already_said():
    """A free variable after all layers, such as a policy's log σ, costs no second pass of the network."""
    model, x = zoo.make("subclassed"), zoo.inputs_for("subclassed")

    def products(weights):
        function = tf.function(lambda x: list(per_sample_gradient(model, x, weights=weights).values()), autograph=False)
        return str(function.get_concrete_function(tf.constant(x)).graph.as_graph_def()).count('op: "MatMul"')

    assert products(None) <= products([model.hidden, model.readout]) + 1


def test_methods_can_be_chosen_and_agree():
    model, x = zoo.make("convolution"), zoo.inputs_for("convolution")
    by_method = [
        per_sample_gradient(model, x, output=LogProb(ACTIONS), method=method)
        for method in ("auto", "factors", "vmap", "loop")
    ]
    for other in by_method[1:]:
        zoo.assert_close(other.values(), by_method[0].values())
    recurrent, steps = zoo.make("recurrent"), zoo.inputs_for("recurrent")
    with pytest.raises(NotImplementedError, match=r"lstm_cell/kernel.*register_rule"):
        per_sample_norm(recurrent, steps, method="factors")
    with pytest.raises(ValueError, match="'auto', 'factors', 'vmap', 'loop'"):
        per_sample_norm(model, x, method="fast")


def test_tied_weights_get_both_parts_of_their_gradient():
    model, x = architectures.make("embedding_tied"), architectures.inputs_for("embedding_tied")
    lin = linearize(model, x, output=LogProb(ACTIONS))
    whole = flatten(gradient(model, x, output=LogProb(ACTIONS)))
    zoo.assert_close([flatten(lin.vjp())], [whole])


def test_the_trace_of_a_users_own_function_is_not_changed_by_looking_at_the_model():
    model = small_models.InsideFunction()
    model.built, x = True, zoo.inputs_for("functional")
    per_sample_gradient(model, x)  # traces model.compiled for the first time, while layers are being recorded
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(model.compiled(tf.zeros((7919, 4))))
    assert tape.gradient(y, model.first.bias.value) is not None


def test_the_model_is_untouched_by_every_per_sample_function_also_when_it_fails(rules):
    model, x = scaled(), zoo.inputs_for("functional")
    state = lambda: [(sorted(layer.__dict__), layer.__dict__.get("activation")) for layer in model._flatten_layers()]
    per_sample_norm(model, x)  # from here on the model holds what is known about it
    before = state()

    @register_rule(Scale, "scale")
    def breaks(call):
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError, match="on purpose"):
        per_sample_gradient(model, x)
    with pytest.raises(ZeroDivisionError):
        per_sample_norm(model, x, output=lambda y: y[:, 0] * (1 / 0))
    assert state() == before


def test_seeds_are_untouched_also_by_recurrent_dropout_which_draws_at_inference():
    model = keras.Sequential([keras.Input((3, 2)), layers.GRU(3, unroll=True, dropout=0.5), layers.Dense(3)])
    (seed,) = (v for v in model.variables if "seed" in v.path)
    before, x = np.asarray(seed), zoo.inputs_for("recurrent")
    gradient(model, x), per_sample_gradient(model, x), linearize(model, x, output=1).norm()
    per_sample_norm(model, x, output=lambda y: y[:, 0])  # not compiled
    per_sample_norm(model, x, method="vmap")
    np.testing.assert_array_equal(seed, before)


class AlwaysDropsOut(keras.Model):
    def __init__(self):
        super().__init__()
        self.memory, self.out = layers.LSTM(3, unroll=True, dropout=0.5), layers.Dense(3)

    def call(self, x):
        return self.out(self.memory(x, training=True))


def test_a_cell_that_drops_out_keeps_its_own_call():
    model, x = AlwaysDropsOut(), zoo.inputs_for("recurrent")
    model(x)
    cell, _ = plan(model, x, output=1).rows
    assert (cell.route, cell.reason[:35]) == ("vectorized", "it is called with training=True and")


def test_second_derivatives_go_through_closed_forms():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    kernel = model.layers[0].kernel.value

    def penalty(norms):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(norms() ** 2)
        return tape.gradient(value, kernel)

    closed = lambda: per_sample_norm(model, x, output=0)
    in_eager = lambda: per_sample_norm(model, x, output=lambda y: y[:, 0])  # not compiled
    plain = lambda: per_sample_norm(model, x, output=0, method="vmap")
    assert penalty(plain) is not None
    np.testing.assert_allclose(penalty(closed), penalty(plain), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(penalty(in_eager), penalty(plain), rtol=1e-3, atol=1e-5)


def factors():
    generator = np.random.default_rng(0)
    normal = lambda *shape: tf.constant(generator.standard_normal(shape))
    ids = tf.constant(generator.integers(0, 6, (3, 4)))
    for t in (1, 4, 40):
        yield OuterProduct(normal(3, t, 1, 5), normal(3, t, 1, 2), (5, 2))
        yield OuterProduct(normal(3, t, 2, 5), normal(3, t, 2, 3), (5, 2, 3), (2, 0, 1))
    yield OuterProduct(normal(3, 2, 1, 30), normal(3, 2, 1, 20), (5, 6, 20))  # pairs of positions are cheaper
    yield OuterProduct(normal(3, 2, 2, 30), normal(3, 2, 2, 20), (30, 2, 20))
    yield Lookup(ids, normal(3, 4, 5), 6)
    yield Lookup(ids, normal(3, 4, 5), 60)  # pairs of positions are cheaper
    yield Direct(normal(3, 2, 5))


@pytest.mark.parametrize("block", [2**25, 1])
@pytest.mark.parametrize("factor", list(factors()), ids=lambda f: type(f).__name__)
def test_every_quantity_of_a_factor_is_that_of_the_gradients_written_out(factor: Factor, block, monkeypatch):
    monkeypatch.setattr("rlgrad.gradients.closed_forms.factors.BLOCK", block)
    g = factor.per_sample().numpy()
    generator = np.random.default_rng(1)
    c, v = generator.standard_normal(3), generator.standard_normal(factor.shape)
    flat = g.reshape(3, -1)
    assert g.shape == (3, *factor.shape)
    np.testing.assert_allclose(factor.squared_norm(), (flat**2).sum(1), rtol=1e-10)
    np.testing.assert_allclose(factor.gram(factor), flat @ flat.T, atol=1e-9 * (flat**2).sum())
    np.testing.assert_allclose(factor.jvp(tf.constant(v)), flat @ v.ravel(), atol=1e-9 * (1 + np.abs(flat).sum()))
    np.testing.assert_allclose(factor.vjp(tf.constant(c)), np.tensordot(c, g, 1), atol=1e-10 * (1 + np.abs(g).sum()))
    np.testing.assert_allclose(
        factor.sum_of_squares(tf.constant(c)), np.tensordot(c, g**2, 1), atol=1e-10 * (g**2).sum()
    )
    np.testing.assert_allclose(total([factor, factor]).per_sample(), 2 * g, atol=1e-10 * np.abs(g).sum())
    some = factor.with_tensors([t[1:] for t in factor.tensors])
    np.testing.assert_allclose(factor.gram(some), flat @ flat[1:].T, atol=1e-9 * (flat**2).sum())


@pytest.mark.parametrize("jit", [False, True])
def test_a_number_of_look_ups_that_is_not_known_when_tracing_takes_one_after_the_other(jit):
    *_, factor, _ = factors()
    signature = [tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None, 5), tf.float64)]

    @tf.function(autograph=False, jit_compile=jit, input_signature=signature)
    def kernel(ids, right):
        unknown = factor.with_tensors([ids, right])
        return unknown.gram(unknown), unknown.squared_norm()

    expected = factor.gram(factor).numpy()
    ids, right = factor.tensors
    got, squares = kernel(tf.cast(ids, tf.int32), right)
    np.testing.assert_allclose(got, expected, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(squares, np.diag(expected), rtol=1e-12)


def test_blocks_of_two_batches_of_different_size_fit_together(monkeypatch):
    monkeypatch.setattr("rlgrad.gradients.closed_forms.factors.BLOCK", 40)
    for factor in factors():
        g = factor.per_sample().numpy().reshape(3, -1)
        one = factor.with_tensors([t[:1] for t in factor.tensors])
        np.testing.assert_allclose(one.gram(factor), g[:1] @ g.T, atol=1e-9 * (g**2).sum())
