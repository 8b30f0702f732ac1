"""The Jacobian of all units with respect to the input, and its products, against a tape for each sample and unit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import small_models, zoo

from rlgrad.gradients import DisconnectedGradientError, input_gradient, input_jacobian, input_jvp
from rlgrad.gradients.programs.program import programs_of

layers = keras.layers
ROWS = 2
C = np.array([0.5, -2.0])


def attention():
    return zoo.randomized(small_models.transformer())


MODELS = {name: lambda name=name: (zoo.make(name), zoo.inputs_for(name, ROWS)) for name in zoo.ONE_OUTPUT} | {
    "attention": lambda: (attention(), zoo.normal(np.random.default_rng(0), ROWS, 4, 6)),
    "siamese": lambda: (
        zoo.randomized(small_models.siamese()),
        [zoo.normal(np.random.default_rng(k), ROWS, 4) for k in range(2)],
    ),
}


def by_tape(model, x, f=lambda y: y):
    """For each leaf of x the list of (N, *units, *shape): ∂f of one sample by that sample's input."""
    rows = []
    for n in range(ROWS):
        row = tf.nest.map_structure(tf.constant, zoo.row(x, n))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(row)
            y = f(model(row, training=False))[0]
            units = tf.unstack(tf.reshape(y, [-1]))
        by_unit = [[g[0] for g in tf.nest.flatten(tape.gradient(unit, row))] for unit in units]
        rows.append([np.reshape(np.stack(p), (*y.shape, *p[0].shape)) for p in zip(*by_unit, strict=True)])
    return [np.stack(parts) for parts in zip(*rows, strict=True)]


def along(jacobian, v):
    """Σ over the axes of the input."""
    total = 0
    for j, part in zip(jacobian, tf.nest.flatten(v), strict=True):
        flat = np.reshape(j, (ROWS, -1, part[0].size))
        total = total + np.einsum("nkd,nd->nk", flat, part.reshape(ROWS, -1))
    return total


@pytest.mark.parametrize(
    "name", ["functional", "two_inputs", "siamese", "convolution", "batch_norm", "recurrent", "subclassed", "attention"]
)
def test_of_each_sample_and_unit_it_is_the_tapes(name):
    model, x = MODELS[name]()
    expected = by_tape(model, x)
    got = input_jacobian(model, x, sample_weight=C)
    tf.nest.assert_same_structure(got, x)
    weighted = [C.reshape(-1, *[1] * (e.ndim - 1)) * e for e in expected]
    zoo.assert_close(tf.nest.flatten(got), weighted)
    v = tf.nest.map_structure(lambda leaf: zoo.normal(np.random.default_rng(7), *leaf.shape), x)
    moved = input_jvp(model, x, v, sample_weight=C)
    assert moved.shape == (ROWS, 3)
    zoo.assert_close([moved], [along(weighted, v)])


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_more_units_than_a_program_should_have_backward_passes(mode):
    model = zoo.randomized(keras.Sequential([keras.Input((3, 2)), layers.Flatten(), layers.Dense(70, "tanh")]))
    x, v = zoo.inputs_for("recurrent", ROWS), zoo.normal(np.random.default_rng(1), ROWS, 3, 2)
    expected = by_tape(model, x)

    def ask(x, v):
        return input_jacobian(model, x, sample_weight=C), input_jvp(model, x, v, sample_weight=C)

    run = ask if mode == "eager" else tf.function(ask, jit_compile=mode == "xla", autograph=False)
    jacobian, moved = run(x, v)
    weighted = C[:, None, None, None] * expected[0]
    zoo.assert_close([jacobian, moved], [weighted, along([weighted], v)])


def test_units_with_several_axes_keep_them_and_functions_may_have_units():
    model = zoo.randomized(keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 3, activation="tanh")]))
    x = zoo.normal(np.random.default_rng(0), ROWS, 4, 4, 1)
    zoo.assert_close([input_jacobian(model, x)], by_tape(model, x))
    v = zoo.normal(np.random.default_rng(1), ROWS, 4, 4, 1)
    assert input_jvp(model, x, v).shape == (ROWS, 2, 2, 2)

    def products(y):
        return tf.stack([y[:, 0] * y[:, 1], y[:, 2] ** 2], axis=1)

    model, x = MODELS["functional"]()
    (expected,) = by_tape(model, x, products)
    zoo.assert_close([input_jacobian(model, x, output=products)], [expected])
    v = zoo.inputs_for("functional", ROWS, seed=3)
    zoo.assert_close([input_jvp(model, x, v, output=products)], [along([expected], v)])
    zoo.assert_close([input_jacobian(model, x, output=1)], [input_gradient(model, x, output=1)])
    assert input_jvp(model, x, v, output=1).shape == (ROWS,)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["eager", "function", "graph"])
