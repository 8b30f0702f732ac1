"""Models that run at one batch size, return several rows a sample, or that TensorFlow differentiates eagerly only."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad import gradients
from rlgrad.gradients import gradient, jacobian, per_sample_gradient

layers, ops = keras.layers, keras.ops
RNG = np.random.default_rng(0)
WEIGHTS = np.array([0.5, -1.0, 2.0], np.float32)


class Fixed(layers.Layer):
    """Reshapes a batch of three, and of no other size."""

    def call(self, x):
        return ops.reshape(x, (3, -1))


class Merged(layers.Layer):
    """Makes four rows of each sample."""

    def call(self, x):
        return ops.reshape(x, (-1, 3))

    def compute_output_shape(self, shape):
        return (None, 3)


def rows_by_tape(model, x, units):
    """The gradient of each unit of each row of the output, for each variable (rows, units, *shape)."""
    sources = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        y = model(x, training=False)
        values = [[y[n, k] for k in range(units)] for n in range(y.shape[0])]
    found = [[tape.gradient(value, sources) for value in row] for row in values]
    return [np.array([[g[i] for g in row] for row in found]) for i in range(len(sources))]


def test_a_model_of_one_batch_size_is_differentiated_in_its_batch():
    inputs = [keras.Input(batch_shape=(3, 2, 2)), Fixed()]
    model = zoo.randomized(keras.Sequential([*inputs, layers.Dense(5, "tanh"), layers.Dense(2)]))
    x = RNG.standard_normal((3, 2, 2)).astype(np.float32)
    by_unit = rows_by_tape(model, x, 2)
    expected = [g.sum(axis=1) for g in by_unit]
    flat = np.concatenate([g.reshape(3, -1) for g in expected], axis=1)
    for _ in range(2):
        zoo.assert_close(per_sample_gradient(model, x).values(), expected)
        zoo.assert_close(jacobian(model, x).values(), by_unit)
        np.testing.assert_allclose(gradients.per_sample_norm(model, x), np.linalg.norm(flat, axis=1), rtol=1e-4)
    weighted = [g * WEIGHTS.reshape(3, *[1] * (g.ndim - 1)) for g in expected]
    zoo.assert_close(per_sample_gradient(model, x, sample_weight=WEIGHTS).values(), weighted)
    zoo.assert_close(
        jacobian(model, x, output=lambda y: y, sample_weight=WEIGHTS).values(),
        [g * WEIGHTS.reshape(3, *[1] * (g.ndim - 1)) for g in by_unit],
    )
    np.testing.assert_allclose(gradients.gram(model, x), flat @ flat.T, rtol=1e-4, atol=1e-5)
    zoo.assert_close(gradients.linearize(model, x).per_sample().values(), expected)
    zoo.assert_close(
        tf.function(lambda x: per_sample_gradient(model, x), autograph=False)(tf.constant(x)).values(), expected
    )
    assert {row.route for row in gradients.plan(model, x).rows} == {"whole batch"}


def of_three_rows():
    """A model that runs on batches of three rows, and two of them."""
    inputs = [keras.Input(batch_shape=(3, 2, 2)), Fixed()]
    model = zoo.randomized(keras.Sequential([*inputs, layers.Dense(5, "tanh"), layers.Dense(2)]))
    return model, *RNG.standard_normal((2, 3, 2, 2)).astype(np.float32)


def test_a_model_of_one_batch_size_has_a_gram_matrix_of_two_batches():
    model, x, y = of_three_rows()
    units = [np.concatenate([g.reshape(6, -1) for g in rows_by_tape(model, batch, 2)], axis=1) for batch in (x, y)]
    rows = [each.reshape(3, 2, -1).sum(axis=1) for each in units]
    for _ in range(2):
        np.testing.assert_allclose(gradients.gram(model, x, y), rows[0] @ rows[1].T, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradients.jacobian_gram(model, x, y), units[0] @ units[1].T, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradients.gram(model, x, y, chunk_size=3), rows[0] @ rows[1].T, rtol=1e-4, atol=1e-5)
    traced = tf.function(lambda x, y: gradients.gram(model, x, y), autograph=False)
    np.testing.assert_allclose(traced(tf.constant(x), tf.constant(y)), rows[0] @ rows[1].T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "function", ["per_sample_gradient", "clipped_gradient", "gram", "gram of two", "jacobian_gram"]
)
def test_a_model_of_one_batch_size_is_not_taken_in_chunks(function):
    model, x, y = of_three_rows()
    call = getattr(gradients, function.split()[0])
    more = {"clipped_gradient": {"max_norm": 1.0}, "gram of two": {"y": y}}.get(function, {})
    before = call(model, x, **more)
    with pytest.raises(ValueError, match=r"whole batch of 3 rows, but not on \d, .* Leave chunk_size= out"):
        call(model, x, chunk_size=2, **more)
    for one, other in zip(tf.nest.flatten(before), tf.nest.flatten(call(model, x, chunk_size=3, **more)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_function_that_needs_the_whole_batch_is_still_refused():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    with pytest.raises(ValueError, match="passed as target="):
        per_sample_gradient(model, x, output=lambda y: y[:, 0] * np.ones(4, np.float32), method="vmap")


def test_several_rows_a_sample_are_summed_for_each_sample_and_are_an_axis_of_the_jacobian():
    body = [keras.Input((4, 3)), layers.Dense(3, "tanh"), Merged(), layers.Dense(5, "tanh"), layers.Dense(2)]
    model = zoo.randomized(keras.Sequential(body))
    x = RNG.standard_normal((3, 4, 3)).astype(np.float32)
    by_row = rows_by_tape(model, x, 2)
    by_sample = [g.reshape(3, 4, *g.shape[1:]) for g in by_row]
    for _ in range(2):
        zoo.assert_close(jacobian(model, x).values(), by_sample)
        zoo.assert_close(per_sample_gradient(model, x).values(), [g.sum(axis=(1, 2)) for g in by_sample])
    zoo.assert_close(jacobian(model, x, output=lambda y: y).values(), by_sample)
    units = np.concatenate([g.reshape(3 * 4 * 2, -1) for g in by_sample], axis=1)
    np.testing.assert_allclose(gradients.jacobian_gram(model, x), units @ units.T, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(gradients.jacobian_gram(model, x, x[:2]), units @ units[:16].T, rtol=1e-3, atol=1e-5)
    zoo.assert_close(gradient(model, x).values(), [g.sum(axis=(0, 1)) for g in by_row])


@pytest.fixture(scope="module")
def restored(tmp_path_factory):
    """A SavedModel with a recurrent layer, and the Keras model that it is of."""
    path = str(tmp_path_factory.mktemp("saved") / "model")
    model = zoo.randomized(keras.Sequential([keras.Input((5, 4)), layers.LSTM(3), layers.Dense(2, "tanh")]))
    model.export(path, verbose=False)
    served = layers.TFSMLayer(path, call_endpoint="serve")
    return model, keras.Sequential([keras.Input((5, 4)), served])


def test_a_saved_recurrent_layer_is_differentiated_although_no_graph_can(restored):
    original, model = restored
    x = RNG.standard_normal((3, 5, 4)).astype(np.float32)
    by_unit = rows_by_tape(original, x, 2)
    expected = [g.sum(axis=1) for g in by_unit]
    for _ in range(2):
        zoo.assert_close(per_sample_gradient(model, x).values(), expected)
        zoo.assert_close(
            gradient(model, x, sample_weight=WEIGHTS).values(), [np.tensordot(WEIGHTS, g, 1) for g in expected]
        )
    zoo.assert_close(jacobian(model, x).values(), by_unit)
    of_first = per_sample_gradient(model, x, output=lambda y, t: y[:, 0] * t, target=WEIGHTS)
    zoo.assert_close(of_first.values(), [g[:, 0] * WEIGHTS.reshape(3, *[1] * (g.ndim - 2)) for g in by_unit])
    flat = np.concatenate([g.reshape(3, -1) for g in expected], axis=1)
    np.testing.assert_allclose(gradients.gram(model, x), flat @ flat.T, rtol=1e-4, atol=1e-6)
    units = np.concatenate([g.reshape(6, -1) for g in by_unit], axis=1)
    np.testing.assert_allclose(gradients.jacobian_gram(model, x), units @ units.T, rtol=1e-4, atol=1e-6)
    clipped = gradients.clipped_gradient(model, x, max_norm=1e6)
    zoo.assert_close(clipped.values(), [g.sum(axis=0) for g in expected])
    by_input = gradients.input_jacobian(original, x, sample_weight=WEIGHTS)
    np.testing.assert_allclose(
        gradients.input_jacobian(model, x, sample_weight=WEIGHTS), by_input, rtol=1e-4, atol=1e-6
    )
    moved = np.einsum("nktd,ntd->nk", by_input, x)
    np.testing.assert_allclose(gradients.input_jvp(model, x, x, sample_weight=WEIGHTS), moved, rtol=1e-4, atol=1e-6)
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        y = tf.reduce_sum(original(inputs)[:, 1])
    np.testing.assert_allclose(
        gradients.input_gradient(model, x, output=1), tape.gradient(y, inputs), rtol=1e-4, atol=1e-6
    )
    assert {row.route for row in gradients.plan(model, x).rows} == {"looped"}


def test_a_saved_recurrent_layer_is_refused_with_a_sentence_where_it_cannot_be_differentiated(restored):
    model, x = restored[1], tf.zeros((3, 5, 4))
    gradient(model, x)  # from now on eagerly only
    with pytest.raises(NotImplementedError, match=r"TFSMLayer.*outside of tf\.function"):
        tf.function(lambda x: gradient(model, x), autograph=False)(x)
    with pytest.raises(NotImplementedError, match="one forward pass several"):
        gradients.linearize(model, x)
    v = gradient(model, x)
    with pytest.raises(NotImplementedError, match="one forward pass several"):
        gradients.hessian_vector_product(model, x, v)
    with pytest.raises(NotImplementedError, match="one forward pass several"):
        gradients.gauss_newton_vector_product(model, x, v, loss=lambda y: y[:, 0] ** 2)


def test_a_jacobian_that_does_not_fit_is_refused_before_it_is_computed():
    model, x = (
        keras.Sequential([keras.Input((200,)), layers.Dense(60), layers.Dense(3)]),
        np.zeros((50, 200), np.float32),
    )
    size = 50 * 3 * model.count_params() * 4
    for output in (None, lambda y: y):
        for _ in range(2):
            with pytest.raises(
                MemoryError, match=r"each of 50 samples and 3 units.*more than memory_limit=.*raise the limit"
            ):
                jacobian(model, x, output=output, memory_limit=size - 1)
            assert len(jacobian(model, x, output=output, memory_limit=size)) == 4
        # Weights that the output does not depend on do not count.
        some = {"layer": 0, "output": output}
        assert len(jacobian(model, x, memory_limit=50 * 60 * 12060 * 4, **some)) == 2
    jacobian(model, x[:5], memory_limit=size // 10)
    with pytest.raises(MemoryError):
        jacobian(model, x, memory_limit=size // 10)
