"""Agents with critics of continuous actions: policies with known weights, batches, credited gradients, and losses by tape."""

import copy
import math

import numpy as np
import tensorflow as tf
from gymnasium import spaces

import rlgrad
from rlgrad import random
from rlgrad.data import ReplayBatch
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.contract import batch_signature, dry_run
from rlgrad.learning.objective import PolicyObjective
from rlgrad.learning.trained_variables import connected

OBSERVATION = spaces.Box(-9.0, 9.0, (3,))
ACTION = spaces.Box(np.array([-2.0, -1.0], np.float32), np.array([2.0, 3.0], np.float32))
ROWS = 12


def traced(agent, action=ACTION, value=False):
    signature = batch_signature(
        tf.TensorSpec((None, 3), tf.float32), tf.TensorSpec((None, *action.shape), tf.float32), replay=True
    )
    return dry_run(agent, signature, value=value, event=action.shape)


def policy_for(agent, action=ACTION, value=False, **options):
    """A policy whose weights, biases too, are random numbers of a size that no activation is linear at."""
    needs = traced(agent, action, value).actor_critic
    options = {"hidden_sizes": (6,), "activation": "tanh", "seed": 1} | options
    made = rlgrad.make_policy(OBSERVATION, action, value=value, actor_critic=needs, scalars=agent.scalars, **options)
    rng = np.random.default_rng(0)
    for variable in made.trainable_variables:
        variable.assign(rng.normal(scale=0.7, size=variable.shape))
    return made


def drawn_batch(seed=0, action=ACTION, **changes):
    rng = np.random.default_rng(seed)
    shape = action.shape
    weights = rng.random(ROWS)
    weights[::4] = 0.0  # rows that do not count
    rows = {
        "observations": rng.normal(size=(ROWS, 3)),
        "actions": rng.normal(scale=0.6, size=(ROWS, *shape)),
        "log_probs": np.zeros(ROWS),
        "rewards": rng.normal(size=ROWS),
        "discounts": np.where(rng.random(ROWS) < 0.3, 0.0, 0.9),
        "next_observations": rng.normal(size=(ROWS, 3)),
        "weights": weights,
    } | changes
    rows = {name: tf.constant(x, tf.float32) for name, x in rows.items()}
    seeds = tf.constant(rng.integers(0, 2**30, (ROWS, 2)), tf.int32)
    return ReplayBatch(**rows, seeds=seeds, progress=tf.constant(0.3))


def other_weights(policy, seed=5):
    """Weights that stand in for the slow copies, by key."""
    rng = np.random.default_rng(seed)
    return {
        key: tf.constant(rng.normal(scale=0.7, size=v.shape), tf.float32) for v, key in keys_of(policy) if v.trainable
    }


def credited_gradient(agent, policy, batch, placed, jit=None):
    """By key, as the learner computes it."""
    run = traced(agent, value=policy.has_value)
    variables, _ = connected(agent, policy, run.credited)
    objective = PolicyObjective(agent, policy, batch, run.known, run.credited, variables, run.measured, placed)
    return tf.function(lambda: objective.gradient()[0], jit_compile=jit, autograph=False)()


def at(policy, placed):
    """A second policy, with these weights."""
    twin = copy.deepcopy(policy)
    for variable, key in keys_of(twin):
        if key in placed:
            variable.assign(placed[key])
    return twin


def noise(batch, call, size=2):
    """The numbers of `now.noise`, at its how-manieth call; 0: those of the action whose gradient is taken."""
    return random.normal(random.fold_in(batch.seeds, call), (size,))


def sample(policy, x, epsilon):
    """u before the tanh, a = tanh u, and log π(a|x) per half-width, as the authors' code computes them."""
    mean, log_std = tf.split(policy.network(x), 2, axis=-1)
    log_std = tf.clip_by_value(log_std, -20.0, 2.0)
    u = mean + tf.exp(log_std) * epsilon
    a = tf.tanh(u)
    normal = -0.5 * epsilon**2 - log_std - 0.5 * math.log(2 * math.pi)
    slope = tf.math.log1p(-(tf.tanh(tf.cast(u, tf.float64)) ** 2))  # in float32 the difference would lose its digits
    return u, a, tf.reduce_sum(normal - tf.cast(slope, tf.float32), axis=-1)


def critics(policy, x, told):
    """(M, E), as others call two models."""
    return tf.concat([critic([x, told]) for critic in policy.critics], axis=1)


def assert_minus_gradient_of(loss, policy, credited):
    """Compare with automatic differentiation of a loss, which is descended where credits are climbed."""
    keyed = [(variable, key) for variable, key in keys_of(policy) if key in credited]
    assert [key for _, key in keyed] == list(credited)
    with tf.GradientTape() as tape:
        value = loss()
    for (variable, key), theirs in zip(keyed, tape.gradient(value, [v.value for v, _ in keyed]), strict=True):
        largest = float(tf.reduce_max(tf.abs(theirs)))
        assert largest > 1e-5, f"{variable.path} has nothing to compare"
        np.testing.assert_allclose(credited[key], -theirs, rtol=1e-4, atol=2e-6 * max(1.0, largest), err_msg=key)
