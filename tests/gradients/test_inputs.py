"""The input: which arrays of it are differentiated, how a model takes several, and what kinds of arrays there are."""

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad import gradients
from rlgrad.gradients import DisconnectedGradientError, gradient, input_gradient, per_sample_gradient

layers, ops = keras.layers, keras.ops
RNG = np.random.default_rng(0)
NUMBERS, CATEGORY = RNG.standard_normal((4, 3)).astype(np.float32), np.array([[0], [4], [1], [1]])
MASK, WORDS = np.array([[True], [False], [True], [True]]), np.array([["a"], ["b"], ["c"], ["a"]])
ALL = {"numbers": NUMBERS, "category": CATEGORY, "mask": MASK, "words": WORDS, "unused": np.zeros((4, 2), np.float32)}


def mixed(as_list=False):
    """A model of numbers, an id, a truth value, a word, and numbers that it ignores."""
    numbers, category = keras.Input((3,), name="numbers"), keras.Input((1,), dtype="int32", name="category")
    mask, words = keras.Input((1,), dtype="bool", name="mask"), keras.Input((1,), dtype="string", name="words")
    unused = keras.Input((2,), name="unused")
    word = layers.Flatten()(layers.Embedding(5, 2)(layers.StringLookup(vocabulary=["a", "b", "c"])(words)))
    parts = [numbers, layers.Flatten()(layers.Embedding(5, 2)(category)), word]
    hidden = layers.Dense(4, "tanh")(layers.Concatenate()(parts))
    inputs = {"numbers": numbers, "category": category, "mask": mask, "words": words, "unused": unused}
    y = layers.Dense(2)(hidden * ops.cast(mask, "float32"))
    return keras.Model(list(inputs.values()) if as_list else inputs, y)


def by_tape(model, x, name, f=lambda y: y[:, 0]):
    x = {key: tf.constant(part) for key, part in x.items()} | {"category": tf.constant(x["category"], tf.int32)}
    with tf.GradientTape() as tape:
        tape.watch(x[name])
        y = tf.reduce_sum(f(model(x, training=False)))
    return tape.gradient(y, x[name])


def test_inputs_chooses_what_is_differentiated_beside_integers_truth_values_strings_and_unused_numbers():
    model = mixed()
    expected = by_tape(model, ALL, "numbers")
    for _ in range(2):  # asked, then known
        np.testing.assert_allclose(
            input_gradient(model, ALL, output=0, inputs="numbers"), expected, rtol=1e-5, atol=1e-7
        )
        listed = input_gradient(model, ALL, output=0, inputs=["numbers"])
        assert list(listed) == ["numbers"]
        np.testing.assert_allclose(listed["numbers"], expected, rtol=1e-5, atol=1e-7)
    graph = tf.function(
        lambda numbers: input_gradient(model, ALL | {"numbers": numbers}, output=0, inputs="numbers"), autograph=False
    )
    np.testing.assert_allclose(graph(tf.constant(NUMBERS)), expected, rtol=1e-5, atol=1e-7)
    # The weights of the same model, whatever else goes in.
    assert len(per_sample_gradient(model, ALL)) == len(gradient(model, ALL)) == len(model.trainable_variables)


def test_a_choice_that_has_no_gradient_says_which_inputs_have_one():
    model = mixed()
    with pytest.raises(
        TypeError, match=r"x\['category'\] \(int32\), x\['mask'\] \(bool\), x\['words'\] \(string\) is not made"
    ):
        input_gradient(model, ALL)
    with pytest.raises(TypeError, match=r"inputs=\['numbers', 'unused'\]"):
        input_gradient(model, ALL, inputs=["category", "numbers"])
    with pytest.raises(
        DisconnectedGradientError, match=r"does not depend on input x\['unused'\]. It depends on inputs='numbers'"
    ):
        input_gradient(model, ALL, inputs="unused")
    with pytest.raises(ValueError, match=r"no part 'number'\. Did you mean 'numbers'"):
        input_gradient(model, ALL, inputs="number")
    with pytest.raises(ValueError, match="x is a dict: name its keys"):
        input_gradient(model, ALL, inputs=0)
    with pytest.raises(ValueError, match="selects nothing"):
        input_gradient(model, ALL, inputs=[])
    with pytest.raises(TypeError, match="inputs= takes a key"):
        input_gradient(model, ALL, inputs=1.5)


def test_parts_of_a_list_are_named_by_position_and_by_input_and_a_dict_by_names_gives_a_dict():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    model = zoo.randomized(keras.Model([b, a], layers.Dense(2)(layers.Concatenate()([a, b]))))
    x = {"a": NUMBERS[:, :2], "b": NUMBERS}
    of_b, of_a = input_gradient(model, [x["b"], x["a"]], output=1)
    by_name = input_gradient(model, x, output=1)
    assert list(by_name) == ["b", "a"]
    for _ in range(2):
        for got, expected in [
            (by_name["a"], of_a),
            (by_name["b"], of_b),
            (input_gradient(model, [x["b"], x["a"]], output=1, inputs=-1), of_a),
            (input_gradient(model, [x["b"], x["a"]], output=1, inputs="a"), of_a),
            (input_gradient(model, x, output=1, inputs=["a", "b"])["b"], of_b),
            (input_gradient(model, (x["b"], x["a"]), output=1, inputs=[0, "a"])[0], of_b),
        ]:
            np.testing.assert_array_equal(got, expected)
        assert isinstance(input_gradient(model, [x["b"], x["a"]], output=1), list)
        assert isinstance(input_gradient(model, x, output=1), dict)
    with pytest.raises(ValueError, match=r"no part 2\. There are: 0, 1"):
        input_gradient(model, [x["b"], x["a"]], inputs=2)
    with pytest.raises(ValueError, match=r"takes input x\['b'\] of shape \(N, 3\), got \(4, 2\)"):
        gradient(model, x | {"b": x["a"]})


