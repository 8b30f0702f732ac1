"""Questions of others about the gradient of an output with respect to weights, each in the smallest situation that has it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad import gradients

layers, ops = keras.layers, keras.ops
X = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]], np.float32)


def linear(units, kernel=None, **options):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(units, name="out", **options)])
    if kernel is not None:
        model.layers[0].kernel.assign(kernel)
    return model


def two_heads():
    x = keras.Input((2,))
    body = layers.Dense(3, "tanh", name="body")(x)
    return keras.Model(
        x, {"actor": layers.Dense(2, name="actor")(body), "critic": layers.Dense(1, name="critic")(body)}
    )


def nested():
    inner = keras.Sequential(
        [keras.Input((2,)), layers.Dense(4, "tanh", name="deep"), layers.Dense(3, name="deeper")], name="backbone"
    )
    x = keras.Input((2,))
    return keras.Model(x, layers.Dense(1, name="head")(ops.tanh(inner(x))))


def test_the_output_is_differentiated_by_each_layers_weights_and_not_an_error():
    """The gradient of the output, layer by layer, without a loss: https://stackoverflow.com/questions/39561560"""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, "tanh", name="hidden"), layers.Dense(1, name="out")])
    model.set_weights([np.array(w) for w in ([[0.5]], [0.1], [[2.0]], [0.3])])
    h = np.tanh(0.5 * 3.0 + 0.1)
    by_layer = gradients.by_layer(gradients.gradient(model, np.array([[3.0]])))
    slope = 2.0 * (1 - h**2)
    assert by_layer["hidden"]["kernel"].numpy() == pytest.approx(slope * 3.0, rel=1e-5)
    assert by_layer["hidden"]["bias"].numpy() == pytest.approx(slope, rel=1e-5)
    assert by_layer["out"]["kernel"].numpy() == pytest.approx(h, rel=1e-5)
    assert by_layer["out"]["bias"].numpy() == pytest.approx(1.0)


def test_the_gradient_of_a_loss_is_there_without_compiling_or_fitting_the_model():
    """The gradients of each parameter while training: https://github.com/keras-team/keras/issues/2226"""
    model, labels = linear(1), np.array([1.0, 0.0, 1.0], np.float32)
    error = 1 / (1 + np.exp(-model(X).numpy()[:, 0])) - labels
    g = gradients.gradient(
        model, X, output=lambda y, t: keras.losses.binary_crossentropy(t[:, None], y, from_logits=True), target=labels
    )
    zoo.assert_close(g.values(), [X.T @ error[:, None], error.sum(keepdims=True)])


def test_a_vector_of_outputs_is_summed_as_the_functions_name_promises():
    """A scalar is demanded on one backend, a sum taken on another: https://github.com/keras-team/keras/issues/5721"""
    kernel, bias = gradients.gradient(linear(3), X).values()
    np.testing.assert_allclose(kernel, np.repeat(X.sum(0)[:, None], 3, axis=1), rtol=1e-5)
    np.testing.assert_allclose(bias, [3.0, 3.0, 3.0])


def test_a_jacobian_is_another_function_than_a_gradient():
    """A Jacobian was expected and its sum came: https://discuss.tensorflow.org/t/question-about-how-gradients-are-computed/15499"""
    model = linear(2, use_bias=False)
    (jacobian,) = gradients.jacobian(model, X).values()  # dy_k / dW_ij = x_i δ_jk
    np.testing.assert_allclose(jacobian, np.einsum("ni,jk->nkij", X, np.eye(2)), atol=1e-6)
    (gradient,) = gradients.gradient(model, X).values()
    np.testing.assert_allclose(gradient, jacobian.numpy().sum((0, 1)), rtol=1e-5)


def test_a_layer_inside_of_a_nested_model_has_gradients():
    """`None` for every layer of a model in a model: https://github.com/keras-team/keras/issues/10850"""
    model = nested()
    got = gradients.gradient(model, X, weights=["deep", "deeper"])
    expected = zoo.one_by_one(model, X, lambda y, n: y[0, 0], 3, model.layers[1].trainable_variables)
    zoo.assert_close(got.values(), [rows.sum(0) for rows in expected])


def test_the_output_of_a_layer_of_a_nested_model_needs_no_model_built_for_it():
    """A sub-model that ends inside of another is "disconnected": https://github.com/tensorflow/tensorflow/issues/34977"""
    model = nested()
    value, got = gradients.value_and_gradient(model, X, layer="deep", output=2)
    deep = model.get_layer("backbone").get_layer("deep")
    h = np.tanh(X @ deep.kernel.numpy() + deep.bias.numpy())[:, 2]
    np.testing.assert_allclose(value, h, rtol=1e-4, atol=1e-6)
    kernel = np.zeros((2, 4))
    kernel[:, 2] = (1 - h**2) @ X
    zoo.assert_close(got.values(), [kernel, np.array([0, 0, (1 - h**2).sum(), 0])])


