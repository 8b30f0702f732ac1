"""TD3 and DDPG: credits against the losses that others differentiate, the delay, the noise, and the copies."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from helpers.continuous import (
    ACTION,
    assert_minus_gradient_of,
    at,
    credited_gradient,
    critics,
    drawn_batch,
    noise,
    other_weights,
    policy_for,
)
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.agents import DDPG, TD3
from rlgrad.data import Rollout
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.replay import Replay, Target
from rlgrad.updates import Ascent, PerHead

SMALL = Replay(capacity=64, batch_size=8, warmup=0, updates_per_step=1.0)


def losses(policy, slow, batch, after):
    """½ (y − q_i)² of each critic, and −q₁(s, μ(s)) of the actor through a frozen copy of the critic."""
    y = batch.rewards + batch.discounts * tf.reduce_min(critics(slow, batch.next_observations, after), axis=-1)
    told = tf.clip_by_value(batch.actions, -1.0, 1.0)
    q = critics(policy, batch.observations, told)
    of_critics = 0.5 * tf.reduce_sum((tf.stop_gradient(y)[:, None] - q) ** 2, axis=-1)
    frozen = at(policy, {key: tf.identity(v.value) for v, key in keys_of(policy)})
    of_actor = -critics(frozen, batch.observations, tf.tanh(policy.network(batch.observations)))[:, 0]
    return tf.reduce_sum(batch.weights * (of_critics + of_actor))


@pytest.mark.parametrize("jit", [None, pytest.param(True, marks=pytest.mark.xla)])
@mostly_slow(
    "agent", {"td3": TD3(), "much noise": TD3(smoothing=0.9, smoothing_clip=0.4), "ddpg": DDPG()}, quick=["much noise"]
)
def test_the_credited_gradient_is_that_of_the_losses(agent, jit):
    policy, batch = policy_for(agent), drawn_batch()
    placed = other_weights(policy)
    slow = at(policy, placed)
    after = tf.tanh(slow.network(batch.next_observations))
    if isinstance(agent, TD3):  # the second call that draws numbers: the first asked for the copy's action
        added = tf.clip_by_value(agent.smoothing * noise(batch, 2), -agent.smoothing_clip, agent.smoothing_clip)
        assert float(tf.reduce_max(tf.abs(added))) > 0.1
        after = tf.clip_by_value(after + added, -1.0, 1.0)
    got = credited_gradient(agent, policy, batch, placed, jit)
    assert_minus_gradient_of(lambda: losses(policy, slow, batch, after), policy, got)


def test_without_noise_and_with_one_critic_td3_is_ddpg():
    one = TD3(num_critics=1, smoothing=0.0)
    policy, batch = policy_for(one), drawn_batch()
    placed = other_weights(policy)
    both = [credited_gradient(agent, policy, batch, placed) for agent in (one, DDPG())]
    for mine, theirs in zip(*(b.values() for b in both), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


def rollout(seed, steps=4):
    rng = np.random.default_rng(seed)
    shape = (steps, 1)
    observations = rng.normal(size=(steps + 1, 1, 3)).astype(np.float32)
    never = np.zeros(shape, bool)
    return Rollout(
        observations=observations[:-1],
        actions=rng.normal(size=(*shape, 2)).astype(np.float32),
        rewards=rng.normal(size=shape).astype(np.float32),
        terminations=never,
        truncations=never,
        final_observations=observations[1:],
        log_probs=np.zeros(shape, np.float32),
        mask=np.ones(shape, np.float32),
    )


def weights(policy):
    actor = np.concatenate([v.numpy().ravel() for v in policy.network.trainable_variables])
    return actor, np.concatenate([v.numpy().ravel() for c in policy.critics for v in c.trainable_variables])


@mostly_slow("every", [1, 2, 3], quick=[2])
def test_the_policy_moves_at_every_so_many_steps_of_the_critics(every):
    update = PerHead(policy=Ascent(learning_rate=0.1), value=Ascent(learning_rate=0.1), policy_every=every)
    agent = TD3(num_steps=1, replay=SMALL, update=update)
    policy = policy_for(agent)
    learner = rlgrad.Learner(agent, policy, num_envs=1)
    for step in range(1, 8):
        actor, critic = weights(policy)
        numbers = learner.learn(rollout(step, steps=1), 0.1, np.array([step, 0], np.int32))
        new_actor, new_critic = weights(policy)
        assert np.abs(new_critic - critic).max() > 1e-3
        moved = np.abs(new_actor - actor).max()
        assert moved > 1e-3 if step % every == 0 else moved == 0.0
        assert np.isnan(numbers["gradient_norm"]) == (step % every != 0)
        assert np.isfinite(numbers["q_mean"])


def test_the_policy_climbs_the_critics_that_have_just_moved():
    """A step of each: the policy's own equals the one at critics that were moved beforehand."""
    update = PerHead(
        policy=Ascent(optimizer="sgd", learning_rate=0.3), value=Ascent(optimizer="sgd", learning_rate=0.5)
    )
    agent = DDPG(num_steps=1, replay=dataclasses.replace(SMALL, batch_size=1), update=update, target=Target(rate=1e-6))
    policy = policy_for(agent)
    learner = rlgrad.Learner(agent, policy, num_envs=1)
    before = policy.network.get_weights()
    played = rollout(3, steps=1)
    learner.learn(played, 0.1, np.array([1, 0], np.int32))
    x = tf.constant(played.observations[0])
    by_hand = policy_for(agent)
    for mine, theirs in zip(by_hand.critics, policy.critics, strict=True):
        mine.set_weights(theirs.get_weights())  # after their step
    variables = [v.value for v in by_hand.network.trainable_variables]
    with tf.GradientTape() as tape:
        q = critics(by_hand, x, tf.tanh(by_hand.network(x)))[0, 0]
    for start, gradient, end in zip(before, tape.gradient(q, variables), policy.network.get_weights(), strict=True):
        np.testing.assert_allclose(end, start + 0.3 * gradient, rtol=1e-4, atol=1e-5)


