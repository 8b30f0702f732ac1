"""DroQ and CrossQ: critics in training mode, against losses of hand-written tapes, and against SAC."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.continuous import (
    OBSERVATION,
    assert_minus_gradient_of,
    at,
    credited_gradient,
    critics,
    drawn_batch,
    noise,
    other_weights,
    policy_for,
    sample,
    traced,
)

import rlgrad
from rlgrad import random
from rlgrad.agents import DQN, SAC, CrossQ, DroQ
from rlgrad.core import keras_internals
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.learner import Learner
from rlgrad.learning.objective import PolicyObjective
from rlgrad.learning.trained_variables import connected
from rlgrad.policies import CriticNetwork
from rlgrad.replay import Replay
from rlgrad.updates import Ascent

DROPPING = CriticNetwork(layer_norm=True, dropout=0.4)


def in_training(policy, x, told, batch, number):
    """(M, E) of the numbered pass in training mode: 0 is that of now.q, and the others those of each call of a method."""
    seed = random.fold_in(random.fold_in(batch.seeds[0], -1), number)
    states = keras_internals.seed_states(policy.with_critics)
    placed = [(state, tf.cast(random.fold_in(seed, i), state.dtype)) for i, state in enumerate(states)]
    with keras_internals.values_in_place(placed):
        return tf.concat([critic([x, told], training=True) for critic in policy.critics], axis=1)


def frozen(policy):
    return at(policy, {key: tf.identity(v.value) for v, key in keys_of(policy)})


def of_policy(policy, still, batch, slope):
    """The losses of the actor and the temperature, with the critics' values that the actor climbs."""
    log_alpha = policy.scalars["log_alpha"].value
    _, action, log_prob = sample(policy, batch.observations, noise(batch, 0))
    of_actor = tf.stop_gradient(tf.exp(log_alpha)) * log_prob - tf.reduce_min(slope(still, action), axis=-1)
    return of_actor - log_alpha * tf.stop_gradient(log_prob - 2.0)


def squared(batch, following, log_after, alpha, q):
    y = tf.stop_gradient(batch.rewards + batch.discounts * (tf.reduce_min(following, axis=-1) - alpha * log_after))
    return 0.5 * tf.reduce_sum((y[:, None] - q) ** 2, axis=-1)


def test_droq_credits_the_losses_of_critics_that_drop_units_in_every_pass():
    agent = DroQ(critic=DROPPING)
    policy, batch = policy_for(agent), drawn_batch()
    placed = other_weights(policy)
    slow, still = at(policy, placed), frozen(policy)
    x, after = batch.observations, batch.next_observations
    alpha = float(tf.exp(policy.scalars["log_alpha"].value))

    def loss():
        _, action, log_after = sample(policy, after, noise(batch, 1))
        following = in_training(slow, after, action, batch, 2)
        q = in_training(policy, x, tf.tanh(batch.actions), batch, 0)
        slope = of_policy(policy, still, batch, lambda p, a: in_training(p, x, a, batch, 3))
        return tf.reduce_sum(batch.weights * (squared(batch, following, log_after, alpha, q) + slope))

    assert_minus_gradient_of(loss, policy, credited_gradient(agent, policy, batch, placed))


def test_droq_that_drops_nothing_is_sac_with_normalized_critics():
    critic = CriticNetwork(layer_norm=True)
    both = [DroQ(critic=critic), SAC(critic=critic)]
    policies = [policy_for(agent) for agent in both]
    batch, placed = drawn_batch(), other_weights(policies[0])
    mine, theirs = (credited_gradient(a, p, batch, placed) for a, p in zip(both, policies, strict=True))
    assert mine.keys() == theirs.keys()
    for key, gradient in mine.items():
        np.testing.assert_array_equal(gradient, theirs[key])


def crossq_policy(agent):
    policy, rng = policy_for(agent), np.random.default_rng(3)
    for variable in (v for critic in policy.critics for v in critic.non_trainable_variables):
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return policy


def objective_of(agent, policy, batch):
    run = traced(agent)
    variables, _ = connected(agent, policy, run.credited)
    return PolicyObjective(agent, policy, batch, run.known, run.credited, variables, run.measured)


@pytest.mark.parametrize("norm", ["batch", pytest.param("renorm", marks=pytest.mark.slow)])
def test_crossq_credits_the_losses_of_one_joint_pass_in_training_mode(norm):
    agent = CrossQ(critic=CriticNetwork(batch_norm=norm))
    policy, batch = crossq_policy(agent), drawn_batch()
    still, x = frozen(policy), tf.concat([batch.observations, batch.next_observations], axis=0)
    alpha = float(tf.exp(policy.scalars["log_alpha"].value))
    beside = batch._replace(seeds=random.fold_in(batch.seeds, -2))
    _, action, log_after = sample(policy, batch.next_observations, noise(beside, 1))

    def loss():
        told = tf.concat([tf.tanh(batch.actions), tf.stop_gradient(action)], axis=0)
        q, following = tf.split(in_training(policy, x, told, batch, 0), 2, axis=0)
        slope = of_policy(policy, still, batch, lambda p, a: critics(p, batch.observations, a))
        return tf.reduce_sum(batch.weights * (squared(batch, following, log_after, alpha, q) + slope))

    before = [v.numpy() for v in policy.variables]
    with keras.StatelessScope():  # the losses' own pass assigns
        got = credited_gradient(agent, policy, batch, None)
        assert_minus_gradient_of(loss, policy, got)
    # The statistics that the learner is to assign are those of the joint pass.
    found = objective_of(agent, policy, batch).statistics()
    told = tf.concat([tf.tanh(batch.actions), action], axis=0)
    for critic in policy.critics:
        values = [tf.constant(v.numpy()) for v in critic.non_trainable_variables]
        trained = [v.value for v in critic.trainable_variables]
        _, after = critic.stateless_call(trained, values, [x, told], training=True)
        mine = {id(variable): value for variable, value in found}
        for variable, value in zip(critic.non_trainable_variables, after, strict=True):
            np.testing.assert_allclose(mine[id(variable)], value, rtol=1e-5, atol=1e-6, err_msg=variable.path)
    assert all(np.array_equal(v.numpy(), b) for v, b in zip(policy.variables, before, strict=True))