def test_the_critics_head_is_not_in_the_actors_gradient_and_naming_it_raises():
    """No gradients for the other head: https://github.com/tensorflow/tensorflow/issues/48547"""
    model = two_heads()
    assert list(gradients.by_layer(gradients.gradient(model, X, output="actor"))) == ["body", "actor"]
    with pytest.raises(gradients.DisconnectedGradientError, match="critic"):
        gradients.gradient(model, X, output="actor", weights="critic")


def test_a_second_head_leaves_the_first_ones_gradient_as_it_was():
    """`None` for a gradient as soon as a head was added: https://github.com/keras-team/keras/issues/4746"""
    model = two_heads()
    alone = keras.Model(model.input, model.output["actor"])
    one, two = gradients.gradient(alone, X), gradients.gradient(model, X, output="actor")
    zoo.assert_close(two.values(), list(one.values()))


def test_an_embeddings_gradient_is_a_dense_tensor():
    """`IndexedSlices` that NumPy cannot take: https://github.com/SeldonIO/alibi/issues/828"""
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), layers.Embedding(5, 2, name="table"), layers.GlobalAveragePooling1D()]
    )
    (table,) = gradients.gradient(model, np.array([[0, 3, 3], [3, 1, 0]]), output=0).values()
    np.testing.assert_allclose(table.numpy(), np.array([[2, 0], [1, 0], [0, 0], [3, 0], [0, 0]]) / 3, rtol=1e-6)


def test_an_embedding_has_the_gradient_of_a_product_with_one_hot_rows():
    """The lookup's gradient as that of the matrix product it stands for: https://github.com/tensorflow/tensorflow/issues/7786"""
    ids = np.array([[2], [0], [2]])
    lookup = keras.Sequential(
        [keras.Input((1,), dtype="int32"), layers.Embedding(4, 3), layers.Flatten(), layers.Dense(1)]
    )
    product = keras.Sequential([keras.Input((4,)), layers.Dense(3, use_bias=False), layers.Dense(1)])
    product.set_weights(lookup.get_weights())
    weights, one_hot = [1.0, -2.0, 0.5], np.eye(4)[ids[:, 0]]
    zoo.assert_close(
        gradients.gradient(lookup, ids, sample_weight=weights).values(),
        list(gradients.gradient(product, one_hot, sample_weight=weights).values()),
    )


def test_all_units_of_a_softmax_add_up_to_no_gradient_and_one_of_them_has_one():
    """Zeros for the gradient of a softmax: https://github.com/keras-team/keras/issues/5881"""
    model = linear(3, activation="softmax", use_bias=False)
    p = model(X).numpy()
    (everything,) = gradients.gradient(model, X).values()
    np.testing.assert_allclose(everything, np.zeros((2, 3)), atol=1e-6)
    (one,) = gradients.gradient(model, X, output=1).values()
    np.testing.assert_allclose(one, X.T @ (p[:, 1:2] * (np.eye(3)[1] - p)), rtol=1e-4, atol=1e-6)


def test_the_scores_before_a_softmax_are_the_output_of_their_layer():
    """The score before the softmax, and not the probability: https://github.com/fchollet/deep-learning-with-python-notebooks/issues/107"""
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3, use_bias=False, name="scores"), layers.Activation("softmax")]
    )
    (kernel,) = gradients.gradient(model, X, layer="scores", output=2).values()
    np.testing.assert_allclose(kernel, np.outer(X.sum(0), [0, 0, 1]), rtol=1e-6)


def test_value_and_gradient_come_from_one_call():
    """A `value_and_grad` for Keras: https://github.com/keras-team/keras/issues/22442"""
    model = linear(1, [[2.0], [-1.0]])
    value, g = gradients.value_and_gradient(model, X)
    np.testing.assert_allclose(value, 2 * X[:, 0] - X[:, 1], rtol=1e-6)
    zoo.assert_close(g.values(), [X.sum(0)[:, None], [3.0]])


def test_numpy_on_the_way_is_an_error_and_no_missing_gradient():
    """No gradient through `predict`, which returns NumPy: https://github.com/tensorflow/tensorflow/issues/20630"""
    with pytest.raises(TypeError, match="ndarray, not a tensor"):
        gradients.gradient(linear(1), X, output=lambda y: np.asarray(y)[:, 0])


def test_a_gradient_inside_of_a_tf_function_takes_the_place_of_k_gradients():
    """`tf.gradients` is not supported when executing eagerly: https://github.com/tensorflow/tensorflow/issues/33135"""
    model = linear(2)
    in_graph = tf.function(lambda x: gradients.gradient(model, x, output=1), autograph=False)
    expected = [np.outer(X.sum(0), [0, 1]), [0, 3]]
    zoo.assert_close(in_graph(tf.constant(X)).values(), expected)
    zoo.assert_close(gradients.gradient(model, X, output=1).values(), expected)
