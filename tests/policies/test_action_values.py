"""Policies whose network says how good each action is: what it is made of, who computes it, and which models fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.by_hand import network
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.distributions.protocol import IMPOSSIBLE
from rlgrad.policies.actions import ActionValues

VECTOR, ACTIONS = spaces.Box(-9, 9, (3,)), spaces.Discrete(4)
SAYS = {
    "values": ActionValues(),
    "dueling": ActionValues(dueling=True),
    "quantiles": ActionValues(5),
    "dueling atoms": ActionValues(6, (-1.0, 1.0), dueling=True),
}
X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def policy_of(says, space=VECTOR, **options):
    policy = rlgrad.make_policy(space, ACTIONS, action_values=says, **{"hidden_sizes": (6, 5), "seed": 1} | options)
    rng = np.random.default_rng(0)
    for variable in policy.network.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return policy


@pytest.mark.parametrize("says", SAYS.values(), ids=SAYS)
def test_a_default_network_is_tanh_layers_and_a_linear_one_split_where_it_is_dueling(says):
    policy = policy_of(says)
    y = network([v.numpy().astype(float) for v in policy.network.trainable_variables], X.astype(float))[0]
    y = y.reshape(7, -1, says.width) if says.width else y
    if says.dueling:
        value, advantages = y[:, :1], y[:, 1:]
        y = value + advantages - advantages.mean(1, keepdims=True)
        np.testing.assert_allclose(y.mean(1), value[:, 0])  # the advantages have mean 0: the value is identified
    assert y.shape[:2] == (7, 4)
    np.testing.assert_allclose(policy(X)["policy"], y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy(X)["value"], policy.distribution.numpy_expected(y).max(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy.value(X), policy(X)["value"])
    assert policy.says_action_values
    assert policy.value_network is None


@pytest.mark.parametrize("says", SAYS.values(), ids=SAYS)
@mostly_slow("options", {"plain": {}, "layer_norm": {"layer_norm": True, "activation": "relu"}}, quick=["layer_norm"])
def test_numpy_acts_as_the_keras_model_does(says, options):
    policy = policy_of(says, **options)
    assert policy.acts_in == "numpy"
    np.testing.assert_allclose(policy.actor()(X), policy(X)["policy"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(policy.act(X), policy.distribution.most_likely(policy(X)["policy"]))


def test_layer_normalization_stands_before_the_activation_of_each_hidden_layer():
    policy = policy_of(ActionValues(), layer_norm=True, hidden_sizes=(6,), activation="relu")
    kernel, bias, scale, shift, last, last_bias = [v.numpy() for v in policy.network.trainable_variables]
    h = X @ kernel + bias
    h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5) * scale + shift
    np.testing.assert_allclose(policy(X)["policy"], np.maximum(h, 0) @ last + last_bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("says", SAYS.values(), ids=SAYS)
def test_a_mask_leaves_the_allowed_values_as_they_are(says):
    masked = policy_of(says, spaces.Dict(observation=VECTOR, action_mask=spaces.MultiBinary(4)))
    plain = policy_of(says)
    allowed = np.array([[1, 0, 0, 1]] * 6 + [[0, 0, 1, 0]], np.int8)
    x = {"observation": X, "action_mask": allowed}
    for said in (masked(x)["policy"].numpy(), masked.actor()(x)):
        np.testing.assert_allclose(said[allowed > 0], plain(X)["policy"].numpy()[allowed > 0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(said[allowed == 0], np.float32(IMPOSSIBLE))
    assert allowed[np.arange(7), masked.act(x)].all()
    assert (masked(x)["value"].numpy() <= plain(X)["value"].numpy() + 1e-6).all()


def test_a_memory_has_values_of_every_action_at_each_step():
    policy = policy_of(SAYS["dueling atoms"], memory="gru", memory_size=3)
    state = policy.initial_state(7)
    said, after = policy.step(tf.constant(X), tf.nest.map_structure(tf.constant, state))
    assert said.shape == (7, 4, 6)
    again, _ = policy.step(tf.constant(X), after)
    assert np.abs(said - again).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"value_model": keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])},
            "value_model has no meaning here",
        ),
        ({"shared_trunk": True}, "shared_trunk has no meaning here"),
        ({"from_logits": False}, "from_logits=False has no meaning here"),
        ({"model": lambda: _model(3)}, r"4 actions: one number each"),
        ({"model": lambda: _model(4, "softmax")}, r"ends in a softmax, and a value of an action may be any number"),
    ],
)
def test_what_has_no_meaning_for_action_values_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rlgrad.make_policy(VECTOR, ACTIONS, action_values=ActionValues(), **options)


def _model(units, activation="linear"):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, activation)])


def test_a_model_of_ones_own_says_values_and_no_value_beside_them():
    policy = rlgrad.make_policy(VECTOR, ACTIONS, model=_model(4), action_values=ActionValues())
    np.testing.assert_allclose(policy(X)["value"], policy.network(X).numpy().max(1))
    x = keras.Input((3,))
    both = keras.Model(x, {"policy": keras.layers.Dense(4)(x), "value": keras.layers.Dense(1)(x)})
    with pytest.raises(ValueError, match="best of its action values: leave it out"):
        rlgrad.make_policy(VECTOR, ACTIONS, model=both, action_values=ActionValues())


def test_actions_without_a_choice_or_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="single action"):
        rlgrad.make_policy(VECTOR, spaces.Discrete(1), action_values=ActionValues())
    for space in (spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 2])):
        with pytest.raises(ValueError, match=r"an agent that credits log_prob, such as ppo"):
            rlgrad.make_policy(VECTOR, space, action_values=ActionValues())
