"""A model that changes after a first call: every function answers about the model as it is, as a fresh tape does."""

import functools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from rlgrad import gradients
from rlgrad.core import snapshots
from rlgrad.distributions import Categorical
from rlgrad.gradients.closed_forms import rule_table
from rlgrad.gradients.programs.program import programs_of

layers, ops = keras.layers, keras.ops
X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
SCALE = 1.0


class Settings:
    """A plain object that a layer reads."""

    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 1.0


class Scaled(layers.Layer):
    """Read numbers from everywhere where Python code can keep them."""

    factor = 1.0

    def __init__(self):
        super().__init__()
        self.w = self.add_weight(shape=(5,), initializer="random_normal")
        self.scale, self.scales, self.by_name = 1.0, [[1.0], [1.0]], {"a": {"b": 1.0}}
        self.settings, self.namespace = Settings(), types.SimpleNamespace(inner=types.SimpleNamespace(scale=1.0))
        self.array, self.tensor, self.variable = np.ones(5, np.float32), tf.ones(5), tf.Variable(1.0)
        self.function, self.partial = ops.tanh, functools.partial(ops.leaky_relu, negative_slope=0.1)
        self.calls = 0

    def call(self, x):
        self.calls += 1
        x = self.function(x * self.w * self.scale * self.scales[1][0] * self.by_name["a"]["b"])
        x = x * self.settings.scale * self.namespace.inner.scale * self.array * self.tensor * self.variable
        return self.partial(x) * self.factor * SCALE * getattr(self, "set_later", 1.0) * self.of_method() * of_module()

    def of_method(self):
        return getattr(self.namespace, "method", 1.0)


def of_module():
    return constants.scale


constants = types.SimpleNamespace(scale=1.0)


def scaled():
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh", name="first"), Scaled(), layers.Dense(2)])


def lambda_layer():
    cell = [1.0]
    alpha = 1.0

    def double(x):
        return alpha * cell[0] * x

    def change(_):
        nonlocal alpha
        alpha = 3.0

    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Lambda(double), layers.Dense(2)])
    model.change = change
    return model


def normalized():
    norm = layers.Normalization()
    norm.adapt(X + 1.0)
    return keras.Sequential([keras.Input((4,)), norm, layers.Dense(5, "tanh", name="first"), layers.Dense(2)])


def dense():
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh", name="first"), layers.Dense(2, name="last")])


def convolution():
    reshape = layers.Reshape((4, 1))
    return keras.Sequential(
        [keras.Input((4,)), reshape, layers.Conv1D(2, 2, name="first", padding="same"), layers.GlobalMaxPooling1D()]
    )


def various():
    # Their attributes are read at each call.
    parts = [layers.LayerNormalization(), layers.LeakyReLU(0.2), layers.BatchNormalization(), layers.Rescaling(2.0)]
    return keras.Sequential([keras.Input((4,)), layers.Dense(5), *parts, layers.Dense(2)])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.flag = layers.Dense(5, "tanh"), True
        self.blocks, self.order = [layers.Dense(5, "tanh") for _ in range(3)], [0, 1]
        self.last = layers.Dense(2)

    def call(self, x):
        x = self.first(x)
        for number in self.order:
            x = self.blocks[number](x) if self.flag else x + self.blocks[number](x)
        return self.last(x)


def subclassed():
    model = Subclassed()
    model.order = [0, 1, 2]
    model(X)
    model.order = [0, 1]
    model.blocks[2].trainable = model.blocks[1].trainable = False  # an unused weight has no gradient
    return model


def recurrent():
    return keras.Sequential([keras.Input((4,)), layers.Reshape((2, 2)), layers.GRU(3, unroll=True), layers.Dense(2)])


def put_on_top(model):
    model.pop()
    model.add(layers.Dense(2, name="other"))


def other_normalization(model):
    other = normalized()
    other.layers[0].adapt(5.0 * X)
    other.layers[0].finalize_state()
    model.layers[0].set_weights(other.layers[0].get_weights())
    model.layers[0].finalize_state()


def new_global(_):
    globals()["SCALE"] = SCALE * 1.5


def _set(*path):
    *path, name, value = path

    def change(model):
        thing = model
        for part in path:
            thing = thing[part] if isinstance(part, int) or isinstance(thing, dict) else getattr(thing, part)
        if isinstance(name, int) or isinstance(thing, dict):
            thing[name] = value
        else:
            setattr(thing, name, value)

    return change


def own(*path):
    return (scaled, _set("layers", 1, *path))


