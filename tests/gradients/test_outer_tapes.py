"""A caller's tape around any function gives the derivative of its result, against tapes over batches of one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad.gradients import (
    activation_gradient,
    clipped_gradient,
    flatten,
    gauss_newton_vector_product,
    gradient,
    gram,
    hessian_vector_product,
    input_gradient,
    input_jacobian,
    input_jvp,
    jacobian,
    jacobian_gram,
    linearize,
    per_sample_gradient,
    per_sample_norm,
    value_and_gradient,
)

layers = keras.layers
N, K = 3, 3
C = np.array([0.5, -2.0, 1.0], np.float32)


class Parts:
    """The value, the gradient and the input's gradient of each unit of each sample, by plain tapes that are recorded too."""

    def __init__(self, model, x):
        self.model, self.x = model, x
        sources = [v.value for v in model.trainable_variables]
        y, g, by_input = [], [], []
        for n in range(N):
            with tf.GradientTape(persistent=True) as tape:
                row = x[n : n + 1]
                tape.watch(row)
                out = tf.reshape(model(row, training=False), [-1])
                units = [out[k] for k in range(K)]
            for unit in units:
                y.append(unit)
                parts = [tf.convert_to_tensor(part) for part in tape.gradient(unit, sources)]
                g.append(tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0))
                by_input.append(tape.gradient(unit, row)[0])
        self.y = tf.reshape(tf.stack(y), [N, K])
        self.J = tf.reshape(tf.stack(g), [N, K, -1])
        self.by_input = tf.reshape(tf.stack(by_input), [N, K, *x.shape[1:]])
        self.g = self.J[:, 1]

    def clipped(self, most):
        lengths = tf.norm(self.g, axis=1)
        return tf.reduce_sum(self.g * tf.minimum(1.0, most / lengths)[:, None], axis=0)


def flat(g, batch_axes=0):
    return flatten(g, batch_axes)


UNIT = {"output": 1}
# name: (rlgrad's function of (model, x), the same of `Parts`)
FUNCTIONS = {
    "gradient": (
        lambda m, x: flat(gradient(m, x, **UNIT, sample_weight=C)),
        lambda p: tf.linalg.matvec(p.g, C, transpose_a=True),
    ),
    "value": (lambda m, x: value_and_gradient(m, x, **UNIT)[0], lambda p: p.y[:, 1]),
    "per_sample_gradient": (lambda m, x: flat(per_sample_gradient(m, x, **UNIT), 1), lambda p: p.g),
    "per_sample_norm": (lambda m, x: per_sample_norm(m, x, **UNIT), lambda p: tf.norm(p.g, axis=1)),
    "gram": (lambda m, x: gram(m, x, **UNIT), lambda p: p.g @ tf.transpose(p.g)),
    "gram_in_chunks": (lambda m, x: gram(m, x, **UNIT, chunk_size=2), lambda p: p.g @ tf.transpose(p.g)),
    "jacobian": (lambda m, x: flat(jacobian(m, x), 2), lambda p: p.J),
    "jacobian_gram": (
        lambda m, x: jacobian_gram(m, x),
        lambda p: tf.reshape(p.J, [N * K, -1]) @ tf.transpose(tf.reshape(p.J, [N * K, -1])),
    ),
    "input_gradient": (lambda m, x: input_gradient(m, x, **UNIT), lambda p: p.by_input[:, 1]),
    "input_jacobian": (lambda m, x: input_jacobian(m, x), lambda p: p.by_input),
    "input_jvp": (
        lambda m, x: input_jvp(m, x, np.ones(x.shape, np.float32)),
        lambda p: tf.reduce_sum(p.by_input, axis=list(range(2, len(p.by_input.shape)))),
    ),
    "clipped_gradient": (lambda m, x: flat(clipped_gradient(m, x, **UNIT, max_norm=1.0)), lambda p: p.clipped(1.0)),
    "linearize_gradient": (
        lambda m, x: flat(linearize(m, x, **UNIT).gradient(C)),
        lambda p: tf.linalg.matvec(p.g, C, transpose_a=True),
    ),
    "linearize_norm": (lambda m, x: linearize(m, x, **UNIT).norm(), lambda p: tf.norm(p.g, axis=1)),
    "linearize_vjp": (
        lambda m, x: flat(linearize(m, x, **UNIT).vjp(C)),
        lambda p: tf.linalg.matvec(p.g, C, transpose_a=True),
    ),
    "function": (lambda m, x: flat(gradient(m, x, output=lambda y: y[:, 1])), lambda p: tf.reduce_sum(p.g, axis=0)),
}

IN_A_FUNCTION = (
    "value",
    "per_sample_norm",
    "jacobian_gram",
    "input_jvp",
    "clipped_gradient",
    "linearize_gradient",
)


def derivative(of, model, x):
    """A scalar that uses every number of a result, and its derivative with respect to the weights and the input."""
    sources = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        seen = tf.reduce_sum(tf.sin(of(x) + 0.1))
    return [seen, *map(tf.convert_to_tensor, tape.gradient(seen, [*sources, x], unconnected_gradients="zero"))]


def expected(model, x, of_parts):
    return derivative(lambda x: of_parts(Parts(model, x)), model, x)


