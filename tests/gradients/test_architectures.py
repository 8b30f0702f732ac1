"""Every per-sample function on every architecture, against one plain tape per sample, always with random weights.

`test_mutations.py` makes the usual mistakes on purpose, and says which entry of the matrix notices each of them.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import architectures, small_models
from helpers.slow import mostly_slow

from rlgrad.gradients import (
    LogProb,
    flatten,
    gradient,
    gram,
    jacobian,
    linearize,
    per_sample_gradient,
    per_sample_norm,
    plan,
)

ACTIONS = np.array([2, 0, 1, 1])
WEIGHTS = np.array([0.7, -1.3, 0.4, 2.1])
DIRECTION = np.random.default_rng(3)


def everything(model, x, actions, weights, tangent, quantities):
    """The quantities that are asked for, from one traced function."""
    output = LogProb(actions)
    lin = linearize(model, x, output=output)
    options = {"output": output, "sample_weight": weights}
    how = {
        "per_sample": lambda: list(per_sample_gradient(model, x, **options).values()),
        "norm": lambda: per_sample_norm(model, x, **options),
        "gram": lambda: gram(model, x, **options),
        "gradient": lambda: list(gradient(model, x, **options).values()),
        "vjp": lambda: list(lin.vjp(weights).values()),
        "jvp": lambda: lin.jvp(tangent),
        "squares": lambda: list(lin.sum_of_squares(weights).values()),
    }
    return {quantity: how[quantity]() for quantity in quantities}


QUANTITIES = ("per_sample", "norm", "gram", "gradient", "vjp", "jvp", "squares")


def expected_of(rows, tangent):
    matrix = np.concatenate([g.reshape(4, -1) for g in rows], axis=1)
    return {
        "per_sample": rows,
        "norm": np.linalg.norm(matrix, axis=1),
        "gram": matrix @ matrix.T,
        "gradient": [g.sum(axis=0) for g in rows],
        "vjp": [g.sum(axis=0) for g in rows],
        "jvp": sum(g.reshape(4, -1) @ v.ravel() for g, v in zip(rows, tangent, strict=True)) / WEIGHTS,
        "squares": [np.tensordot(1 / WEIGHTS, g**2, 1) for g in rows],
    }


def check(name, dtype, jit, quantities=QUANTITIES):
    model, x = architectures.make(name, dtype), architectures.inputs_for(name, dtype=dtype)
    needs_xla = dtype == "float64" and name in architectures.XLA_IN_FLOAT64
    rows = architectures.jacobian_by_loop(model, x, ACTIONS, WEIGHTS, jit=needs_xla)
    scale = 1.0 / max(float(np.abs(g).max()) for g in rows)  # so that ‖g‖∞ = 1 over the model
    rows = [scale * g for g in rows]
    tangent = [DIRECTION.standard_normal(v.shape).astype(dtype) for v in model.trainable_variables]
    expected = expected_of(rows, tangent)
    expected["jvp"], expected["squares"] = expected["jvp"] / scale, [g / scale**2 for g in expected["squares"]]

    def traced(x, actions, weights, tangent):
        keys = list(gradient(model, x, output=LogProb(actions)))
        return everything(model, x, actions, weights, dict(zip(keys, tangent, strict=True)), quantities)

    got = tf.function(traced, autograph=False, jit_compile=jit or needs_xla)(
        tf.nest.map_structure(tf.constant, x),
        tf.constant(ACTIONS),
        tf.constant(scale * WEIGHTS, dtype),
        [tf.constant(v) for v in tangent],
    )
    if "squares" in got:
        got["squares"] = [g / scale for g in got["squares"]]
    # Keras keeps LoRA's factors in float32, and what is made of all variables is no more precise than they are.
    exact = all(v.dtype == "float64" for v in model.trainable_variables)
    for quantity in quantities:
        value = expected[quantity]
        mine = got[quantity] if isinstance(value, list) else [got[quantity]]
        value = value if isinstance(value, list) else [value]
        for g, e in zip(mine, value, strict=True):
            assert g.shape == e.shape
            largest = max(float(np.abs(e).max()), 0.1)
            least = 1e-10 if exact else 1e-5
            # Of a square the relative error is twice that of its root; the loop's own rounding is in here too.
            least *= 2 if quantity in ("squares", "gram") else 1
            assert np.abs(np.asarray(g) - e).max() <= least * largest, (name, quantity)


QUICK = [
    "dense_3d", "conv2d_same_stride_even", "embedding_tied", "layer_norm_two_axes", "group_norm", "batch_norm_first",
    "shared_three_times",
]  # fmt: skip


@pytest.mark.parametrize("name", architectures.entries(QUICK))
def test_all_quantities_agree_with_one_sample_at_a_time_in_float64(name):
    check(name, "float64", jit=False)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", architectures.entries(["free_variables"]))
def test_all_quantities_agree_under_xla(name, dtype):
    check(name, dtype, jit=True)


@pytest.mark.parametrize("name", architectures.entries(["dense_3d", "conv2d_groups_stride"]))
def test_eager_calls_agree_with_one_sample_at_a_time_in_float32(name):
    model, x = architectures.make(name), architectures.inputs_for(name)
    rows = architectures.jacobian_by_loop(model, x, ACTIONS, WEIGHTS)
    largest = max(float(np.abs(g).max()) for g in rows)
    each = per_sample_gradient(model, x, output=LogProb(ACTIONS), sample_weight=WEIGHTS)
    assert list(each) == list(gradient(model, x, output=LogProb(ACTIONS)))
    for g, e in zip(each.values(), rows, strict=True):
        assert np.abs(np.asarray(g) - e).max() <= 1e-5 * max(float(np.abs(e).max()), 0.1 * largest)
    matrix = np.concatenate([g.reshape(4, -1) for g in rows], axis=1)
    norms = per_sample_norm(model, x, output=LogProb(ACTIONS), sample_weight=WEIGHTS)
    expected = np.linalg.norm(matrix, axis=1)
    np.testing.assert_allclose(norms, expected, atol=1e-5 * expected.max())
    kernel = gram(model, x, output=LogProb(ACTIONS), sample_weight=WEIGHTS)
    np.testing.assert_allclose(kernel, matrix @ matrix.T, atol=1e-5 * np.abs(matrix @ matrix.T).max())


@pytest.mark.parametrize(("dtype", "jit"), [("float32", False), ("float64", True)])
@pytest.mark.parametrize("name", architectures.entries([]))
def test_jacobians_agree_with_one_sample_at_a_time(name, dtype, jit):
    check_jacobian(name, dtype, jit)


@mostly_slow("name", ["conv2d_groups_stride", "embedding_tied", "layer_norm_two_axes"])
def test_jacobians_agree_with_one_sample_at_a_time_in_float64(name):
    check_jacobian(name, "float64", jit=False)


def check_jacobian(name, dtype, jit):
    """∇ log π(a) = Σ_k (1[k = a] − p_k) ∇y_k: the units' gradients, each with a weight of its own, add up to the loop's."""
    model, x = architectures.make(name, dtype), architectures.inputs_for(name, dtype=dtype)
    needs_xla = dtype == "float64" and name in architectures.XLA_IN_FLOAT64
    rows = architectures.jacobian_by_loop(model, x, ACTIONS, WEIGHTS, jit=needs_xla)
    scale = 1.0 / max(float(np.abs(g).max()) for g in rows)
    traced = tf.function(
        lambda x, c: list(jacobian(model, x, sample_weight=c).values()), autograph=False, jit_compile=jit or needs_xla
    )
    got = traced(tf.nest.map_structure(tf.constant, x), tf.constant(scale * WEIGHTS, dtype))
    outputs = tf.function(lambda x: model(x, training=False), autograph=False, jit_compile=jit or needs_xla)
    toward = np.eye(3)[ACTIONS] - np.asarray(tf.nn.softmax(outputs(tf.nest.map_structure(tf.constant, x))))
    for g, e in zip(got, rows, strict=True):
        assert g.shape == (4, 3, *e.shape[1:])
        tolerance = 1e-10 if g.dtype == dtype == "float64" else 1e-5
        largest = max(float(np.abs(scale * e).max()), float(np.abs(g).max()), 0.1)
        mine = np.einsum("nk...,nk->n...", np.asarray(g), toward)
        assert np.abs(mine - scale * e).max() <= tolerance * largest, name


@pytest.mark.parametrize("name", architectures.entries([*(set(architectures.FEW) - set(QUICK)), "dense_3d"]))
def test_what_has_a_closed_form_takes_it_and_nothing_else_does(name):
    model, x = architectures.make(name), architectures.inputs_for(name, rows=2)
    found = plan(model, x, output=1)
    others = {row.layer for row in found.rows if row.route != "closed form"}
    assert others == architectures.FALLBACKS.get(name, set()), str(found)
    assert [row.layer for row in found.rows if row.layer in others and not row.reason] == []


def test_mixed_precision_accumulates_in_float32():
    x = np.random.default_rng(1).standard_normal((4, 6, 6, 2)).astype(np.float32)
    keras.config.set_dtype_policy("float32")
    make = lambda: small_models.stack((6, 6, 2), keras.layers.Conv2D(4, 3, activation="tanh"), keras.layers.Dense(4))
    full = make()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = make()
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(full.get_weights())
    mine = per_sample_gradient(half, x, output=LogProb(ACTIONS))
    assert {path: g.dtype for path, g in mine.items() if g.dtype != tf.float32} == {}
    expected = flatten(per_sample_gradient(full, x, output=LogProb(ACTIONS)), batch_axes=1)
    np.testing.assert_allclose(flatten(mine, batch_axes=1), expected, atol=2e-2 * np.abs(expected).max())
    assert per_sample_norm(half, x, output=LogProb(ACTIONS)).dtype == tf.float32