CHANGES = {
    "an attribute": own("scale", 2.0),
    "an attribute that was not there": own("set_later", 2.0),
    "a list in a list": own("scales", 1, 0, 2.0),
    "a dict in a dict": own("by_name", "a", "b", 2.0),
    "a slot of an object": own("settings", "scale", 2.0),
    "an object of an object": own("namespace", "inner", "scale", 2.0),
    "an attribute that a method reads": own("namespace", "method", 2.0),
    "a number in an array": own("array", 0, 2.0),
    "another array": own("array", 2 * np.ones(5, np.float32)),
    "a tensor": own("tensor", tf.fill([5], 2.0)),
    "another variable": own("variable", tf.Variable(2.0)),
    "a function": own("function", ops.square),
    "an argument of a partial": (scaled, lambda m: m.layers[1].partial.keywords.update(negative_slope=0.5)),
    "an attribute of the class": (scaled, lambda _: setattr(Scaled, "factor", Scaled.factor + 1.0)),
    "a method of the class": (scaled, lambda _: setattr(Scaled, "of_method", lambda self: 2.5)),
    "call of one layer": (scaled, lambda m: setattr(m.layers[1], "call", lambda x: 3.0 * x * m.layers[1].w)),
    "a global": (scaled, new_global),
    "an attribute of a global": (scaled, lambda _: setattr(constants, "scale", constants.scale + 1.0)),
    "a variable of a closure": (lambda_layer, lambda m: m.change(m)),
    "adapt": (normalized, lambda m: m.layers[0].adapt(3.0 * X)),
    "weights of a normalization": (normalized, other_normalization),
    "pop and add": (dense, put_on_top),
    "an activation": (dense, _set("layers", 0, "activation", keras.activations.relu)),
    "LoRA": (dense, lambda m: m.layers[0].enable_lora(2)),
    "trainable": (dense, _set("layers", 0, "trainable", False)),
    "padding of a convolution": (convolution, _set("layers", 1, "padding", "valid")),
    "an axis": (convolution, _set("layers", 1, "activation", keras.activations.tanh)),
    "a slope": (various, _set("layers", 2, "negative_slope", 0.5)),
    "the epsilon of a normalization": (various, _set("layers", 1, "epsilon", 0.5)),
    "the epsilon of a batch normalization": (various, _set("layers", 3, "epsilon", 0.5)),
    "a factor": (various, _set("layers", 4, "scale", 3.0)),
    "a flag": (subclassed, _set("flag", False)),
    "the order of sublayers": (subclassed, _set("order", 1, 2)),
    "one more sublayer": (subclassed, lambda m: m.order.append(2)),
    "a cell's activation": (recurrent, _set("layers", 1, "cell", "activation", keras.activations.sigmoid)),
}


def per_sample_by_tape(model):
    sources, rows = [v.value for v in model.trainable_variables], []
    for n in range(len(X)):
        x = tf.constant(X[n : n + 1])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(model(x, training=False))
        rows.append(tape.gradient(y, [x, *sources]))
    x_gradient, *by_variable = (np.stack([np.asarray(g) for g in each]) for each in zip(*rows, strict=True))
    return x_gradient[:, 0], by_variable


FUNCTIONS = {
    "gradient": lambda m, x: list(gradients.gradient(m, x).values()),
    "per_sample_gradient": lambda m, x: list(gradients.per_sample_gradient(m, x).values()),
    "per_sample_norm": lambda m, x: [gradients.per_sample_norm(m, x)],
    "gram": lambda m, x: [gradients.gram(m, x)],
    "jacobian": lambda m, x: [tf.reduce_sum(g, axis=1) for g in gradients.jacobian(m, x).values()],
    "input_gradient": lambda m, x: [gradients.input_gradient(m, x)],
    "linearize": lambda m, x: list(gradients.linearize(m, x).gradient().values()),
    "linearize, by sample": lambda m, x: list(gradients.linearize(m, x).per_sample().values()),
}


def by_tape(model):
    x_gradient, rows = per_sample_by_tape(model)
    flat = np.concatenate([row.reshape(len(X), -1) for row in rows], axis=1)
    sums = [row.sum(axis=0) for row in rows]
    return {
        "gradient": sums,
        "per_sample_gradient": rows,
        "per_sample_norm": [np.linalg.norm(flat, axis=1)],
        "gram": [flat @ flat.T],
        "jacobian": rows,
        "input_gradient": [x_gradient],
        "linearize": sums,
        "linearize, by sample": rows,
    }


