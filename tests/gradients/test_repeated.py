"""A repeated question takes the short way, says the same as the long one, and goes the long way again once it differs."""

import contextlib
import gc
import weakref
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo
from helpers.slow import mostly_slow

from rlgrad import gradients
from rlgrad.distributions import Categorical
from rlgrad.gradients import (
    Entropy,
    LogProb,
    activations,
    curvature,
    functions,
    gradient,
    gram,
    input_derivatives,
    jacobians,
    per_sample_gradient,
    per_sample_norm,
    samples,
)
from rlgrad.gradients.programs import cache, program

layers = keras.layers
FUNCTIONS = (
    "gradient",
    "value_and_gradient",
    "input_gradient",
    "jacobian",
    "per_sample_gradient",
    "per_sample_norm",
    "gram",
    "input_jacobian",
    "jacobian_gram",
    "activation_gradient",
    "clipped_gradient",
    "hessian_vector_product",
    "input_jvp",
)


@contextlib.contextmanager
def no_asking():
    """In this context every call must be known from an earlier one."""

    def asked(*args, **kwargs):
        raise AssertionError("the question was asked again")

    with pytest.MonkeyPatch.context() as patch:
        for module in (activations, curvature, functions, input_derivatives, jacobians, samples):
            patch.setattr(module, "ask", asked)
        yield