def test_where_tensorflow_cannot_differentiate_the_gradient_the_direction_goes_through_the_units(interpolation, mode):
    model = zoo.randomized(
        keras.Sequential(
            [
                keras.Input((2, 3, 1)),
                layers.Conv2D(2, 2, padding="same", activation="tanh"),
                layers.UpSampling2D(2, interpolation=interpolation),
                layers.Flatten(),
                layers.Dense(3, "tanh"),
            ]
        )
    )
    x, v = (zoo.normal(np.random.default_rng(k), ROWS, 2, 3, 1) for k in range(2))
    output = (lambda y: y) if mode == "function" else None

    def ask(x, v):
        return input_jvp(model, x, v, output=output, sample_weight=C)

    got = (tf.function(ask, autograph=False) if mode == "graph" else ask)(x, v)
    zoo.assert_close([got], [C[:, None] * along(by_tape(model, x), v)])


@pytest.mark.parametrize("jit", [False, True])
def test_one_tensor_given_as_two_inputs_is_two_inputs(jit):
    model, (x, _) = MODELS["siamese"]()
    x = tf.constant(x)
    expected = by_tape(model, [x.numpy(), x.numpy() + 0.0])
    run = tf.function(
        lambda x: (*input_jacobian(model, [x, x]), *input_gradient(model, [x, x])), jit_compile=jit, autograph=False
    )
    zoo.assert_close(run(x), [*expected, *(e.sum(axis=1) for e in expected)])
    zoo.assert_close(input_gradient(model, [x, x], output=lambda y: y[:, 0]), [e[:, 0] for e in expected])


def test_no_rows_and_any_number_of_rows_from_one_program():
    model, x = MODELS["functional"]()
    x = zoo.inputs_for("functional")
    for rows in (4, 2, 0):
        assert input_jacobian(model, x[:rows]).shape == (rows, 3, 4)
        assert input_jvp(model, x[:rows], x[:rows]).shape == (rows, 3)
    assert len(programs_of(model)) == 2


def test_refusals_say_what_was_expected():
    model, x = zoo.make("functional"), zoo.inputs_for("functional")
    with pytest.raises(TypeError, match="not made of floating-point numbers"):
        input_jacobian(zoo.make("embedding"), zoo.inputs_for("embedding"))
    with pytest.raises(TypeError, match="not made of floating-point numbers"):
        input_jvp(zoo.make("embedding"), zoo.inputs_for("embedding"), zoo.inputs_for("embedding"))
    with pytest.raises(MemoryError, match="Jacobian of 4 samples by their inputs would take"):
        input_jacobian(model, x, memory_limit=191)
    with pytest.raises(ValueError, match=r"one number per sample, shape \(N,\), got \(4, 3\)"):
        input_jacobian(model, x, sample_weight=np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"tangent= has the shapes of x: \(4, 4\) for x; got \(3, 4\)"):
        input_jvp(model, x, x[:3])
    with pytest.raises(ValueError, match=r"tangent= has the shapes of x: \(4, 4\) for x; got \(4, 5\)"):
        input_jvp(model, x, np.ones((4, 5)))
    model, x = MODELS["two_inputs"]()
    with pytest.raises(ValueError, match="tangent is a dict with exactly the keys 'a', 'b'; got ndarray"):
        input_jvp(model, x, x["a"])
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    unused = keras.Model({"a": a, "b": b}, layers.Dense(3)(a))
    for ask in (input_jacobian, lambda m, x: input_jvp(m, x, x)):
        with pytest.raises(DisconnectedGradientError, match=r"does not depend on input x\['b'\]"):
            ask(unused, {"a": np.ones((2, 2)), "b": np.ones((2, 2))})


