"""Products with the Hessian of f and with the Gauss-Newton matrix of a loss, against matrices that are written out."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad.gradients import (
    DisconnectedGradientError,
    Entropy,
    LogProb,
    dot,
    flatten,
    gauss_newton_vector_product,
    gradient,
    hessian_vector_product,
    linearize,
)
from rlgrad.gradients.programs.program import programs_of

layers = keras.layers
C = np.array([0.5, -2.0, 1.0])


def direction(model, seed=3):
    generator = np.random.default_rng(seed)
    return {v.path: zoo.normal(generator, *v.shape) for v in model.trainable_variables}


def plain_product(model, x, f, v):
    """∇(Σ_n c_n g_n · v), of plain tapes over batches of one: no cotangent is handed to either of them."""
    sources = [w.value for w in model.trainable_variables]
    total = [np.zeros(w.shape) for w in sources]
    for n, c in enumerate(C):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                value = f(model(zoo.row(x, n), training=False), n)
            gradients = [tf.convert_to_tensor(g) for g in inner.gradient(value, sources)]
            along = tf.add_n([tf.reduce_sum(g * d) for g, d in zip(gradients, v.values(), strict=True)])
        found = outer.gradient(along, sources, unconnected_gradients="zero")
        total = [t + c * tf.convert_to_tensor(g).numpy() for t, g in zip(total, found, strict=True)]
    return total


def score(y, n):
    return tf.nn.log_softmax(y[0])[n]


@pytest.mark.parametrize(
    "name",
    [
        "functional",
        "nested",
        "shared",
        "convolution",
        "embedding",
        "batch_norm",
        "recurrent",
        "subclassed",
        "two_inputs",
        "depthwise",
    ],
)
def test_the_hessian_of_any_model_is_that_of_plain_tapes(name):
    model, x = zoo.make(name), zoo.inputs_for(name, 3)
    v = direction(model)
    got = hessian_vector_product(model, x, v, output=LogProb(np.arange(3)), sample_weight=C)
    assert list(got) == list(v)
    zoo.assert_close(got.values(), plain_product(model, x, score, v), rtol=1e-3)


@pytest.mark.parametrize("between", ["nothing", "layer norm", "group norm"])
def test_the_hessian_is_the_change_of_the_gradient_in_float64(between):
    middle = {
        "nothing": [],
        "layer norm": [layers.LayerNormalization(dtype="float64")],
        "group norm": [layers.GroupNormalization(3, dtype="float64")],
    }
    model = zoo.randomized(
        keras.Sequential(
            [
                keras.Input((4,), dtype="float64"),
                layers.Dense(6, "tanh", dtype="float64"),
                *middle[between],
                layers.Dense(3, dtype="float64"),
            ]
        )
    )
    x, v, step = zoo.inputs_for("functional", 3).astype(np.float64), direction(model), 1e-5
    options = {"output": Entropy() + 0.5 * LogProb(np.arange(3)), "sample_weight": C}
    got = hessian_vector_product(model, x, v, **options)
    lin = linearize(model, x, output=options["output"])
    weights = {w.path: w.numpy() for w in model.trainable_variables}
    ends = [lin.at({k: w + sign * step * v[k] for k, w in weights.items()}).gradient(C) for sign in (1, -1)]
    for key, product in got.items():
        np.testing.assert_allclose(product, (ends[0][key] - ends[1][key]) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_products_in_the_callers_function(mode):
    model, x = zoo.make("functional"), zoo.inputs_for("functional", 3)
    v = direction(model)

    def both(x, v, c, target):
        h = hessian_vector_product(model, x, v, output=LogProb(np.arange(3)), sample_weight=c)
        g = gauss_newton_vector_product(model, x, v, loss=cross_entropy, target=target, sample_weight=c)
        return h, g

    target = np.array([2, 0, 1])
    run = tf.function(both, jit_compile=mode == "xla", autograph=False)
    h, g = run(x, v, C, target)
    zoo.assert_close(h.values(), plain_product(model, x, score, v), rtol=1e-3)
    expected = gauss_newton_vector_product(model, x, v, loss=cross_entropy, target=target, sample_weight=C)
    zoo.assert_close(g.values(), expected.values())


def cross_entropy(y, target):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(target, y)


def jacobian_of(model, x, units=3):
    by_unit = [zoo.one_by_one(model, x, lambda y, n, k=k: y[0, k], 3) for k in range(units)]
    return np.stack([np.concatenate([g.reshape(3, -1) for g in u], axis=1) for u in by_unit], axis=1).astype(np.float64)


@pytest.mark.parametrize("name", ["functional", "convolution", "embedding", "shared", "layer_norm", "subclassed"])
def test_the_gauss_newton_matrix_of_any_model_is_made_of_its_jacobian(name):
    model, x = zoo.make(name), zoo.inputs_for(name, 3)
    v, J = direction(model), jacobian_of(model, x)
    p = tf.nn.softmax(model(x, training=False)).numpy().astype(np.float64)
    H = np.einsum("nk,kl->nkl", p, np.eye(3)) - p[:, :, None] * p[:, None, :]
    flat = flatten(v).numpy()
    got = gauss_newton_vector_product(model, x, v, loss=cross_entropy, target=np.array([2, 0, 1]), sample_weight=C)
    expected = np.einsum("n,nkp,nkl,nlq,q->p", C, J, H, J, flat, optimize=True)
    zoo.assert_close([flatten(got)], [expected])

    def cubed(y):
        return tf.reduce_sum(y**3, axis=1) / 6 + y[:, 0] * y[:, 1]

    y = model(x, training=False).numpy()
    H = np.einsum("nk,kl->nkl", y, np.eye(3)) + np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    got = gauss_newton_vector_product(model, x, v, loss=cubed)
    zoo.assert_close([flatten(got)], [np.einsum("nkp,nkl,nlq,q->p", J, H, J, flat, optimize=True)])


def test_for_cross_entropy_it_is_the_fisher_matrix_and_of_a_linear_model_the_hessian():
    model, x = zoo.make("functional"), zoo.inputs_for("functional", 3)
    v, c = direction(model), np.abs(C)
    lin = linearize(model, x, output=LogProb([2, 0, 1]))
    expected = lin.fisher_vector_product(v, sample_weight=c)
    options = {"loss": cross_entropy, "target": np.array([0, 0, 1])}
    got = gauss_newton_vector_product(model, x, v, sample_weight=c, **options)
    zoo.assert_close(got.values(), expected.values())
    zoo.assert_close(lin.gauss_newton_vector_product(v, sample_weight=c, **options).values(), expected.values())
    assert dot(v, got) > 0
    linear = zoo.randomized(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    v = direction(linear)
    h = hessian_vector_product(linear, x, v, output=LogProb([2, 0, 1]), sample_weight=c)
    g = gauss_newton_vector_product(linear, x, v, loss=cross_entropy, target=np.array([2, 0, 1]), sample_weight=-c)
    zoo.assert_close(h.values(), g.values())
    assert not any(np.any(part) for part in hessian_vector_product(linear, x, v, output=1).values())


def test_a_loss_of_several_heads_and_a_tree_of_targets():
    model = zoo.randomized(zoo.two_heads())
    x, v = zoo.inputs_for("functional", 3), direction(model)
    targets = {"action": np.array([2, 0, 1]), "value": np.array([1.0, -1.0, 0.5], np.float32)}

    def loss(y, target):
        return cross_entropy(y["policy"], target["action"]) + 2.0 * (y["value"][:, 0] - target["value"]) ** 2

    got = gauss_newton_vector_product(model, x, v, loss=loss, target=targets)
    policy, value = (keras.Model(model.input, model.output[name]) for name in ("policy", "value"))
    parts = [
        gauss_newton_vector_product(
            policy, x, {k: v[k] for k in gradient(policy, x)}, loss=cross_entropy, target=targets["action"]
        ),
        gauss_newton_vector_product(value, x, {k: v[k] for k in gradient(value, x)}, loss=lambda y: 2.0 * y[:, 0] ** 2),
    ]
    for key, product in got.items():
        np.testing.assert_allclose(product, sum(p[key] for p in parts if key in p), rtol=1e-4, atol=1e-5)


def test_a_linearization_has_both_at_other_weights_too():
    model, x = zoo.make("functional"), zoo.inputs_for("functional", 3)
    v, moved = direction(model), {w.path: w.numpy() + 0.1 for w in model.trainable_variables}
    lin = linearize(model, x, output={"score": LogProb(np.arange(3)), "first": 0}).at(moved)
    got = lin.hessian_vector_product(v, {"score": C, "first": 2.0})
    g = lin.gauss_newton_vector_product(v, loss=cross_entropy, target=np.arange(3))
    for variable in model.trainable_variables:
        variable.assign(moved[variable.path])
    first = hessian_vector_product(model, x, v, output=0)
    score = hessian_vector_product(model, x, v, output=LogProb(np.arange(3)), sample_weight=C)
    zoo.assert_close(got.values(), [score[k] + 2.0 * first[k] for k in v])
    zoo.assert_close(
        g.values(), gauss_newton_vector_product(model, x, v, loss=cross_entropy, target=np.arange(3)).values()
    )


def test_some_of_the_weights_and_any_number_of_rows_from_one_program():
    model, x = zoo.make("functional"), zoo.inputs_for("functional", 3)
    v = {"first/kernel": direction(model)["first/kernel"]}
    everywhere = {k: v.get(k, np.zeros_like(w)) for k, w in direction(model).items()}
    got = hessian_vector_product(model, x, v, output=LogProb(np.arange(3)), weights="first/kernel", sample_weight=C)
    assert list(got) == ["first/kernel"]
    zoo.assert_close([got["first/kernel"]], plain_product(model, x, score, everywhere)[:1])
    before = len(programs_of(model))
    for rows in (2, 0):
        action = np.zeros(rows, int)
        options = {"weights": "first/kernel", "sample_weight": C[:rows]}
        h = hessian_vector_product(model, x[:rows], v, output=LogProb(action), **options)
        g = gauss_newton_vector_product(model, x[:rows], v, loss=cross_entropy, target=action, weights="first/kernel")
        assert h["first/kernel"].shape == g["first/kernel"].shape == (4, 6)
    assert not np.any(h["first/kernel"])
    assert not np.any(g["first/kernel"])
    assert len(programs_of(model)) == before + 2


def resized(interpolation):
    return zoo.randomized(
        keras.Sequential(
            [
                keras.Input((2, 3, 1)),
                layers.Conv2D(2, 2, padding="same", activation="tanh"),
                layers.UpSampling2D(2, interpolation=interpolation),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_what_tensorflow_would_leave_out_without_a_word_is_refused(interpolation):
    model, x = resized(interpolation), zoo.normal(np.random.default_rng(0), 3, 2, 3, 1)
    v = direction(model)
    asked = [
        lambda x: hessian_vector_product(model, x, v, output=LogProb(np.arange(3))),
        lambda x: hessian_vector_product(model, x, v, output=lambda y: y[:, 0] ** 2),
        lambda x: gauss_newton_vector_product(model, x, v, loss=lambda y: y[:, 0] ** 2),
        lambda x: linearize(model, x, output=LogProb(np.arange(3))).fisher_vector_product(v),
        lambda x: linearize(model, x, output=lambda y: y[:, 0]).fisher_vector_product(v),
    ]
    for k, ask in enumerate(asked):
        run = tf.function(ask, autograph=False) if k in (2, 3) else ask
        with pytest.raises(NotImplementedError, match="cannot differentiate the gradient of this model"):
            run(x)
    nearest = resized("nearest")
    v = direction(nearest)
    zoo.assert_close(
        hessian_vector_product(nearest, x, v, output=LogProb(np.arange(3)), sample_weight=C).values(),
        plain_product(nearest, x, score, v),
        rtol=1e-3,
    )


def test_refusals_say_what_was_expected():
    model, x = zoo.make("functional"), zoo.inputs_for("functional", 3)
    v = direction(model)
    some = {k: v[k] for k in list(v)[1:]}
    for wrong in (some, {**v, "other": 1.0}, list(v.values())):
        with pytest.raises(ValueError, match="exactly the keys"):
            hessian_vector_product(model, x, wrong, output=0)
        with pytest.raises(ValueError, match="exactly the keys"):
            gauss_newton_vector_product(model, x, wrong, loss=lambda y: y[:, 0])
    with pytest.raises(ValueError, match=r"'out/bias' must have shape \(3,\), got \(4,\)"):
        hessian_vector_product(model, x, {**v, "out/bias": np.ones(4)}, output=0)
    with pytest.raises(TypeError, match="loss= is a function"):
        gauss_newton_vector_product(model, x, v, loss="mse")
    with pytest.raises(ValueError, match=r"one number per sample, shape \(3,\), got \(\).*reduction=None"):
        gauss_newton_vector_product(model, x, v, loss=lambda y: tf.reduce_mean(y**2))
    with pytest.raises(TypeError, match="What loss= returned has dtype int64"):
        gauss_newton_vector_product(model, x, v, loss=lambda y: tf.argmax(y, axis=1))
    with pytest.raises(ValueError, match=r"there must be 3 actions \(or units, weights, targets\); got shape \(2,\)"):
        gauss_newton_vector_product(model, x, v, loss=cross_entropy, target=np.zeros(2, int))
    with pytest.raises(DisconnectedGradientError, match="does not depend on these of the chosen weights: out/kernel"):
        gauss_newton_vector_product(
            model, x, {"out/kernel": 0 * v["out/kernel"]}, loss=lambda y: y[:, 0], layer="first", weights="out/kernel"
        )