class OfTree(keras.Model):
    """A model of a dict in a dict; the ids in it are not floats."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs["seen"]["position"]) * ops.cast(inputs["id"], "float32") + inputs["seen"]["shift"]


def test_paths_name_parts_of_a_tree_and_a_subtree_keeps_its_structure():
    model, x = OfTree(), {"id": CATEGORY, "seen": {"position": NUMBERS, "shift": NUMBERS[:, :2]}}
    model(x)
    with pytest.raises(TypeError, match=r"inputs=\['seen/position', 'seen/shift'\]"):
        input_gradient(model, x)
    whole = input_gradient(model, x, inputs="seen")
    assert set(whole) == {"position", "shift"}
    np.testing.assert_array_equal(whole["shift"], np.ones((4, 2)))
    expected = CATEGORY * np.asarray(model.dense.kernel).sum(axis=1)
    np.testing.assert_allclose(whole["position"], expected, rtol=1e-5)
    for _ in range(2):
        np.testing.assert_allclose(input_gradient(model, x, inputs="seen/position"), expected, rtol=1e-5)


def test_floats_for_an_input_of_integers_are_cast_as_keras_does_so_their_gradient_is_refused():
    image = keras.Sequential(
        [keras.Input((4, 4, 1), dtype="uint8"), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(2)]
    )
    for x in (RNG.random((2, 4, 4, 1)).astype(np.float32), np.ones((2, 4, 4, 1), np.uint8)):
        with pytest.raises(TypeError, match=r"x \(uint8\) is not made.*dtype='float32'.*activation_gradient"):
            input_gradient(image, x, output=0)
    model = OfTree()
    model({"id": CATEGORY, "seen": {"position": NUMBERS, "shift": NUMBERS[:, :2]}})
    with pytest.raises(TypeError, match="converted to float first"):
        input_gradient(model, {"id": CATEGORY, "seen": {"position": CATEGORY, "shift": CATEGORY}}, inputs=["id"])


class Scaled(keras.Model):
    """A model of two inputs, and one that may be left out."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x, t, shift=None, training=None):
        y = ops.tanh(self.dense(x)) * t
        return y if shift is None else y + shift * self.dense(x)


