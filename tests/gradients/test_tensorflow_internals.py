"""The contract with TensorFlow: behavior that it does not promise. A failure here after an upgrade names what changed."""

import gc
import re
import weakref

import numpy as np
import pytest
import tensorflow as tf

from rlgrad.core import tensorflow_internals
from rlgrad.core.tensorflow_internals import computed_once, flat_call, trace

SPEC = tf.TensorSpec([None], tf.float32)


def test_a_concrete_function_still_runs_on_flat_inputs_with_the_variables_of_the_moment():
    v = tf.Variable(2.0)
    call = flat_call(tf.function(lambda x: [v * x[0], x[0] + x[1]]).get_concrete_function([SPEC, SPEC]))
    a, b = tf.constant([1.0, 2.0]), tf.constant([3.0, 5.0])
    assert [r.numpy().tolist() for r in call([a, b])] == [[2.0, 4.0], [4.0, 7.0]]
    v.assign(3.0)
    assert [r.numpy().tolist() for r in call([a[:1], tf.Variable([3.0])])] == [[3.0], [4.0]]


def test_a_concrete_function_still_has_the_shorter_way():
    assert hasattr(tf.function(lambda x: x).get_concrete_function(SPEC), "_call_flat")


@pytest.fixture
def by_name(monkeypatch):
    """The calls of concrete functions by their names: a list that grows."""
    calls, context_call = [], tensorflow_internals._context_call

    def told(function):
        call = context_call(function)
        return lambda flat: calls.append(flat) or call(flat)

    monkeypatch.setattr(tensorflow_internals, "_context_call", told)
    return calls


def test_without_a_tape_a_concrete_function_is_called_by_its_name(by_name):
    v, x = tf.Variable(2.0), tf.constant([3.0])
    call = flat_call(tf.function(lambda x: [v * v * x[0]]).get_concrete_function([SPEC]))
    assert call([x])[0].numpy().tolist() == [12.0]
    assert len(by_name) == 1
    with tf.GradientTape() as tape:
        (y,) = call([x])
    assert float(tape.gradient(y, v)) == 12.0
    with tf.autodiff.ForwardAccumulator(x, tf.constant([1.0])) as accumulator:
        (y,) = call([x])
    assert accumulator.jvp(y).numpy().tolist() == [4.0]
    assert tf.function(lambda x: call([x])[0])(x).numpy().tolist() == [12.0]
    assert len(by_name) == 1


def test_an_error_says_the_same_by_either_way(by_name):
    def failing(x):
        return [tf.gather(x[0], 3)]

    call = flat_call(tf.function(failing).get_concrete_function([SPEC]))
    with pytest.raises(tf.errors.InvalidArgumentError) as short:
        call([tf.constant([-3.0])])
    with tf.GradientTape(), pytest.raises(tf.errors.InvalidArgumentError) as long:
        call([tf.constant([-3.0])])
    assert len(by_name) == 1
    assert "test_tensorflow_internals.py" in str(short.value)  # where in the model it comes from
    assert str(short.value) == str(long.value)


def test_functions_with_other_results_than_plain_tensors_are_not_called_by_name():
    v = tf.Variable(2.0)
    returned = tf.function(lambda x: [v.handle]).get_concrete_function([SPEC])
    assert tensorflow_internals._context_call(returned) is None
    single = tf.function(lambda x: x[0]).get_concrete_function([SPEC])
    assert tensorflow_internals._context_call(single) is None
    none = tf.function(lambda x: []).get_concrete_function([SPEC])
    assert flat_call(none)([tf.constant([1.0])]) == []


def test_without_the_shorter_way_the_documented_one_is_taken():
    class Documented:
        def __init__(self, function):
            self.captured_inputs, self.function = function.captured_inputs, function

        def __call__(self, tensors):
            return self.function(tensors)

    function = tf.function(lambda x: [x[0] + x[1]]).get_concrete_function([SPEC, SPEC])
    assert flat_call(Documented(function))([tf.constant([1.0]), tf.constant([3.0])])[0].numpy().tolist() == [4.0]


def test_a_tape_still_sees_what_is_called_flat():
    v, x = tf.Variable(2.0), tf.constant([3.0])
    call = flat_call(tf.function(lambda x: [v * v * x[0]]).get_concrete_function([SPEC]))
    with tf.GradientTape() as tape:
        tape.watch(x)
        (y,) = call([x])
    assert [g.numpy().tolist() for g in tape.gradient(y, [v, x])] == [12.0, [4.0]]


@tf.custom_gradient
def squared(x):
    return x * x, lambda upstream: 3.0 * upstream * x  # not the derivative, to be told from it