def check(model, functions, how):
    expected = by_tape(model)
    for name in functions:
        run = functools.partial(FUNCTIONS[name], model)
        if how != "eager":
            run = tf.function(run, autograph=False, jit_compile=how == "XLA")
        got = run(tf.constant(X))
        assert len(got) == len(expected[name])
        for mine, tape in zip(got, expected[name], strict=True):
            np.testing.assert_allclose(mine, tape, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.fixture
def undo(monkeypatch):
    for thing, name in ((Scaled, "factor"), (Scaled, "of_method"), (constants, "scale")):
        monkeypatch.setattr(thing, name, getattr(thing, name))
    monkeypatch.setitem(globals(), "SCALE", SCALE)


def changed(change, functions, how):
    make, apply = CHANGES[change]
    keras.utils.set_random_seed(1)
    model = make()
    before = by_tape(model)
    check(model, functions, how)
    apply(model)
    now = by_tape(model)
    same = len(now["per_sample_gradient"]) == len(before["per_sample_gradient"])
    assert not (same and np.allclose(now["gram"], before["gram"], rtol=1e-2)), "the change changes nothing"
    check(model, functions, how)


@pytest.mark.usefixtures("undo")
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_model_is_seen(change):
    changed(change, ["gradient", "per_sample_norm"], "eager")


@pytest.mark.usefixtures("undo")
@pytest.mark.parametrize("change", ["an attribute", "adapt", "pop and add"])
@pytest.mark.parametrize("how", ["graph", pytest.param("XLA", marks=pytest.mark.xla)])
def test_a_function_that_is_traced_after_the_change_sees_it(change, how):
    changed(change, ["gradient", "per_sample_norm"], how)


@pytest.mark.slow
@pytest.mark.usefixtures("undo")
@pytest.mark.parametrize("how", ["eager", "graph", pytest.param("XLA", marks=pytest.mark.xla)])
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen_by_every_function_however_it_is_run(change, how):
    changed(change, list(FUNCTIONS), how)


class Tempered:
    """A distribution of a user's own: logits divided by a temperature that can be set."""

    def __init__(self):
        self.temperature = 1.0

    def check_actions(self, actions):
        return tf.convert_to_tensor(actions)

    def log_prob(self, parameters, actions):
        return Categorical(2).log_prob(parameters / self.temperature, actions)


@pytest.mark.parametrize("whose", ["the model's", "the output's"])
def test_a_change_of_a_distribution_is_seen(whose):
    model, actions, distribution = dense(), np.array([0, 1, 1]), Tempered()
    if whose == "the model's":
        model.distribution = distribution
    for temperature in (1.0, 2.0, 1.0, 4.0):
        distribution.temperature = temperature
        output = gradients.LogProb(actions, None if whose == "the model's" else distribution)
        value, _ = gradients.value_and_gradient(model, X, output=output)
        expected = Categorical(2).log_prob(model(X) / temperature, tf.constant(actions))
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_a_rule_that_is_registered_later_takes_the_place_of_the_earlier(monkeypatch):
    monkeypatch.setattr(rule_table, "_RULES", dict(rule_table._RULES))
    model, results = scaled(), []
    for factor in (None, 1.0, 3.0):
        if factor is not None:
            gradients.register_rule(Scaled, "w")(
                lambda call, factor=factor: {"w": gradients.Direct(factor * tf.ones((tf.shape(call.inputs)[0], 5)))}
            )
        results.append(gradients.per_sample_gradient(model, X, weights=[model.layers[1].w]))
    first, second, third = (np.asarray(next(iter(result.values()))) for result in results)
    np.testing.assert_array_equal(second, np.ones((3, 5)))
    np.testing.assert_array_equal(third, np.full((3, 5), 3.0))
    assert not np.allclose(first, second)


def test_a_change_that_is_taken_back_finds_the_program_of_before():
    model, results = scaled(), []
    for scale in (1.0, 2.0, 1.0, 2.0, 1.0):
        model.layers[1].scale = scale
        results.append(next(iter(gradients.gradient(model, X).values())))
    assert len(programs_of(model)) == 2
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[1], results[3])


def test_what_a_model_keeps_for_others_and_equal_numbers_change_nothing():
    model = scaled()
    gradients.gradient(model, X)
    snapshot = snapshots.current(model)
    layer = model.layers[1]
    layer.scale = float("1.0")
    layer.remembered, model.steps = np.zeros(3), 7  # read by nobody
    assert snapshots.current(model) is snapshot
    model(X)
    before = layer.calls
    gradients.gradient(model, X), gradients.per_sample_norm(model, X)
    assert layer.calls == before > 0


def test_forget_drops_what_was_compiled():
    large = np.ones((20_000,), np.float32)  # numbers inside of it are not compared
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(2), layers.Lambda(lambda x: x * tf.constant(large)[0]), layers.Dense(1)]
    )
    (before, _), (after, _) = (gradients.value_and_gradient(model, X) for _ in range(2))
    large[0] = 2.0
    gradients.forget(model)
    after, _ = gradients.value_and_gradient(model, X)
    np.testing.assert_allclose(after, model(X)[:, 0], rtol=1e-5)
    assert not np.allclose(before, after)
    with pytest.raises(TypeError, match="a Keras model"):
        gradients.forget(X)


def test_a_model_that_changes_at_every_call_is_answered_rightly_and_told_of():
    model = scaled()
    model.layers[1].function = keras.activations.linear
    for step in range(1, 32):
        model.layers[1].scale = 1.0 / step
        snapshots.current(model)
    model.layers[1].scale = 2.0
    with pytest.warns(UserWarning, match="has changed 32 times, of late in 'scale'"):
        snapshots.current(model)
    value, _ = gradients.value_and_gradient(model, X)
    np.testing.assert_allclose(value, tf.reduce_sum(model(X), axis=1), rtol=1e-4)
