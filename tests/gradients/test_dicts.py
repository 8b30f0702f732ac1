"""Dicts of gradients as vectors and by layer."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

from rlgrad.gradients import by_layer, dot, flatten, gradient, norm, per_sample_gradient, unflatten


def keys(*paths):
    return {name: list(inner) for name, inner in by_layer(dict.fromkeys(paths, 0)).items()}


def test_what_all_layers_begin_with_is_left_out_of_their_names():
    assert keys("m/first/kernel", "m/first/bias", "m/out/kernel") == {"first": ["kernel", "bias"], "out": ["kernel"]}
    assert keys("first/kernel", "out/kernel") == {"first": ["kernel"], "out": ["kernel"]}
    assert keys("inner/d/kernel", "out/kernel") == {"inner/d": ["kernel"], "out": ["kernel"]}
    assert keys("inner/d/kernel", "inner/e/kernel") == {"d": ["kernel"], "e": ["kernel"]}


def test_a_single_layer_keeps_its_name():
    assert keys("m/first/kernel", "m/first/bias") == {"first": ["kernel", "bias"]}
    assert keys("first/kernel") == {"first": ["kernel"]}


def test_a_models_own_weight_stays_beside_its_layers():
    assert keys("p/log_std", "p/body/d/kernel") == {"p": ["log_std"], "p/body/d": ["kernel"]}
    assert keys("log_std", "d/kernel") == {"": ["log_std"], "d": ["kernel"]}


def test_two_layers_of_one_path_are_told_apart():
    assert keys("d/kernel", "d/bias", "d/kernel#2", "d/bias#2") == {"d": ["kernel", "bias"], "d#2": ["kernel", "bias"]}


def test_variables_of_equal_paths_get_numbers_and_their_own_gradients():
    towers = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")], name="tower") for _ in range(2)]

    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = towers
            self.built = True

        def call(self, x):
            return self.a(x) + 3.0 * self.b(x)

    x = zoo.inputs_for("sequential")
    got = gradient(Twins(), x)
    assert list(got) == ["tower/d/kernel", "tower/d/bias", "tower/d/kernel#2", "tower/d/bias#2"]
    np.testing.assert_allclose(got["tower/d/kernel#2"], 3.0 * np.asarray(got["tower/d/kernel"]), rtol=1e-5)
    assert list(by_layer(got)) == ["d", "d#2"]
    assert list(gradient(Twins(), x, weights="tower/d/bias#2")) == ["tower/d/bias#2"]


def test_flatten_follows_the_dicts_order_not_the_alphabet():
    g = {"z": np.array([[1.0, 2.0], [3.0, 4.0]]), "a": np.array([5.0])}
    np.testing.assert_array_equal(flatten(g), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(flatten({"a": g["a"], "z": g["z"]}), [5, 1, 2, 3, 4])


def test_flatten_keeps_leading_axes_when_told():
    g = {"k": np.arange(12.0).reshape(2, 2, 3), "b": np.array([[20.0], [21.0]])}
    np.testing.assert_array_equal(flatten(g, batch_axes=1), [[0, 1, 2, 3, 4, 5, 20], [6, 7, 8, 9, 10, 11, 21]])
    empty = flatten({"k": np.zeros((0, 2, 3)), "b": np.zeros((0, 1))}, batch_axes=1)
    assert empty.shape == (0, 7)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=4), st.integers(0, 2))
def test_unflatten_undoes_flatten_for_any_shapes(shapes, batch_axes):
    generator, leading = np.random.default_rng(0), [2, 3][:batch_axes]
    g = {str(i): generator.standard_normal([*leading, *shape]) for i, shape in enumerate(reversed(shapes))}
    like = {key: np.zeros(value.shape[batch_axes:]) for key, value in g.items()}
    back = unflatten(flatten(g, batch_axes), like)
    assert list(back) == list(g)
    for key, value in g.items():
        np.testing.assert_array_equal(back[key], value)


def test_dot_and_norm_are_those_of_the_flat_vectors():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    g, h = gradient(model, x, output=0), gradient(model, x, output=1)
    flat = np.asarray(flatten(g))
    np.testing.assert_allclose(dot(g, dict(reversed(h.items()))), flat @ np.asarray(flatten(h)), rtol=1e-5)
    for order in (1, 2, math.inf):
        np.testing.assert_allclose(norm(g, order), np.linalg.norm(flat, order), rtol=1e-5)
    assert norm(g) == norm(g, 2)


def test_all_of_it_works_in_compiled_functions():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")

    def run(x):
        each = flatten(per_sample_gradient(model, x, output=0), batch_axes=1)
        whole = gradient(model, x, output=0)
        return (
            tf.reduce_sum(each, axis=0) - flatten(whole),
            flatten(unflatten(flatten(whole), whole)),
            dot(whole, whole),
        )

    difference, flat, square = tf.function(run, jit_compile=True, autograph=False)(x)
    np.testing.assert_allclose(difference, 0.0, atol=1e-5)
    np.testing.assert_allclose(square, np.sum(np.square(flat)), rtol=1e-5)


def test_dicts_that_do_not_fit_are_refused():
    g = {"a": np.zeros((2, 3))}
    with pytest.raises(ValueError, match="empty"):
        flatten({})
    with pytest.raises(ValueError, match="no 3 leading axes"):
        flatten(g, batch_axes=3)
    with pytest.raises(ValueError, match="leading axes of 'b'"):
        flatten({**g, "b": np.zeros((3, 1))}, batch_axes=1)
    with pytest.raises(ValueError, match="must have 6 numbers"):
        unflatten(np.zeros(5), g)
    with pytest.raises(ValueError, match="different keys"):
        dot(g, {"b": np.zeros((2, 3))})
    with pytest.raises(ValueError, match="in the other"):
        dot(g, {"a": np.zeros((3, 2))})
    with pytest.raises(ValueError, match=r"1, 2 or math\.inf"):
        norm(g, 3)