def test_a_custom_gradient_is_that_of_a_traced_function_as_long_as_there_is_one():
    function = trace(lambda x: tf.function(squared)(x) + squared(x), tf.TensorSpec((), tf.float32))
    gc.collect()
    x = tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    assert (float(y), float(tape.gradient(y, x))) == (8.0, 12.0)


def test_and_holds_no_graph_after_it():
    function = trace(lambda x: tf.function(squared)(x) + squared(x), tf.TensorSpec((), tf.float32))
    graph = weakref.ref(function.graph)
    del function
    gc.collect()
    assert graph() is None


def test_the_gradients_that_tensorflow_takes_for_constants_are_all_known():
    from tensorflow.python.framework.ops import gradient_registry

    from rlgrad.core.tensorflow_internals import UNDIFFERENTIABLE

    constants = {
        name
        for name, entry in gradient_registry._registry.items()
        if entry["type"] is None and re.search(r"Grad(ient)?(V\d)?$", name)
    }
    # TensorArrayGrad* give a handle and no numbers; StopGradient is a constant.
    named = {name for name in constants if not name.startswith(("TensorArrayGrad", "StopGradient"))}
    assert named == UNDIFFERENTIABLE


def test_an_undifferentiable_gradient_is_seen_in_the_graph_and_in_its_functions():
    from rlgrad.core.tensorflow_internals import undifferentiable

    seen = []

    def twice(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.image.resize(x, (4, 4))
        return tape.gradient(y, x)

    def traced(x):
        seen.append(undifferentiable())
        twice(x)
        seen.append(undifferentiable())
        tf.function(twice, autograph=False)(x)
        seen.append(undifferentiable())

    tf.function(traced, autograph=False).get_concrete_function(tf.TensorSpec((1, 2, 2, 1)))
    assert [found["ResizeBilinearGrad"] for found in seen] == [0, 1, 2]
    assert not undifferentiable()


def test_the_variance_of_tensorflow_has_a_wrong_second_derivative_and_ours_the_right_one_with_the_same_numbers():
    from rlgrad.core.tensorflow_internals import exact_moments

    x = tf.constant([[1.0, 2.0, 4.0]])

    def derivatives():
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                mean, variance = tf.nn.moments(x, [1])
            first = inner.gradient(variance, x)
            one = first[0, 0]
        return mean, variance, first, outer.gradient(one, x)

    *plain, wrong = derivatives()
    original = tf.nn.moments
    with exact_moments():
        with exact_moments():  # once is enough
            *exact, right = derivatives()
        assert tf.nn.moments is not original
    assert tf.nn.moments is original
    for a, b in zip(plain, exact, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(wrong, [[2 / 3, 0.0, 0.0]], atol=1e-7)  # when this fails, TensorFlow has mended it
    np.testing.assert_allclose(right, [[2 / 3 - 2 / 9, -2 / 9, -2 / 9]], rtol=1e-6)


@pytest.mark.xla
def test_xla_computes_once_what_is_to_be_computed_once_and_leaves_the_numbers_as_they_are():
    h, x = tf.random.stateless_normal((256, 64), (1, 2)), tf.random.stateless_normal((256, 2), (3, 4))

    def gradient(kept):
        def program(h, x):
            credit = kept(tf.where(h[:, :2] > 0.0, x * h[:, :2], 0.0))
            return tf.matmul(tf.nn.relu(h + 0.1), tf.unstack(credit, axis=1)[0][:, None], transpose_a=True)

        return trace(program, h, x, jit_compile=True)

    def computes_credits_in_the_product(concrete):
        text = tf.function(concrete, jit_compile=True).experimental_get_compiler_ir(h, x)(stage="optimized_hlo")
        return any(" dot(" in part and " select(" in part for part in text.split("\n}\n"))

    plain, kept = gradient(lambda x: x), gradient(computed_once)
    np.testing.assert_allclose(plain(h, x), kept(h, x), rtol=1e-4, atol=1e-4)
    assert computes_credits_in_the_product(plain)  # when this fails, computed_once can go
    assert not computes_credits_in_the_product(kept)
    special = tf.constant([np.nan, -np.inf, 0.0, 2.0])
    np.testing.assert_array_equal(trace(computed_once, special, jit_compile=True)(special), special)
    np.testing.assert_array_equal(trace(computed_once, special[1:2], jit_compile=True)(special[1:2]), [-np.inf])


def test_nothing_is_kept_outside_of_programs_for_xla():
    x = tf.constant([1.0, 2.0])
    assert computed_once(x) is x
    seen = []
    trace(lambda x: seen.append((x, computed_once(x))), x)
    assert seen[0][0] is seen[0][1]
