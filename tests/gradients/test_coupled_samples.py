"""Models that mix their samples have no gradient of one sample: the functions about samples say so, those about sums go on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rlgrad import gradients as G
from rlgrad.gradients import BatchCoupledError, LogProb

layers, ops = keras.layers, keras.ops
X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


class Normalized(keras.Model):
    """Batch normalization that is always in training mode."""

    def __init__(self, **options):
        super().__init__()
        self.first = layers.Dense(3, "tanh")
        self.normalization = layers.BatchNormalization(name="statistics", **options)
        self.out = layers.Dense(2)

    def call(self, x, training=False):
        return self.out(self.normalization(self.first(x), training=True))


class Own(layers.Layer):
    """A function as a layer, whose inputs and outputs a probe sees."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return self.function(x)

    def compute_output_shape(self, shape):
        return shape


def with_layer(function):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh"), Own(function, name="mixer"), layers.Dense(2)])


def normalized(**options):
    model = Normalized(**options)
    model(X)
    return model


def zero_head():
    model = with_layer(lambda y: y - ops.mean(y, axis=0))
    model.layers[-1].kernel.assign(np.zeros((3, 2)))
    return model


def functional_normalization():
    inputs = keras.Input((4,))
    tensor = layers.BatchNormalization()(layers.Dense(3)(inputs), training=True)
    return keras.Model(inputs, layers.Dense(2)(tensor))


def axis_of_the_batch(layer):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), layer, layers.Dense(2)])


def pairs(y):
    a = ops.reshape(y, (-1, 2, 3))
    return ops.reshape(a - a[:, ::-1], (-1, 3))


MIXED = {
    "batch normalization in training mode": normalized,
    "whose derivatives alone are mixed": lambda: normalized(renorm=True),
    "minus the batch's mean": lambda: with_layer(lambda y: y - ops.mean(y, axis=0)),
    "behind a head of zeros": zero_head,
    "minus the mean, seen as a constant": lambda: with_layer(lambda y: y - ops.stop_gradient(ops.mean(y, axis=0))),
    "softmax over the batch": lambda: with_layer(lambda y: ops.softmax(y, axis=0)),
    "cumulated": lambda: with_layer(lambda y: ops.cumsum(y, axis=0)),
    "cumulated from the end": lambda: with_layer(lambda y: ops.flip(ops.cumsum(ops.flip(y, 0), axis=0), 0)),
    "rolled": lambda: with_layer(lambda y: ops.roll(y, 1, axis=0)),
    "reversed": lambda: with_layer(lambda y: ops.flip(y, axis=0)),
    "sorted": lambda: with_layer(lambda y: ops.sort(y, axis=0)),
    "shuffled": lambda: with_layer(lambda y: tf.random.experimental.stateless_shuffle(y, [1, 2])),
    "minus the first row": lambda: with_layer(lambda y: y - y[:1]),
    "minus the last row": lambda: with_layer(lambda y: y - y[-1:]),
    "attention over the batch": lambda: with_layer(
        lambda y: ops.matmul(ops.softmax(ops.matmul(y, ops.transpose(y))), y)
    ),
    "divided by the batch's largest": lambda: with_layer(lambda y: y / ops.max(ops.abs(y))),
    "an activation": lambda: axis_of_the_batch(layers.Dense(3, activation=lambda y: y - ops.mean(y, 0), name="mixer")),
    "a layer of Keras": lambda: axis_of_the_batch(layers.UnitNormalization(axis=0, name="mixer")),
}


@pytest.mark.parametrize("name", MIXED)
def test_samples_that_are_mixed_are_refused(name):
    model = MIXED[name]()
    before = [np.array(variable.value) for variable in model.variables]
    with pytest.raises(BatchCoupledError, match=r"layer '(mixer|statistics)'"):
        G.per_sample_gradient(model, X)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.value, value)