def copy_of(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def arrays(result):
    return [np.asarray(leaf) for leaf in tf.nest.flatten(result)]


KINDS = {  # of arrays that a question may hold
    "float32": lambda x: x.astype(np.float32),
    "float64": lambda x: x.astype(np.float64),
    "tensor": tf.constant,
    "list": np.ndarray.tolist,
}


def direction(model, scale=1.0):
    """A direction of all weights."""
    return {v.path: scale * np.cos(np.arange(v.value.shape.num_elements())).reshape(v.shape) for v in model.weights}


def complete(function):
    """The function of this name, given everything that it takes beside an output and sample weights."""
    call = getattr(gradients, function)
    if function == "activation_gradient":
        return partial(call, at="first")
    if function == "clipped_gradient":
        return partial(call, max_norm=0.7)
    if function == "hessian_vector_product":
        return lambda model, x, **options: call(model, x, direction(model), **options)
    if function == "input_jvp":
        return lambda model, x, **options: call(model, x, np.cos(np.asarray(x)), **options)
    return call


@mostly_slow("function", FUNCTIONS, quick=["gradient", "gram"])
def test_a_repeated_question_is_not_asked_again_and_says_the_same(function):
    model, generator = zoo.make("sequential"), np.random.default_rng(0)
    models, call = {kind: copy_of(model) for kind in KINDS}, complete(function)

    def question(rows):
        x = zoo.normal(generator, rows, 4)
        output = 0.5 * LogProb(generator.integers(0, 3, rows)) + 0.1 * Entropy()
        return x, output, generator.standard_normal(rows)

    x, output, c = question(5)
    for kind, convert in KINDS.items():
        call(models[kind], convert(x), output=output, sample_weight=c)
    for rows in (5, 3, 1):
        x, output, c = question(rows)
        long = call(copy_of(model), x, output=output, sample_weight=c)
        for kind, convert in KINDS.items():
            with no_asking():
                short = call(models[kind], convert(x), output=output, sample_weight=c)
            zoo.assert_close(arrays(short), arrays(long))
            if isinstance(short, dict):
                assert [key.split("/")[1:] for key in short] == [key.split("/")[1:] for key in long]


def test_inputs_in_a_dict_are_repeated_too():
    model, x = zoo.make("two_inputs"), zoo.inputs_for("two_inputs")
    first = per_sample_norm(model, x, output=1)
    with no_asking():
        zoo.assert_close([per_sample_norm(model, x, output=1)], [first])
    doubled = {name: 2.0 * leaf for name, leaf in reversed(x.items())}
    with no_asking():
        short = per_sample_norm(model, doubled, output=1)
    zoo.assert_close([short], [per_sample_norm(copy_of(model), doubled, output=1)])


def test_a_direction_in_another_order_or_of_other_parts_is_not_confused():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    v, hvp = direction(model), partial(gradients.hessian_vector_product, model, x, output=LogProb([0, 1, 2, 0]))
    products = hvp(v)
    for _ in range(2):
        for scale in (1.0, -2.0):
            again = hvp(dict(reversed(direction(model, scale).items())))
            assert list(again) == list(products)
            zoo.assert_close(again.values(), [scale * np.asarray(part) for part in products.values()])
        with pytest.raises(ValueError, match="exactly the keys"):
            hvp({key: v[key] for key in list(v)[1:]})
        with pytest.raises(ValueError, match="must have shape"):
            hvp({key: part.T for key, part in v.items()})
        with pytest.raises(ValueError, match="exactly the keys"):
            hvp(list(v.values()))


def test_a_direction_of_some_inputs_is_not_one_of_others():
    model, x = zoo.make("two_inputs"), zoo.inputs_for("two_inputs")
    first, second = x
    v = {name: np.cos(leaf) for name, leaf in x.items()}
    jvp = partial(gradients.input_jvp, model, x)
    parts = [jvp(v[name], inputs=name) for name in x]
    for _ in range(2):
        for name, part in zip(x, parts, strict=True):
            zoo.assert_close([jvp(v[name], inputs=name), jvp({name: v[name]}, inputs=[name])], [part, part])
        zoo.assert_close([jvp(v), jvp(dict(reversed(v.items())))], [parts[0] + parts[1]] * 2)
        lists = {first: v[first].tolist(), second: v[second]}
        zoo.assert_close([jvp(lists)], [parts[0] + parts[1]])
        with pytest.raises(ValueError, match="exactly the keys"):
            jvp({first: v[first]})
        with pytest.raises(ValueError, match="has the shapes of x"):
            jvp({name: part[:1] for name, part in v.items()})


def test_another_longest_norm_is_seen_and_compiles_nothing():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    whole = arrays(gradients.clipped_gradient(model, x, max_norm=1e6))
    with no_asking():
        short = [arrays(gradients.clipped_gradient(model, x, max_norm=c)) for c in (1e-3, 2e-3, 1e6)]
    zoo.assert_close(short[1], [2.0 * part for part in short[0]])
    zoo.assert_close(short[2], whole)
    assert len(program.programs_of(model)) == 1
    for wrong in (0.0, -1.0, float("nan"), [1.0, 2.0]):
        with pytest.raises(ValueError, match="one positive number"):
            gradients.clipped_gradient(model, x, max_norm=wrong)


def test_other_options_are_other_questions():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    for _ in range(2):
        assert gradient(model, x, weights="first").keys() == {"plain/first/kernel", "plain/first/bias"}
        assert gradient(model, x, weights="out").keys() == {"plain/out/kernel", "plain/out/bias"}
        assert gradient(model, x, layer="first").keys() == gradient(model, x, layer=0).keys()
        assert per_sample_norm(model, x, per="layer").keys() == {"first", "out"}
        zoo.assert_close([per_sample_norm(model, x) ** 2], [per_sample_norm(model, x, squared=True)])
        first, second = (
            per_sample_gradient(model, x, segments=ids)["plain/out/bias"] for ids in ([0, 0, 0, 0], [0, 1, 1, 1])
        )
        assert first.shape[0] == 1
        assert second.shape[0] == 2
        assert gradient(model, x, weights=model.layers[0]).keys() == gradient(model, x, weights="first").keys()
        with pytest.raises(TypeError, match="position"):
            gradient(model, x, layer=True)  # equal to 1, and yet no position


def test_new_values_of_weights_are_seen():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    before = gradient(model, x, output=0)["plain/first/kernel"]
    model.layers[1].kernel.assign(2.0 * model.layers[1].kernel)
    with no_asking():
        zoo.assert_close([gradient(model, x, output=0)["plain/first/kernel"]], [2.0 * np.asarray(before)])


@pytest.mark.parametrize("function", [gradient, per_sample_gradient])
def test_what_is_trainable_is_seen(function):
    model, x = zoo.make("nested"), zoo.inputs_for("nested")
    everything = list(function(model, x))
    inner = model.get_layer("inner")
    for part, left in [(inner.layers[0], 4), (inner, 2), (model.layers[-1].bias, 5)]:
        part.trainable = False
        assert len(function(model, x)) == left
        part.trainable = True
        assert list(function(model, x)) == everything
    model.trainable = False
    with pytest.raises(ValueError, match="no trainable weights"):
        function(model, x)


def test_layers_that_are_added_replaced_or_renamed_are_seen():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    for _ in range(2):
        gradient(model, x)
    model.add(layers.Dense(2, name="more"))
    assert len(gradient(model, x)) == 6
    model.pop()
    assert len(gradient(model, x)) == 4
    model.pop()
    model.add(layers.Dense(3, name="out"))
    assert gradient(model, x)["plain/out/kernel"].shape == (6, 3)
    for _ in range(2):
        gradient(model, x, weights="out")
    model.layers[0].name, model.layers[1].name = "out", "first"
    assert {g.shape[0] for g in gradient(model, x, weights="out").values()} == {4, 6}
    assert gradient(model, x, weights="out")["plain/first/kernel"].shape == (4, 6)


def test_another_distribution_of_the_model_is_seen():
    model, x = zoo.TimeMajorPolicy(), zoo.normal(np.random.default_rng(0), 2, 3, 4)
    actions = np.full((2, 3), 2)
    for _ in range(2):
        gradient(model, x, output=LogProb(actions))
    model.distribution = Categorical(2)
    with pytest.raises(ValueError, match="0 … 1"):
        gradient(model, x, output=LogProb(actions))


@pytest.mark.parametrize("function", [gradient, per_sample_gradient, per_sample_norm, gram])
def test_what_is_wrong_is_refused_also_the_second_time(function):
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    ask = lambda x=x, actions=(0, 1, 2, 0), c=(1.0, 2.0, 3.0, 4.0): function(
        model, x, output=LogProb(np.asarray(actions)), sample_weight=np.asarray(c)
    )
    for _ in range(2):
        ask()
        with pytest.raises(ValueError, match=r"Actions are 0 … 2, got values from 0 to 3"):
            ask(actions=[0, 1, 2, 3])
        with pytest.raises(ValueError, match=r"Actions are 0 … 2, got values from -1 to 2"):
            ask(actions=[0, 1, 2, -1])
        with pytest.raises(TypeError, match="float64 actions"):
            ask(actions=[0.0, 1.0, 2.0, 0.0])
        with pytest.raises(ValueError, match="4 rows"):
            ask(actions=[0, 1, 2])
        with pytest.raises(ValueError, match="sample_weight"):
            ask(c=[1.0, 2.0, 3.0])
        with pytest.raises(ValueError, match="sample_weight"):
            ask(c=[[1.0], [2.0], [3.0], [4.0]])
        with pytest.raises(ValueError, match="takes input x of shape"):
            ask(x=x[:, :3])
        with pytest.raises(ValueError, match="takes input x of shape"):
            ask(x=x[0])
        with pytest.raises(ValueError, match="rows"):
            ask(x=x[:3])


def test_integers_for_an_input_of_floats_are_differentiated_as_those_floats_also_after_floats_were():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    numbers = np.array([[0, 1, 2, 3], [-1, 4, 0, 2]])
    for _ in range(2):
        gradients.input_gradient(model, x)
        for kind in (np.int64, np.uint8):
            integers = np.abs(numbers).astype(kind)
            floats = gradients.input_gradient(model, integers.astype(np.float32))
            np.testing.assert_array_equal(gradients.input_gradient(model, integers), floats)


def test_more_rows_than_fit_are_refused_also_when_fewer_were_answered():
    model, generator = zoo.make("sequential"), np.random.default_rng(0)
    limit = 4 * 51 * 100  # bytes of 100 gradients of 51 weights
    for rows in (100, 100, 50):
        assert len(per_sample_gradient(model, zoo.normal(generator, rows, 4), memory_limit=limit)) == 4
    with pytest.raises(MemoryError):
        per_sample_gradient(model, zoo.normal(generator, 101, 4), memory_limit=limit)


def test_no_rows_give_empty_results_also_after_some():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    for _ in range(2):
        assert per_sample_norm(model, x).shape == (4,)
        assert per_sample_norm(model, x[:0]).shape == (0,)
        assert gram(model, x[:0]).shape == (0, 0)


def test_chunks_are_put_together_also_after_a_question_that_needed_one():
    model, generator = zoo.make("sequential"), np.random.default_rng(0)
    for rows in (3, 3, 8, 8):
        x = zoo.normal(generator, rows, 4)
        zoo.assert_close([per_sample_norm(model, x, chunk_size=3)], [per_sample_norm(model, x)])


def test_a_tape_sees_a_repeated_question():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    kernel = model.layers[0].kernel.value
    results = []
    for _ in range(3):
        with tf.GradientTape() as tape:
            square = tf.reduce_sum(gradient(model, x, output=0)["plain/out/kernel"] ** 2)
        results.append(tape.gradient(square, kernel))
    zoo.assert_close(results[1:], results[:1] * 2)


def test_inside_the_callers_function_the_question_is_traced():
    model, x = zoo.make("sequential"), tf.constant(zoo.inputs_for("sequential"))
    eager = [per_sample_norm(model, x) for _ in range(2)][-1]
    zoo.assert_close([tf.function(lambda x: per_sample_norm(model, x), autograph=False)(x)], [eager])


def test_variables_of_every_kind_can_be_inputs():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    expected = per_sample_norm(model, x, output=[0, 1, 2, 0])
    for _ in range(2):
        zoo.assert_close([per_sample_norm(model, tf.Variable(x), output=tf.Variable([0, 1, 2, 0]))], [expected])


def test_neither_model_nor_arrays_are_kept_alive():
    class Array(np.ndarray):
        pass

    model, x = zoo.make("sequential"), zoo.inputs_for("sequential").view(Array)
    actions, tensor = np.array([0, 1, 2, 0]).view(Array), tf.constant(zoo.inputs_for("sequential"))
    for function in (gradient, per_sample_gradient, per_sample_norm, gram):
        for _ in range(2):
            function(model, x, output=LogProb(actions), weights="first")
            function(model, tensor, output=1, layer="first")
    alive = [weakref.ref(thing) for thing in (model, x, actions, tensor, *model.layers)]
    del model, x, actions, tensor
    gc.collect()
    assert [reference() for reference in alive] == [None] * len(alive)


def test_a_program_that_is_no_longer_kept_is_compiled_again(monkeypatch):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 1)
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    for layer in ("first", "out", "first", "first", "out"):
        assert ("plain/out/kernel" in gradient(model, x, layer=layer)) == (layer == "out")
        assert len(program.programs_of(model)) == 1
