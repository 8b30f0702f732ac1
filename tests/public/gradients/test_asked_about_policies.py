"""Questions of others about policy gradients, traces, and natural gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad import gradients
from rlgrad.gradients import LogProb

layers, ops = keras.layers, keras.ops
X = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]], np.float32)
ACTIONS, ADVANTAGES = np.array([1, 0, 1]), np.array([2.0, -1.0, 0.5], np.float32)


def linear_policy(actions=2):
    return keras.Sequential([keras.Input((2,)), layers.Dense(actions, use_bias=False, name="logits")])


def scores(model, actions=ACTIONS, units=2):
    """∇ log π(a|s) of a linear policy, (N, 2, K): x ⊗ (onehot − p)."""
    return np.einsum("ni,nk->nik", X, np.eye(units)[actions] - tf.nn.softmax(model(X)).numpy())


def test_an_advantage_that_is_made_of_the_critic_does_not_leak_into_the_actor():
    """The value inside of the actor's loss was differentiated too: https://github.com/keras-team/keras-io/issues/194"""
    x = keras.Input((2,))
    body = layers.Dense(3, "tanh", name="body")(x)
    model = keras.Model(x, {"policy": layers.Dense(2)(body), "value": layers.Dense(1, name="value")(body)})
    lin = gradients.linearize(model, X, output={"score": LogProb(ACTIONS), "value": "value"})
    advantage = np.array([1.0, 2.0, 3.0]) - lin.outputs["value"].numpy()
    got = gradients.gradient(model, X, output=LogProb(ACTIONS), sample_weight=advantage)
    assert "value" not in gradients.by_layer(got)

    def weighted(y, n):
        return tf.nn.log_softmax(y["policy"][0])[ACTIONS[n]] * advantage[n].astype(np.float32)

    actor = [v for v in model.trainable_variables if v.path in got]
    zoo.assert_close(got.values(), [rows.sum(0) for rows in zoo.one_by_one(model, X, weighted, 3, actor)])


def test_a_return_of_zero_moves_nothing_and_a_negative_one_moves_away():
    """Zero and negative rewards in REINFORCE: https://discuss.pytorch.org/t/making-sense-of-reinforce-math/17900"""
    model = linear_policy()
    of = lambda c: next(iter(gradients.gradient(model, X, output=LogProb(ACTIONS), sample_weight=c).values())).numpy()
    assert not of([0.0, 0.0, 0.0]).any()
    np.testing.assert_allclose(of([0.0, -2.0, 0.0]), -2 * scores(model)[1], rtol=1e-4, atol=1e-6)


def test_probabilities_in_the_place_of_logits_are_refused():
    """`from_logits=True` behind a softmax: https://github.com/mmalekzadeh/dana/issues/1"""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, "softmax")])
    with pytest.raises(ValueError, match="softmax"):
        gradients.gradient(model, X, output=LogProb(ACTIONS))


def test_a_trace_is_made_of_gradients_of_the_value_and_not_of_an_error():
    """TD(λ) with a network: https://ai.stackexchange.com/questions/10368/can-td-lambda-be-used-with-deep-reinforcement-learning/10379"""
    value = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False)])
    trace, decay = None, 0.9 * 0.8
    for x in X:
        g = gradients.flatten(gradients.gradient(value, x[None]))
        trace = g if trace is None else decay * trace + g
    np.testing.assert_allclose(trace, decay**2 * X[0] + decay * X[1] + X[2], rtol=1e-5)


def test_a_natural_gradient_needs_no_matrix_of_weights():
    """The Jacobian of log π for a natural gradient: https://github.com/pytorch/functorch/issues/733"""
    model, damping = linear_policy(), 0.1
    lin = gradients.linearize(model, X, output=LogProb(ACTIONS))
    credit = np.linalg.solve(lin.gram().numpy() + 3 * damping * np.eye(3), ADVANTAGES)
    s = scores(model).reshape(3, 4)
    expected = np.linalg.solve(s.T @ s / 3 + damping * np.eye(4), s.T @ ADVANTAGES / 3)
    np.testing.assert_allclose(gradients.flatten(lin.vjp(credit.astype(np.float32))), expected, rtol=1e-3, atol=1e-5)


def test_the_fisher_matrix_has_no_negative_curvature():
    """A step length from a negative curvature: https://github.com/Stable-Baselines-Team/stable-baselines3-contrib/issues/38"""
    model = linear_policy(3)
    p = tf.nn.softmax(model(X)).numpy()
    fisher = sum(np.kron(np.outer(x, x), np.diag(q) - np.outer(q, q)) for x, q in zip(X, p, strict=True))
    lin = gradients.linearize(model, X, output=LogProb(ACTIONS))
    for seed in range(3):
        v = np.random.default_rng(seed).standard_normal((2, 3)).astype(np.float32)
        (product,) = lin.fisher_vector_product({model.layers[0].kernel.path: v}).values()
        np.testing.assert_allclose(product, (fisher @ v.ravel()).reshape(2, 3), rtol=1e-3, atol=1e-5)
        assert float(np.sum(product * v)) >= 0


def test_a_fisher_matrix_does_not_depend_on_the_sign_of_log_probabilities():
    """log π or −log π in a Fisher matrix: https://github.com/ikostrikov/pytorch-a2c-ppo-acktr-gail/issues/279"""
    model = linear_policy()
    s = scores(model).reshape(3, 4)
    for sign in (1.0, -1.0):
        lin = gradients.linearize(model, X, output=sign * LogProb(ACTIONS))
        np.testing.assert_allclose(lin.gram(), s @ s.T, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(gradients.flatten(lin.sum_of_squares()), (s**2).sum(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(gradients.flatten(lin.gradient()), sign * s.sum(0), rtol=1e-4, atol=1e-6)