ABOUT_SAMPLES = {
    "norm": lambda m: G.per_sample_norm(m, X),
    "gram": lambda m: G.gram(m, X),
    "jacobian": lambda m: G.jacobian(m, X),
    "input gradient": lambda m: G.input_gradient(m, X),
    "activation gradient": lambda m: G.activation_gradient(m, X, at=0),
    "input jacobian": lambda m: G.input_jacobian(m, X),
    "input jvp": lambda m: G.input_jvp(m, X, X),
    "jacobian gram": lambda m: G.jacobian_gram(m, X),
    "jacobian gram of two": lambda m: G.jacobian_gram(m, X, X[:2]),
    "clipped": lambda m: G.clipped_gradient(m, X, max_norm=1.0),
    "gauss newton": lambda m: G.gauss_newton_vector_product(
        m, X, G.gradient(m, X), loss=lambda y: tf.reduce_sum(y**2, axis=1)
    ),
    "vmap": lambda m: G.per_sample_gradient(m, X, method="vmap"),
    "loop": lambda m: G.per_sample_gradient(m, X, method="loop"),
    "chunks": lambda m: G.per_sample_gradient(m, X, chunk_size=2),
    "segments": lambda m: G.per_sample_norm(m, X, segments=[0, 0, 1, 1, 1]),
    "actions": lambda m: G.per_sample_gradient(m, X, output=LogProb([0, 1, 1, 0, 1])),
    "a unit": lambda m: G.per_sample_gradient(m, X, output=1),
    "a function": lambda m: G.per_sample_gradient(m, X, output=lambda y: y[:, 0]),
    "linearize.per_sample": lambda m: G.linearize(m, X).per_sample(),
    "linearize.vjp": lambda m: G.linearize(m, X).vjp(),
    "linearize.jvp": lambda m: G.linearize(m, X).jvp(G.gradient(m, X)),
    "linearize.sum_of_squares": lambda m: G.linearize(m, X).sum_of_squares(),
    "in a function": lambda m: tf.function(lambda x: G.per_sample_norm(m, x), autograph=False)(tf.constant(X)),
    "its layer": lambda m: G.per_sample_gradient(m, X, layer="mixer"),
}


@pytest.fixture(scope="module")
def mean_free():
    return MIXED["minus the batch's mean"]()


@pytest.mark.parametrize("name", ABOUT_SAMPLES)
def test_every_function_about_samples_refuses(name, mean_free):
    with pytest.raises(BatchCoupledError):
        ABOUT_SAMPLES[name](mean_free)


@pytest.mark.xla
def test_refused_where_xla_compiles(mean_free):
    with pytest.raises(BatchCoupledError):
        tf.function(lambda x: G.gram(mean_free, x), autograph=False, jit_compile=True)(tf.constant(X))


def test_sums_are_those_of_a_tape():
    for model in (normalized(), with_layer(lambda y: y - ops.mean(y, axis=0))):
        c = np.array([1.0, -2.0, 0.5, 3.0, 0.0], np.float32)
        with keras.StatelessScope(), tf.GradientTape() as tape:
            value = tf.reduce_sum(c[:, None] * model(X, training=False))
        wanted = tape.gradient(value, [v.value for v in model.trainable_variables])
        for got in (G.gradient(model, X, sample_weight=c), G.linearize(model, X).gradient(c)):
            for g, w in zip(got.values(), wanted, strict=True):
                np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)


def test_the_hessian_of_a_sum_is_that_of_two_tapes(mean_free):
    v = G.gradient(mean_free, X, output=0)
    weights = [v.value for v in mean_free.trainable_variables]
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            value = tf.reduce_sum(mean_free(X, training=False)[:, 0] ** 2)
        slopes = inner.gradient(value, weights)
    wanted = outer.gradient(slopes, weights, output_gradients=list(v.values()))
    got = G.hessian_vector_product(mean_free, X, v, output=lambda y: y[:, 0] ** 2)
    for g, w in zip(got.values(), wanted, strict=True):
        np.testing.assert_allclose(g, 0 * g if w is None else w, rtol=1e-4, atol=1e-5)