def case(name):
    return zoo.make(name), tf.constant(zoo.inputs_for(name, N))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_called_eagerly_where_the_function_runs_a_compiled_program(name):
    model, x = case("functional")
    ours, of_parts = FUNCTIONS[name]
    ours(model, x)  # compiled before a tape was there
    zoo.assert_close(derivative(lambda x: ours(model, x), model, x), expected(model, x, of_parts), rtol=1e-3)


@pytest.mark.parametrize("jit", [False, True])
def test_in_the_callers_function(jit):
    model, x = case("sequential")
    some = [FUNCTIONS[name] for name in IN_A_FUNCTION]

    def every(x):
        return [derivative(lambda x, of=of: of(model, x), model, x) for of, _ in some]

    got = tf.function(every, jit_compile=jit, autograph=False)(x)
    for found, (_, of_parts) in zip(got, some, strict=True):
        zoo.assert_close(found, expected(model, x, of_parts), rtol=1e-3)


@pytest.mark.parametrize("name", ["convolution", "shared", "batch_norm"])
def test_of_other_layers(name):
    model, x = case(name)
    for function in ("gradient", "per_sample_norm"):
        ours, of_parts = FUNCTIONS[function]
        zoo.assert_close(derivative(lambda x, of=ours: of(model, x), model, x), expected(model, x, of_parts), rtol=1e-3)


def normalized(*between):
    return zoo.randomized(
        keras.Sequential(
            [
                keras.Input((4,), dtype="float64"),
                layers.Dense(6, "tanh", dtype="float64"),
                *between,
                layers.Dense(3, dtype="float64"),
            ]
        )
    )


@pytest.mark.parametrize(
    ("layer", "mode"),
    [(layers.LayerNormalization, "eager"), (layers.LayerNormalization, "graph"), (layers.GroupNormalization, "eager")],
)
def test_normalizations_whose_second_derivatives_tensorflow_has_wrong(layer, mode):
    options = {"groups": 2} if layer is layers.GroupNormalization else {}
    model, x = normalized(layer(**options, dtype="float64")), zoo.inputs_for("functional", N).astype(np.float64)
    kernel = model.layers[0].kernel
    asked = [
        lambda: per_sample_norm(model, x, output=1),
        lambda: flat(gradient(model, x, output=1)),
    ]

    def slopes():
        found = []
        for ask in asked:
            with tf.GradientTape() as tape:
                seen = tf.reduce_sum(tf.sin(ask()))
            found.append(tape.gradient(seen, kernel.value))
        return found

    got = (slopes if mode == "eager" else tf.function(slopes, autograph=False))()
    before, along = kernel.numpy(), np.random.default_rng(0).standard_normal(kernel.shape)
    ends = []
    for sign in (1, -1):
        kernel.assign(before + sign * 1e-5 * along)
        ends.append([float(tf.reduce_sum(tf.sin(ask()))) for ask in asked])
    kernel.assign(before)
    expected = (np.array(ends[0]) - ends[1]) / 2e-5
    np.testing.assert_allclose([np.sum(g * along) for g in got], expected, rtol=1e-6, atol=1e-8)


def test_activations_third_derivatives_and_directions():
    model, x = case("sequential")
    first, out = model.layers
    kernel = tf.constant(out.kernel.numpy())
    with tf.GradientTape() as tape:
        a, g = activation_gradient(model, x, at="first", output=lambda y: tf.reduce_sum(y**2, axis=1))
        seen = tf.reduce_sum(a * g)
    found = tape.gradient(seen, [first.kernel.value, out.kernel.value])
    with tf.GradientTape() as tape:
        a = tf.tanh(x @ first.kernel + first.bias)
        y = a @ out.kernel + out.bias
        seen = tf.reduce_sum(a * (2.0 * y @ tf.transpose(out.kernel)))
    zoo.assert_close(found, tape.gradient(seen, [first.kernel.value, out.kernel.value]))
    assert kernel.shape == (6, 3)

    v = {key: tf.ones_like(g) for key, g in gradient(model, x).items()}
    options = {"output": lambda y: tf.reduce_sum(y**3, axis=1)}

    def along(product):
        with tf.GradientTape() as tape:
            tape.watch(v)
            h = product(v)
            seen = tf.add_n([tf.reduce_sum(h[key] * v[key]) for key in v])
        return tape.gradient(seen, [v, first.kernel.value])

    h = hessian_vector_product(model, x, v, **options)
    of_v, third = along(lambda v: hessian_vector_product(model, x, v, **options))
    zoo.assert_close(of_v.values(), [2.0 * part for part in h.values()], rtol=1e-3)  # symmetric, and linear in v
    step = 1e-2
    ends = []
    lin = linearize(model, x, **options)
    for sign in (1, -1):
        moved = lin.at({first.kernel.path: first.kernel.numpy() + sign * step})
        h = moved.hessian_vector_product(v)
        ends.append(sum(float(tf.reduce_sum(part)) for part in h.values()))
    np.testing.assert_allclose(tf.reduce_sum(third), (ends[0] - ends[1]) / (2 * step), rtol=2e-2)
    _, moves = along(lambda v: gauss_newton_vector_product(model, x, v, loss=options["output"]))
    ends = []
    for sign in (1, -1):
        moved = lin.at({first.kernel.path: first.kernel.numpy() + sign * step})
        h = moved.gauss_newton_vector_product(v, loss=options["output"])
        ends.append(sum(float(tf.reduce_sum(part)) for part in h.values()))
    np.testing.assert_allclose(tf.reduce_sum(moves), (ends[0] - ends[1]) / (2 * step), rtol=2e-2)
