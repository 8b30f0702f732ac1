"""The policy and the value move apart, each by its own rule."""

import keras
import numpy as np
import pytest
from gymnasium import spaces

import rlgrad
from rlgrad.agents import Reinforce
from rlgrad.updates import Ascent, PerHead, TrustRegion

SPACES = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)


def rollout(rng):
    ones = np.ones((8, 2), np.float32)
    none = np.zeros((8, 2), bool)
    observations, final = rng.normal(size=(2, 8, 2, 3)).astype(np.float32)
    actions, rewards = rng.integers(2, size=(8, 2)), rng.normal(size=(8, 2)).astype(np.float32)
    return rlgrad.Rollout(observations, actions, rewards, none, none, final, ones, ones, ones, ones)


def moved(update):
    """How far one update moves the policy's and the value's weights."""
    policy = rlgrad.make_policy(*SPACES, hidden_sizes=(8,), seed=0)
    heads = policy.network.trainable_variables, policy.value_network.trainable_variables
    before = [[v.numpy() for v in head] for head in heads]
    learner = rlgrad.Learner(Reinforce(num_envs=2, num_steps=8, update=update), policy, num_envs=2)
    learner.learn(rollout(np.random.default_rng(0)), 0.0, [0, 0])
    return [[v.numpy() - b for v, b in zip(head, old, strict=True)] for head, old in zip(heads, before, strict=True)]


def test_one_step_of_each_equals_one_step_of_both():
    sgd = Ascent(optimizer="sgd", learning_rate=0.1)
    for apart, together in zip(moved(PerHead(policy=sgd, value=sgd)), moved(sgd), strict=True):
        for a, b in zip(apart, together, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_more_steps_of_the_value_leave_the_policys_step_as_it_was():
    sgd = Ascent(optimizer="sgd", learning_rate=0.1)
    many = Ascent(optimizer="sgd", learning_rate=0.1, num_epochs=5, num_minibatches=2)
    (policy_one, value_one), (policy_many, value_many) = (moved(PerHead(policy=sgd, value=v)) for v in (sgd, many))
    for a, b in zip(policy_one, policy_many, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    assert np.abs(value_many[0]).sum() > 2 * np.abs(value_one[0]).sum()


def test_a_shared_trunk_is_refused():
    x = keras.Input((3,))
    h = keras.layers.Dense(4, name="trunk")(x)
    model = keras.Model(x, {"policy": keras.layers.Dense(2)(h), "value": keras.layers.Dense(1)(h)})
    policy = rlgrad.make_policy(*SPACES, model=model)
    with pytest.raises(ValueError, match="they share trunk/kernel, trunk/bias"):
        rlgrad.Learner(Reinforce(num_envs=2, update=PerHead()), policy, num_envs=2)


def test_without_a_value_it_is_refused():
    policy = rlgrad.make_policy(*SPACES, value=False)
    with pytest.raises(ValueError, match="no value is trained"):
        rlgrad.Learner(Reinforce(baseline="none", update=PerHead()), policy, num_envs=8)


def test_the_policy_of_reinforce_takes_one_step():
    with pytest.raises(ValueError, match="the policy takes one step"):
        Reinforce(update=PerHead(policy=Ascent(num_epochs=2)))


def test_a_value_has_no_divergence_to_measure_its_steps_by():
    with pytest.raises(ValueError, match=r"value is an update that can move a value, such as Ascent, got TrustRegion"):
        PerHead(value=TrustRegion())
    with pytest.raises(
        ValueError, match="policy is an update such as Ascent, NaturalGradient or TrustRegion, got PerHead"
    ):
        PerHead(policy=PerHead())


def test_a_bad_value_step_is_reported_and_the_policy_keeps_its_good_one():
    policy = rlgrad.make_policy(*SPACES, hidden_sizes=(8,), seed=0)

    class Bad(Reinforce):
        def credit(self, batch, now):
            return super().credit(batch, now) | {"value": batch.returns * np.float32(np.nan)}

    learner = rlgrad.Learner(Bad(num_envs=2, num_steps=8, update=PerHead()), policy, num_envs=2)
    before = policy.value_network.get_weights()
    with pytest.raises(rlgrad.NonFiniteError, match=r"value \(its credit"):
        learner.learn(rollout(np.random.default_rng(0)), 0.0, [0, 0])
    for a, b in zip(policy.value_network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.isfinite(w).all() for w in policy.get_weights())


def test_every_output_but_the_value_belongs_to_the_policy_and_each_head_renews_its_own_rate():
    first, second, third = (keras.Variable([0.0], name=name) for name in ("first", "second", "third"))
    policy, value = (Ascent(optimizer="sgd", learning_rate=rate) for rate in (0.1, 0.2))
    heads = PerHead(policy=policy, value=value)
    state = heads.build([first, second, third], 1, {"log_prob": [first], "value": [second], "zeal": [third]})
    assert [v.name for v in state.policy_variables] == ["first", "third"]
    assert [v.name for v in state.value_variables] == ["second"]
    for head in (state.policy, state.value):
        head.optimizer.learning_rate = 9.0
    state.renew()
    assert [float(head.optimizer.learning_rate) for head in (state.policy, state.value)] == pytest.approx([0.1, 0.2])