def test_functions_of_units_that_mix_are_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh")])

    def mixed(y):
        return y - tf.reduce_mean(y, axis=0)

    for ask in (
        lambda: G.input_jacobian(model, X, output=mixed),
        lambda: G.input_jvp(model, X, X, output=mixed),
        lambda: G.jacobian_gram(model, X, output=mixed),
        lambda: G.activation_gradient(model, X, at=0, output=lambda y: mixed(y)[:, 0] ** 2),
        lambda: G.gauss_newton_vector_product(model, X, G.gradient(model, X), loss=lambda y: mixed(y)[:, 0] ** 2),
    ):
        with pytest.raises(BatchCoupledError, match="given as output="):
            ask()


def test_the_plan_says_what_mixes(mean_free):
    plan = G.plan(mean_free, X)
    assert plan.mixer == "layer 'mixer' (Own)"
    assert str(plan).startswith("refused: layer 'mixer'")
    assert G.plan(with_layer(ops.tanh), X).mixer == ""


def test_an_output_before_the_mixing_is_answered(mean_free):
    first = mean_free.layers[0]
    got = G.per_sample_gradient(mean_free, X, layer=first)
    np.testing.assert_allclose(got[first.bias.path], 1 - np.tanh(X @ np.asarray(first.kernel)) ** 2, rtol=1e-5)


def test_of_two_heads_only_the_mixed_one_is_refused():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, "tanh")(inputs)
    mixed = Own(lambda y: y - ops.mean(y, axis=0))(hidden)
    model = keras.Model(inputs, {"mixed": layers.Dense(2)(mixed), "plain": layers.Dense(2)(hidden)})
    assert G.per_sample_norm(model, X, output="plain").shape == (5,)
    assert G.per_sample_norm(model, X, output=lambda y: y["plain"][:, 0]).shape == (5,)
    assert G.linearize(model, X, output={"a": "plain", "b": "plain"}).norm()["a"].shape == (5,)
    for output in ("mixed", lambda y: y["mixed"][:, 0], LogProb([0] * 5, head="mixed")):
        with pytest.raises(BatchCoupledError):
            G.per_sample_norm(model, X, output=output)


def test_a_function_that_mixes_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    weights = tf.constant([1.0, 2.0, 3.0, 4.0, 5.0])
    assert G.per_sample_norm(model, X, output=lambda y: weights * tf.reduce_logsumexp(y, axis=1)).shape == (5,)
    for mixing in (lambda y: y[:, 0] - tf.reduce_mean(y[:, 0]), lambda y: tf.cumsum(y[:, 1])):
        for ask in (G.per_sample_gradient, G.jacobian, G.input_gradient):
            with pytest.raises(BatchCoupledError, match="function given as output="):
                ask(model, X, output=mixing)
    summed = G.gradient(model, X, output=lambda y: y[:, 0] - tf.reduce_mean(y[:, 0]))
    np.testing.assert_allclose(next(iter(summed.values())), 0.0, atol=1e-5)


class Noisy(layers.Layer):
    """Draws anew each time."""

    def call(self, x):
        return x + tf.random.normal(tf.shape(x), stddev=0.1)


class Counting(keras.Model):
    """Counts its calls, in a Keras variable."""

    def __init__(self):
        super().__init__()
        self.out = layers.Dense(2)
        self.count = self.add_weight(shape=(), initializer="zeros", dtype="int64", trainable=False)

    def call(self, x):
        self.count.assign(self.count + 1)
        return self.out(x)


def counting():
    model = Counting()
    model(X)
    return model


def auxiliary():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3)(inputs)
    return keras.Model(inputs, [layers.Dense(2)(hidden), ops.mean(hidden)])


