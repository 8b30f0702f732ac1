"""Outputs as numbers: at the current weights, at others, beside values that a caller has put in place, and compiled."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo
from helpers.slow import mostly_slow

from rlgrad import gradients
from rlgrad.gradients import Chosen, Each, LogProb, evaluate, input_gradient, linearize
from rlgrad.gradients.programs import program

layers = keras.layers
ROWS = 4


def other_weights(model, seed=5):
    rng = np.random.default_rng(seed)
    return {v.path: np.asarray(v) + 0.1 * zoo.normal(rng, *v.shape) for v in model.trainable_variables}


def at(model, values):
    """A copy of the model at these values."""
    copy = keras.models.clone_model(model)
    copy.set_weights([values.get(v.path, np.asarray(v)) for v in model.weights])
    return copy


@mostly_slow("name", ["sequential", "convolution", "embedding", "recurrent", "two_inputs", "batch_norm"], quick=2)
def test_without_an_output_it_is_what_the_model_returns(name):
    model, x = zoo.make(name), zoo.inputs_for(name)
    zoo.assert_close([evaluate(model, x)], [model(x, training=False)])
    values = other_weights(model)
    zoo.assert_close([evaluate(model, x, at=values)], [at(model, values)(x, training=False)])
    zoo.assert_close([evaluate(model, x)], [model(x, training=False)])


def test_heads_come_back_as_the_model_returns_them():
    model, x = zoo.randomized(zoo.two_heads()), zoo.inputs_for("sequential")
    found, y = evaluate(model, x), model(x)
    assert list(found) == list(y)
    zoo.assert_close(found.values(), y.values())
    assert evaluate(model, x, layer="body").shape == (ROWS, 5)


def test_an_output_has_the_value_that_a_linearization_has():
    model, x, actions = zoo.randomized(zoo.two_heads()), zoo.inputs_for("sequential"), np.array([0, 2, 1, 1])
    outputs = {"log_prob": LogProb(actions), "value": "value", "q": Chosen("policy", actions), "all": Each("policy")}
    outputs["square"] = gradients.Output.of(lambda y: y["value"][:, 0] ** 2)
    values = other_weights(model)
    for weights in (None, values):
        expected = linearize(model, x, output=outputs).outputs
        if weights:
            expected = linearize(model, x, output=outputs).at(weights).outputs
        found = evaluate(model, x, output=outputs, at=weights)
        assert list(found) == list(outputs)
        zoo.assert_close(found.values(), [expected[name] for name in outputs])
        for name, output in outputs.items():
            zoo.assert_close([evaluate(model, x, output=output, at=weights)], [expected[name]])


def test_targets_of_a_function_are_passed_on():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    target = zoo.normal(np.random.default_rng(0), ROWS, 3)
    found = evaluate(model, x, output=lambda y, t: tf.reduce_sum((y - t) ** 2, axis=-1), target=target)
    zoo.assert_close([found], [np.sum((model(x) - target) ** 2, axis=-1)])
    with pytest.raises(TypeError, match="target="):
        evaluate(model, x, target=target)


def test_other_weights_are_a_dict_of_some_or_a_list_of_all():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    values = other_weights(model)
    some = {path: value for path, value in values.items() if "out" in path}
    zoo.assert_close([evaluate(model, x, at=some)], [at(model, some)(x)])
    zoo.assert_close([evaluate(model, x, at=list(values.values()))], [at(model, values)(x)])
    copies = [tf.Variable(value) for value in values.values()]
    zoo.assert_close([evaluate(model, x, at=copies)], [at(model, values)(x)])
    with pytest.raises(ValueError, match="4 variables; got 3"):
        evaluate(model, x, at=copies[:3])
    with pytest.raises(ValueError, match="Did you mean"):
        evaluate(model, x, at={"plain/out/kernal": values["plain/out/kernel"]})
    with pytest.raises(ValueError, match="has shape"):
        evaluate(model, x, at={"plain/out/bias": np.ones(4)})
    with pytest.raises(TypeError, match="dict by the variables' paths"):
        evaluate(model, x, at=1.0)


def test_a_linearization_takes_a_list_in_the_order_of_its_variables():
    model, x = zoo.randomized(zoo.two_heads()), zoo.inputs_for("sequential")
    lin = linearize(model, x, output="value")
    values = [np.asarray(v) * 2.0 for v in lin.variables]
    assert len(values) < len(model.trainable_variables)
    by_key = {v.path: value for v, value in zip(lin.variables, values, strict=True)}
    zoo.assert_close([lin.at(values).outputs], [lin.at(by_key).outputs])
    zoo.assert_close([lin.at(values).outputs], [at(model, by_key)(x)["value"][:, 0]])


def test_no_gradient_flows_through_the_numbers():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    for run in (lambda f: f(), lambda f: tf.function(f, autograph=False)()):

        def slope():
            variable = model.trainable_variables[0].value
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(evaluate(model, x)) + tf.reduce_sum(evaluate(model, x, output=0))
                total += 0.0 * tf.reduce_sum(variable)
            return tape.gradient(total, variable)

        assert not np.any(run(slope))


@pytest.mark.xla
def test_compiled_code_evaluates_at_weights_that_it_computes():
    model, x = zoo.randomized(zoo.two_heads()), zoo.inputs_for("sequential")
    values = other_weights(model)

    @tf.function(jit_compile=True, autograph=False)
    def run(x, values):
        halves = {path: 0.5 * value for path, value in values.items()}
        following = evaluate(model, x, output={"q": Each("policy"), "v": "value"}, at=halves)
        slope = input_gradient(model, x, output="value", at=halves)
        return following, slope

    found, slope = run(tf.constant(x), {path: tf.constant(value) for path, value in values.items()})
    copy = at(model, {path: 0.5 * value for path, value in values.items()})
    zoo.assert_close([found["q"], found["v"]], [copy(x)["policy"], copy(x)["value"][:, 0]])
    zoo.assert_close([slope], [input_gradient(copy, x, output="value")])


def test_repeated_calls_trace_nothing_also_at_other_weights(monkeypatch):
    model, x, actions = zoo.randomized(zoo.two_heads()), zoo.inputs_for("sequential"), np.array([0, 2, 1, 1])

    def ask(x, values):
        evaluate(model, x)
        evaluate(model, x, output=Chosen("policy", actions))
        evaluate(model, x, output={"a": Each("policy"), "v": "value"}, at=values)
        input_gradient(model, x, output="value", at=list(values.values()))

    ask(x, other_weights(model))
    monkeypatch.setattr(program, "trace_facts", lambda *_: pytest.fail("traced again"))
    for seed in range(2):
        ask(x + seed, other_weights(model, seed))


def test_no_rows_give_no_numbers():
    model, x = zoo.randomized(zoo.two_heads()), zoo.inputs_for("sequential")
    assert {name: tuple(y.shape) for name, y in evaluate(model, x[:0]).items()} == {"policy": (0, 3), "value": (0, 1)}
    assert evaluate(model, x[:0], output="value").shape == (0,)


def test_the_model_is_left_as_it_was():
    class Counting(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

        def call(self, x):
            self.calls.assign_add(1.0)
            return self.dense(x)

    model, x = Counting(), zoo.inputs_for("sequential")
    model(x)
    before = float(model.calls.value)
    values = other_weights(model)
    evaluate(model, x, at=values)
    evaluate(model, x, output=lambda y: y[:, 0], at=values)
    assert float(model.calls.value) == before


# Values that the caller has put in place.


def placed(model, names=("first",), seed=9):
    values = {path: value for path, value in other_weights(model, seed).items() if any(name in path for name in names)}
    return values, [(v, tf.constant(values[v.path])) for v in model.trainable_variables if v.path in values]


def functions(model, x, **options):
    return [
        evaluate(model, x, **options),
        evaluate(model, x, output=lambda y: y[:, 1], **options),
        input_gradient(model, x, output=1, **options),
    ]


def test_values_of_an_outer_scope_are_seen_and_inner_ones_add_to_them():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    values, pairs = placed(model)
    inner = {"plain/out/bias": np.array([1.0, 2.0, 3.0], np.float32)}
    for _ in range(2):  # compiled the first time
        with keras.StatelessScope(state_mapping=pairs):
            zoo.assert_close(functions(model, x), functions(at(model, values), x))
            both = functions(at(model, values | inner), x)
            zoo.assert_close(functions(model, x, at=inner), both)
            over = {"plain/first/bias": np.full(6, 0.25, np.float32)}
            zoo.assert_close(functions(model, x, at=over), functions(at(model, values | over), x))
            zoo.assert_close([linearize(model, x, output=1).at(inner).outputs], [at(model, values | inner)(x)[:, 1]])
        zoo.assert_close(functions(model, x), functions(at(model, {}), x))
        values, pairs = placed(model, seed=11)  # the next time other numbers, and no trace of these


FUNCTIONS = {
    "gradient": lambda model, x: gradients.gradient(model, x).values(),
    "per_sample_gradient": lambda model, x: gradients.per_sample_gradient(model, x).values(),
    "jacobian": lambda model, x: gradients.jacobian(model, x).values(),
    "gram": lambda model, x: [gradients.gram(model, x)],
    "of a function": lambda model, x: gradients.per_sample_gradient(model, x, output=lambda y: y[:, 0] ** 2).values(),
    "linearize": lambda model, x: linearize(model, x, output=Each()).gradient().values(),
    "jvp": lambda model, x: [linearize(model, x).jvp(dict(gradients.gradient(model, x)))],
}


@mostly_slow("function", FUNCTIONS, quick=["per_sample_gradient", "of a function"])
@pytest.mark.parametrize("name", ["sequential", "convolution"])
def test_gradients_too_are_those_at_the_values_of_an_outer_scope(function, name):
    model, x = zoo.make(name), zoo.inputs_for(name)
    values, pairs = placed(model, ("first", "conv"))
    own = [np.asarray(g) for g in function(model, x)]
    with keras.StatelessScope(state_mapping=pairs):
        found = function(model, x)
    zoo.assert_close(found, function(at(model, values), x))
    zoo.assert_close(function(model, x), own)


def test_values_of_other_models_in_an_outer_scope_are_seen_by_a_model_that_reads_them():
    shared = layers.Dense(3)
    shared.build((None, 4))

    class Reader(keras.Model):
        def call(self, x):
            return tf.matmul(x, HOLDER["layer"].kernel)

    HOLDER["layer"] = shared
    model, x = Reader(), zoo.inputs_for("sequential")
    model(x)
    for factor in (1.0, 2.0, 3.0):
        kernel = factor * tf.ones((4, 3))
        with keras.StatelessScope(state_mapping=[(shared.kernel, kernel)]):
            zoo.assert_close([evaluate(model, x)], [x @ kernel.numpy()])
    zoo.assert_close([evaluate(model, x)], [x @ np.asarray(shared.kernel)])


HOLDER = {}


def test_a_traced_scope_of_symbols_is_seen_and_leaves_no_finding_behind():
    class Mixing(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x - tf.reduce_mean(x, axis=0))

    model, x = zoo.make("subclassed"), zoo.inputs_for("subclassed")
    values = other_weights(model)

    @tf.function(autograph=False)
    def run(values):
        with keras.StatelessScope(state_mapping=list(zip(model.trainable_variables, values, strict=True))):
            return gradients.per_sample_norm(model, x)

    expected = linearize(model, x).at(values).norm()
    zoo.assert_close([run([tf.constant(value) for value in values.values()])], [expected])
    mixing = Mixing()
    mixing(x)

    @tf.function(autograph=False)
    def refused(kernel):
        with keras.StatelessScope(state_mapping=[(mixing.dense.kernel, kernel)]):
            return gradients.per_sample_norm(mixing, x)

    for _ in range(2):
        with pytest.raises(gradients.BatchCoupledError):
            refused(tf.ones((4, 3)))
    with pytest.raises(gradients.BatchCoupledError):
        gradients.per_sample_norm(mixing, x)
