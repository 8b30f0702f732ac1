"""The contract with TensorFlow: behavior that it does not promise. A failure here after an upgrade names what changed."""

import gc
import weakref

import tensorflow as tf

from rlgrad.core.tensorflow_internals import flat_call, trace

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