def mixed_inputs():
    """A model of numbers, of more numbers and of ids, with an input of each."""
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    ids = keras.Input((2,), dtype="int32", name="ids")
    merged = layers.Concatenate()([a, b, layers.Flatten()(layers.Embedding(5, 2)(ids))])
    model = zoo.randomized(keras.Model({"a": a, "b": b, "ids": ids}, layers.Dense(3, "tanh")(merged)))
    rng = np.random.default_rng(0)
    x = {"a": zoo.normal(rng, ROWS, 2), "b": zoo.normal(rng, ROWS, 3), "ids": np.array([[0, 4], [2, 2]])}
    return model, x


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_chosen_inputs_come_back_as_they_were_chosen_and_the_others_do_not_move(mode):
    model, x = mixed_inputs()
    both = input_jacobian(model, x, inputs=["a", "b"])
    assert list(both) == ["a", "b"]
    v = {"a": zoo.normal(np.random.default_rng(1), ROWS, 2), "b": zoo.normal(np.random.default_rng(2), ROWS, 3)}

    def ask(x, v):
        return (
            input_jacobian(model, x, inputs="b", sample_weight=C),
            input_jvp(model, x, v, inputs=["a", "b"]),
            input_jvp(model, x, v["a"], inputs="a", sample_weight=C),
        )

    of_b, moved, moved_by_a = (tf.function(ask, autograph=False) if mode == "graph" else ask)(x, v)
    with tf.GradientTape() as tape:
        a, b = tf.constant(x["a"]), tf.constant(x["b"])
        tape.watch(a)
        y = model({"a": a, "b": b, "ids": tf.constant(x["ids"])}, training=False)
    zoo.assert_close([both["a"]], [tape.batch_jacobian(y, a)])
    zoo.assert_close([of_b], [C[:, None, None] * both["b"].numpy()])
    zoo.assert_close([moved], [along([both["a"].numpy(), both["b"].numpy()], list(v.values()))])
    zoo.assert_close([moved_by_a], [C[:, None] * along([both["a"].numpy()], v["a"])])
    with pytest.raises(TypeError, match=r"inputs=\['a', 'b'\]"):
        input_jacobian(model, x)
    with pytest.raises(ValueError, match="tangent is a dict with exactly the keys 'a', 'b'; got the keys"):
        input_jvp(model, x, {"a": v["a"]}, inputs=["a", "b"])


def test_a_chosen_inputs_jacobian_of_a_repeated_call_is_that_of_the_input_it_chooses():
    model, x = mixed_inputs()
    for _ in range(3):
        for name in "ab":
            assert input_jacobian(model, x, inputs=name).shape == (ROWS, 3, x[name].shape[1])


def test_functions_with_targets_have_units_of_their_own():
    model, x = MODELS["functional"]()
    target = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], np.float32)
    jacobian = input_jacobian(model, x, output=lambda y, t: y * t, target=target)
    zoo.assert_close([jacobian], [target[:, :, None] * input_jacobian(model, x).numpy()])
    v = zoo.inputs_for("functional", ROWS, seed=3)
    zoo.assert_close([input_jvp(model, x, v, output=lambda y, t: y * t, target=target)], [along([jacobian.numpy()], v)])


def test_several_rows_for_each_sample_are_refused():
    class TwoRows(keras.Model):
        def call(self, x):
            return tf.reshape(x, [-1, 2]) ** 2

    model, x = TwoRows(), np.ones((3, 4), "float32")
    model(x)
    for output in (None, lambda y: y):
        with pytest.raises(ValueError, match="does not return one row for each row of its input"):
            input_jacobian(model, x, output=output)


def test_small_weights_and_directions_keep_their_digits_in_half_precision():
    _, x = MODELS["functional"]()
    half = keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh", dtype="mixed_float16")])
    full = keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh")])
    half.set_weights(zoo.randomized(full).get_weights())
    c, v = np.array([1e-7, 1.0]), np.array([[1.0], [1e-7]], "float32") * zoo.inputs_for("functional", ROWS, seed=3)
    for got, expected in (
        (input_jacobian(half, x, sample_weight=c), input_jacobian(full, x, sample_weight=c)),
        (input_jvp(half, x, v, sample_weight=c), input_jvp(full, x, v, sample_weight=c)),
    ):
        for row, right in zip(got.numpy(), expected.numpy(), strict=True):
            np.testing.assert_allclose(row, right, rtol=0.02, atol=0.02 * abs(right).max())