def test_one_pass_for_both_halves_matters():
    """With batch statistics q of a row depends on the rows beside it; at inference it does not."""
    agent = CrossQ()
    policy, batch = crossq_policy(agent), drawn_batch()
    other = batch._replace(next_observations=batch.next_observations + 3.0)
    one, two = (objective_of(agent, policy, b).linearize().outputs["q"] for b in (batch, other))
    assert np.abs(one - two).max() > 0.01
    inference = [
        policy.with_critics({"observations": b.observations, "actions": b.actions})["q"] for b in (batch, other)
    ]
    np.testing.assert_array_equal(*inference)


def test_layers_for_training_mode_are_refused_elsewhere():
    for critic in (CriticNetwork(dropout=0.1), CriticNetwork(batch_norm="batch")):
        with pytest.raises(ValueError, match="at inference, where nothing is dropped"):
            SAC(critic=critic)
    with pytest.raises(ValueError, match="dropout is at least 0, below 1"):
        CriticNetwork(dropout=1.0)
    with pytest.raises(ValueError, match="widths from 1 to"):
        CriticNetwork(hidden_sizes=(0,))


def test_now_beside_needs_rows():
    class Forgetful(SAC):
        training_mode = True

        def critic_credit(self, batch, now):
            return now.beside.q - now.q

    with pytest.raises(ValueError, match=r"override beside\(batch, now\)"):
        traced(Forgetful())


def test_layers_of_critics_stand_where_their_authors_have_them(caplog):
    """Dense, dropout, layer normalization, activation; and batch normalization of the input and after each activation."""
    kinds = {}
    for name, agent in (("droq", DroQ(critic=DROPPING)), ("crossq", CrossQ())):
        policy = policy_for(agent, activation="relu")
        kinds[name] = [
            type(layer).__name__
            for layer in policy.critics[0].layers
            if type(layer).__name__ not in ("InputLayer", "Flatten")
        ]
    assert kinds["droq"] == ["Concatenate", "Dense", "Dropout", "LayerNormalization", "Activation", "Dense"]
    assert kinds["crossq"] == ["Concatenate", "BatchNormalization", "Dense", "BatchNormalization", "Dense"]
    assert not caplog.records  # no warning that they always run as at inference


def test_widths_of_critics_are_their_own():
    policy = policy_for(CrossQ(critic=CriticNetwork(hidden_sizes=(7, 5), batch_norm="batch")))
    assert [w.shape[1] for w in policy.critics[0].trainable_variables if len(w.shape) == 2] == [7, 5, 1]
    assert policy.network.trainable_variables[0].shape[1] == 6


def test_the_learner_moves_the_statistics_after_the_weights_and_not_in_a_step_that_is_left_out():
    agent = CrossQ(replay=Replay(capacity=16, batch_size=4, warmup=0), update=Ascent())
    policy, batch = crossq_policy(agent), drawn_batch()
    learner = Learner(agent, policy, num_envs=1, xla=False)
    step = tf.function(lambda rows: learner._update_once(rows, tf.zeros(2, tf.int32))[0], autograph=False)
    still = [v for critic in policy.critics for v in critic.non_trainable_variables]
    expected = {id(variable): value.numpy() for variable, value in objective_of(agent, policy, batch).statistics()}
    before = [v.numpy() for v in policy.variables]
    assert step(batch._replace(rewards=batch.rewards * np.nan))["nonfinite_step"] >= 0
    for variable, value in zip(policy.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert step(batch)["nonfinite_step"] < 0
    assert len(still) == len(expected) == 8
    for variable in still:
        np.testing.assert_allclose(variable, expected[id(variable)], rtol=1e-5)
    assert any(np.any(v.numpy() != b) for v, b in zip(policy.variables, before, strict=True) if v.trainable)


def test_a_training_mode_without_critics_is_refused():
    class InTraining(DQN):
        training_mode = True

    policy = rlgrad.make_policy(
        OBSERVATION, spaces.Discrete(3), action_values=InTraining().action_values, hidden_sizes=(4,)
    )
    with pytest.raises(ValueError, match="training_mode is of critics of actions, and it has none"):
        Learner(InTraining(), policy, num_envs=1)


@pytest.mark.slow
def test_critics_of_the_users_own_are_learned_in_training_mode(tmp_path):
    def build():
        inputs = [keras.Input((3,)), keras.Input((1,))]
        x = keras.layers.BatchNormalization()(keras.layers.Concatenate()(inputs))
        x = keras.layers.Dropout(0.2)(keras.layers.Dense(8, "relu")(x))
        return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.BatchNormalization(renorm=True)(x)))

    agent = CrossQ(replay=Replay(capacity=200, batch_size=8, warmup=8))
    options = {"critic_model": build, "hidden_sizes": (4,), "evaluation_episodes": 0, "verbose": False}
    run = rlgrad.train(agent, "Pendulum-v1", total_timesteps=60, run_dir=tmp_path / "run", **options)
    moved = [v for critic in run.policy.critics for v in critic.non_trainable_variables if "moving_mean" in v.path]
    assert len(moved) == 4
    assert all(np.any(v.numpy() != 0.0) for v in moved)
    again = rlgrad.load(tmp_path / "run")
    for mine, theirs in zip(run.policy.variables, again.policy.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)