def test_the_copies_are_of_the_critics_and_of_the_policy():
    agent = TD3(num_steps=1, replay=SMALL, target=Target(rate=0.25))
    policy = policy_for(agent)
    learner = rlgrad.Learner(agent, policy, num_envs=1)
    followed = {key for _, key in keys_of(policy)}
    assert set(learner.target.placed) == followed
    before = {key: value.numpy() for key, value in learner.target.placed.items()}
    learner.learn(rollout(0, steps=1), 0.1, np.array([1, 0], np.int32))
    live = {key: v.numpy() for v, key in keys_of(policy)}
    for key, value in learner.target.placed.items():
        np.testing.assert_allclose(value, before[key] + 0.25 * (live[key] - before[key]), rtol=1e-5, atol=1e-6)


def test_actions_of_training_have_noise_in_half_widths_and_those_of_evaluation_none():
    agent = TD3(replay=dataclasses.replace(SMALL, warmup=0))
    policy = policy_for(agent)
    learner = rlgrad.Learner(agent, policy, num_envs=1)
    explorer = learner.acting(0.5, 1000)
    x = np.zeros((1, 3), np.float32)
    parameters = explorer.actor()(x)
    noise = explorer.distribution.noise(parameters, np.random.default_rng(0), 4000)
    stored = np.stack([explorer.distribution.pick(parameters, noise[i]) for i in range(4000)])[:, 0]
    np.testing.assert_allclose(stored.mean(0), parameters[0], atol=0.01)
    np.testing.assert_allclose(stored.std(0), 0.1, rtol=0.05)
    given = explorer.distribution.to_environment(stored)
    assert (given >= ACTION.low).all()
    assert (given <= ACTION.high).all()
    half = (ACTION.high - ACTION.low) / 2
    expected = ACTION.low + half * (1 + np.tanh(policy.network(x).numpy()[0]))
    np.testing.assert_allclose(policy.act(x[0]), expected, rtol=1e-5)
    np.testing.assert_allclose(policy.act(x[0], greedy=True), expected, rtol=1e-5)