SEPARATE = {
    "a functional model, run at inference": functional_normalization,
    "random numbers": lambda: keras.Sequential([keras.Input((4,)), layers.Dense(2), Noisy()]),
    "a counter": counting,
    "a batch statistic beside f": auxiliary,
    "logarithms": lambda: with_layer(lambda y: ops.log(y + 5.0)),
    "time first inside": lambda: with_layer(lambda y: ops.transpose(ops.tanh(ops.transpose(y)))),
    "not a number": lambda: with_layer(lambda y: ops.log(-ops.abs(y) - 1.0)),
    "float16": lambda: keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, dtype="mixed_float16"), Own(ops.tanh, dtype="mixed_float16")]
    ),
}


@pytest.mark.parametrize("name", SEPARATE)
def test_models_that_keep_samples_apart_are_answered(name):
    model = SEPARATE[name]()
    options = (
        {"output": "0"} if isinstance(model.output if name == "a batch statistic beside f" else None, list) else {}
    )
    if options:
        options = {"output": lambda y: y[0][:, 0]}
    assert G.per_sample_norm(model, X, **options).shape == (5,)


@pytest.mark.parametrize("method", ["auto", "vmap"])
def test_integer_inputs_and_sequences_are_answered(method):
    class Tokens(keras.Model):
        def __init__(self):
            super().__init__()
            self.table = layers.Embedding(7, 3, mask_zero=True)
            self.memory = layers.GRU(2)

        def call(self, ids):
            return self.memory(self.table(ids))

    model, ids = Tokens(), np.array([[1, 2, 0], [3, 0, 0], [6, 5, 4]])
    model(ids)
    rows = G.per_sample_gradient(model, ids, method=method)
    one = G.per_sample_gradient(model, ids[1:2], method=method)
    for path, g in rows.items():
        np.testing.assert_allclose(g[1:2], one[path], rtol=1e-5, atol=1e-6)


def test_a_model_of_a_fixed_batch_is_probed_at_that_size():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Own(pairs, name="mixer"), layers.Dense(2)])
    with pytest.raises(BatchCoupledError, match="'mixer'"):
        G.per_sample_gradient(model, X[:4])


def test_a_function_that_mixes_is_refused_where_it_is_traced():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    for size in (None, 5):
        signature = [tf.TensorSpec([size, 4])]
        with pytest.raises(BatchCoupledError, match="function given as output="):
            tf.function(
                lambda x: G.per_sample_norm(model, x, output=lambda y: y[:, 0] - tf.reduce_mean(y[:, 0])),
                autograph=False,
                input_signature=signature,
            ).get_concrete_function()


def test_variables_of_tensorflow_are_left_as_they_were():
    class Drawing(layers.Layer):
        def __init__(self):
            super().__init__()
            self.generator, self.count = tf.random.Generator.from_seed(1), tf.Variable(0)

        def call(self, x):
            self.count.assign_add(1)
            return x + 0.0 * self.generator.normal(tf.shape(x))

    drawing = Drawing()
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2), drawing])
    before = int(drawing.count), np.array(drawing.generator.state)
    assert G.plan(model, X).mixer == ""
    assert int(drawing.count) == before[0]
    np.testing.assert_array_equal(drawing.generator.state, before[1])


def test_weights_of_steps_do_not_hide_what_is_mixed():
    model = keras.Sequential(
        [keras.Input((3, 4)), layers.Dense(2), Own(lambda y: y - ops.mean(y, axis=0), name="mixer")]
    )
    x = np.stack([X, X, X], axis=1)
    with pytest.raises(BatchCoupledError):
        G.per_sample_norm(model, x, output=G.PerSequence(lambda y: y[..., 0], np.zeros((5, 3))))
    with pytest.raises(BatchCoupledError):
        G.per_sample_norm(model, x, output=G.PerSequence(LogProb(np.zeros((5, 3), int)), np.zeros((5, 3))))