class Pair(keras.Model):
    """A model of one list of two arrays."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs, scale=None):
        y = self.dense(inputs[0]) * inputs[1]
        return y if scale is None else scale * y


def test_a_call_of_several_inputs_takes_a_tuple_a_list_or_a_dict_by_the_arguments_names():
    model, t = Scaled(), RNG.standard_normal((4, 1)).astype(np.float32)
    model(NUMBERS, t)
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(model(NUMBERS, t)[:, 1])
    expected = tape.gradient(y, model.dense.kernel.value)
    forms = [(NUMBERS, t), [NUMBERS, t], {"x": NUMBERS, "t": t}, {"t": t, "x": NUMBERS, "shift": None}]
    for x in forms:
        for function in (gradient, per_sample_gradient):
            got = next(iter(function(model, x, output=1).values()))
            got = got if function is gradient else np.sum(got, axis=0)
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    of_t = input_gradient(model, forms[2], output=1, inputs="t")
    np.testing.assert_allclose(of_t, np.tanh(model.dense(NUMBERS))[:, 1:], rtol=1e-5)
    np.testing.assert_array_equal(input_gradient(model, forms[0], output=1, inputs=1), of_t)
    with_shift = gradient(model, (NUMBERS, t, np.ones((4, 2), np.float32)))
    assert not np.allclose(next(iter(with_shift.values())), next(iter(gradient(model, (NUMBERS, t)).values())))
    lin = gradients.linearize(model, (NUMBERS, t), output=1)
    np.testing.assert_allclose(next(iter(lin.gradient().values())), expected, rtol=1e-4, atol=1e-6)
    for x in (NUMBERS, (NUMBERS,), {"x": NUMBERS}, {"x": NUMBERS, "t": t, "u": t}, (NUMBERS, t, t, t)):
        with pytest.raises(
            ValueError, match=r"takes several inputs, call\(x, t, shift\). Pass x=\(x, t\) or x=\{'x': …, 't': …\}"
        ):
            gradient(model, x)


def test_a_call_of_one_list_takes_it_as_it_is_and_optional_inputs_come_in_a_dict():
    model, t = Pair(), RNG.standard_normal((4, 1)).astype(np.float32)
    model([NUMBERS, t])
    one = next(iter(gradient(model, [NUMBERS, t]).values()))
    np.testing.assert_allclose(one, NUMBERS.T @ np.repeat(t, 2, axis=1), rtol=1e-5)
    two = gradient(model, {"inputs": [NUMBERS, t], "scale": np.full((4, 1), 2.0, np.float32)})
    np.testing.assert_allclose(next(iter(two.values())), 2 * one, rtol=1e-5)


def kernel(function, model, x):
    return next(iter(function(model, x).values()))


def dense():
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d")])


@pytest.mark.parametrize(
    "convert",
    [
        keras.Variable,
        tf.Variable,
        tf.sparse.from_dense,
        tf.constant,
        np.ndarray.tolist,
        lambda x: [x],
        lambda x: x.astype(np.float64),
        lambda x: tf.SparseTensor([[1, 0], [0, 2], [0, 1]], [1.0, 3.0, 2.0], [4, 3]),
    ],
)
def test_every_kind_of_array_that_the_model_takes_gives_the_same_gradient(convert):
    model, x = dense(), NUMBERS
    converted = convert(x)
    if isinstance(converted, tf.SparseTensor) and converted.values.shape[0] == 3:
        x = np.array([[0, 2, 3], [1, 0, 0], [0, 0, 0], [0, 0, 0]], np.float32)
    for _ in range(2):
        np.testing.assert_allclose(
            kernel(gradient, model, converted), np.repeat(x.sum(0)[:, None], 2, 1), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            kernel(per_sample_gradient, model, converted), np.repeat(x[..., None], 2, 2), rtol=1e-6
        )
        saliency = input_gradient(model, converted)
        np.testing.assert_allclose(
            tf.nest.flatten(saliency)[0], np.tile(np.asarray(model.layers[0].kernel).sum(1), (4, 1)), rtol=1e-5
        )


def test_small_floats_count_as_the_floats_that_the_model_makes_of_them():
    x = NUMBERS.astype(ml_dtypes.bfloat16)
    for _ in range(2):
        np.testing.assert_array_equal(kernel(gradient, dense(), x), kernel(gradient, dense(), x.astype(np.float32)))


def test_lists_of_numbers_are_arrays_also_inside_of_a_dict():
    model = zoo.make("two_inputs")
    x = zoo.inputs_for("two_inputs")
    lists = {name: part.tolist() for name, part in x.items()}
    zoo.assert_close(gradient(model, lists).values(), gradient(model, x).values())
    with pytest.raises(ValueError, match="got a dict with the keys"):
        gradient(model, {"a": {"inner": x["a"]}, "b": x["b"]})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (tf.ragged.constant([[1.0, 2.0], [3.0]]), TypeError, "x is a RaggedTensor.*pad it"),
        (tf.data.Dataset.from_tensor_slices(NUMBERS).batch(2), TypeError, "holds batches. Pass one of them"),
        (iter([NUMBERS]), TypeError, "holds batches"),
        (None, TypeError, "x is None, not an array"),
        (lambda: 1, TypeError, "x is a function, not an array"),
        ([[1.0, 2.0, 3.0], [1.0]], ValueError, "rows have different lengths"),
        (NUMBERS.astype(complex), TypeError, "array of complex128, not of numbers"),
        (tf.constant([["a", "b", "c"]]), TypeError, "x is strings, not of numbers"),
        (np.array([["a", "b", "c"]], object), TypeError, "x is strings, not of numbers"),
        (np.array([[object()]]), TypeError, "array of object, not of numbers"),
    ],
)
def test_what_is_no_array_is_refused_with_a_sentence(x, error, message):
    with pytest.raises(error, match=message):
        gradient(dense(), x)


def test_a_sparse_tensor_is_refused_where_the_model_does_not_say_how_it_takes_one():
    model = OfTree()
    x = {"id": CATEGORY, "seen": {"position": NUMBERS, "shift": NUMBERS[:, :2]}}
    model(x)
    with pytest.raises(TypeError, match=r"SparseTensor.*to_dense"):
        gradient(model, x | {"seen": {"position": tf.sparse.from_dense(NUMBERS), "shift": NUMBERS[:, :2]}})


@pytest.mark.parametrize(
    "weights", [["a", "b", "c", "d"], tf.constant(["a"] * 4), tf.ragged.constant([[1.0], []]), object()]
)
def test_sample_weights_that_are_no_numbers_are_refused(weights):
    with pytest.raises(TypeError, match="sample_weight holds"):
        gradient(dense(), NUMBERS, sample_weight=weights)


def test_minus_one_is_the_last_unit():
    model = zoo.randomized(dense())
    for function in (gradient, per_sample_gradient, input_gradient):
        for _ in range(2):
            last = tf.nest.flatten(function(model, NUMBERS, output=-1))
            zoo.assert_close(last, tf.nest.flatten(function(model, NUMBERS, output=1)))
    compiled = tf.function(lambda x, k: gradient(model, x, output=k), autograph=False)
    zoo.assert_close(compiled(NUMBERS, tf.constant(-2)).values(), gradient(model, NUMBERS, output=0).values())
