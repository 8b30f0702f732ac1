"""Recurrences against the same steps written one after the other."""

import time

import numpy as np
import pytest
import tensorflow as tf
from helpers.slow import parameters

from rlgrad.gradients.through_time import scan

RNG = np.random.default_rng(0)
T, N = 5, 3
W, B = tf.constant(RNG.normal(size=(4, 4))), tf.constant(RNG.normal(size=4))
X, H = tf.constant(RNG.normal(size=(T, N, 4))), tf.constant(RNG.normal(size=(N, 4)))
RESET = tf.constant(RNG.integers(2, size=(T, N, 1)))


def step(theta, xs, state):
    (w, b, scale), (x, reset), (h,) = theta, xs, state
    h = tf.tanh(tf.where(reset > 0, tf.zeros_like(h), h) @ w + x + b * tf.cast(scale, b.dtype))
    return [tf.reduce_sum(h, axis=1), h * h], [h]


def looped(w, b, x, h):
    outputs, states = [], []
    for t in range(T):
        y, (h,) = step([w, b, 2], [x[t], RESET[t]], [h])
        outputs.append(y)
        states.append(h)
    return [tf.stack(y) for y in zip(*outputs, strict=True)] + [tf.stack(states)]


def scanned(w, b, x, h):
    outputs, states = scan(step, [w, b, tf.constant(2)], [x, RESET], [h])
    return outputs + states


@pytest.fixture(params=parameters(["eager", "graph", "xla"], quick=2))
def traced(request):
    options = {"graph": {}, "xla": {"jit_compile": True}}.get(request.param)
    return lambda f: f if options is None else tf.function(f, autograph=False, **options)


U = [tf.constant(RNG.normal(size=shape)) for shape in ((T, N), (T, N, 4), (T, N, 4))]
V = [tf.constant(RNG.normal(size=x.shape)) for x in (W, B, X, H)]


def pulled(function, arguments):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(arguments)
        results = function(*arguments)
    return tape.gradient(results, arguments, output_gradients=U)


def pushed(function, arguments):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(arguments)
        results = function(*arguments)
    zeros = [tf.zeros_like(u) for u in U]
    with tf.GradientTape() as outer:
        outer.watch(zeros)
        back = tape.gradient(results, arguments, output_gradients=zeros)
    return outer.gradient(back, zeros, output_gradients=V)


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_a_recurrence_and_its_derivatives_are_those_of_its_steps(traced):
    arguments = (W, B, X, H)
    assert_close(traced(scanned)(*arguments), looped(*arguments))
    assert_close(traced(lambda *a: pulled(scanned, a))(*arguments), pulled(looped, arguments))
    assert_close(traced(lambda *a: pushed(scanned, a))(*arguments), pushed(looped, arguments))


def test_a_second_derivative_is_not_silently_wrong(traced):
    def second(*arguments):
        with tf.GradientTape() as outer:
            outer.watch(arguments)
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                y = scanned(*arguments)[0]
            gradient = tape.gradient(y, arguments[0])
        return outer.gradient(gradient, arguments)

    for found in traced(second)(W, B, X, H):
        assert np.isnan(found).all()


def test_another_state_compiles_nothing_again():
    """Loops that TensorFlow differentiates twice ask XLA for constants that depend on the state."""
    traces = []

    @tf.function(jit_compile=True, autograph=False)
    def product(h):
        traces.append(None)
        return pushed(scanned, (W, B, X, h))

    def seconds(h):
        begun = time.perf_counter()
        product(h)
        return time.perf_counter() - begun

    first = seconds(H)
    assert min(seconds(H + i) for i in range(1, 4)) < first / 4  # compiling takes seconds, running milliseconds
    assert len(traces) == 1
