"""Updates in one compiled call are those that are made one by one."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.functionals import Clock

import rlgrad
from rlgrad.agents import A2C, NPG, PPO, TRPO, Reinforce
from rlgrad.envs import CartPole, Pendulum
from rlgrad.learning.fused import Fused
from rlgrad.learning.learner import Learner
from rlgrad.learning.nonfinite import NonFiniteError
from rlgrad.policies.build import make_policy
from rlgrad.rollouts.compiled import CompiledCollector
from rlgrad.updates import Ascent

TOTAL = 10_000
EIGHT = {"num_envs": 8, "num_steps": 16}


class Tanh(rlgrad.Agent):
    """A custom agent, as users write one."""

    temperature: float = 2.0

    def credit(self, batch, now):
        return {"log_prob": tf.tanh(batch.advantages / self.temperature), "value": batch.returns - now.value}


AGENTS = {
    "reinforce": Reinforce(num_envs=4),
    "a2c": A2C(**EIGHT, normalize_observations=True, scale_rewards=True),
    "ppo": PPO(**EIGHT, clip_schedule="linear", update=Ascent(learning_rate=3e-3, num_epochs=2, num_minibatches=4)),
    "npg": NPG(**EIGHT),
    "trpo": TRPO(**EIGHT),
    "custom": Tanh(**EIGHT),
}


def parts(agent, functional=CartPole, memory=None, **options):
    collector = CompiledCollector(
        functional(),
        num_envs=agent.num_envs,
        num_steps=agent.num_steps,
        max_episode_steps=20 if agent.num_steps is None else None,
    )
    policy = make_policy(
        collector.observation_space,
        collector.action_space,
        value=True,
        hidden_sizes=(8,),
        memory=memory,
        memory_size=4,
        normalize_observations=agent.normalize_observations,
        **options,
    )
    return collector, Learner(agent, policy, num_envs=agent.num_envs)


def one_by_one(agent, count, shuffles, **options):
    collector, learner = parts(agent, **options)
    metrics, taken = [], 0
    for shuffle in shuffles[:count]:
        rollout = collector.collect(learner.policy)
        metrics.append(learner.learn(rollout, min(1.0, taken / TOTAL), shuffle))
        taken += int(rollout.mask.sum())
    return learner, metrics, taken, collector.drain_episodes()


def fused(agent, count, shuffles, size, **options):
    collector, learner = parts(agent, **options)
    program, made, taken = Fused(collector, learner, size), [], 0
    while len(made) < count:
        made += program.advance(count - len(made), taken, TOTAL, shuffles[len(made) :])
        taken = sum(update.timesteps for update in made)
    return learner, [update.metrics for update in made], taken, collector.drain_episodes()


def assert_same(agent, **options):
    shuffles = np.random.default_rng(0).integers(-(2**31), 2**31, (5, 2)).astype(np.int32)
    expected, metrics, taken, episodes = one_by_one(agent, 5, shuffles, **options)
    learner, others, steps, finished = fused(agent, 5, shuffles, size=3, **options)
    assert learner.traces == 1
    assert steps == taken
    assert [(e.return_, e.length) for e in finished] == [(e.return_, e.length) for e in episodes]
    for a, b in zip(expected.policy.variables, learner.policy.variables, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-4, atol=1e-6, err_msg=a.path)
    for a, b in zip(metrics, others, strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-5)
    return learner


MARKS = {"ppo": ()}  # the others are slow only because each compiles


@pytest.mark.parametrize(
    "agent", [pytest.param(v, id=k, marks=MARKS.get(k, (pytest.mark.slow, pytest.mark.xla))) for k, v in AGENTS.items()]
)
def test_weights_metrics_and_episodes_are_those_of_updates_one_by_one(agent):
    assert_same(agent)


@pytest.mark.slow
def test_with_continuous_actions():
    assert_same(PPO(**EIGHT, update=Ascent(num_epochs=2, num_minibatches=2)), functional=Pendulum)


@pytest.mark.slow
def test_with_memory():
    assert_same(A2C(**EIGHT), memory="gru")


@pytest.fixture(scope="module")
def slower():
    """A program whose learning rate falls to zero."""
    agent = A2C(**EIGHT, update=Ascent(learning_rate=0.5, learning_rate_schedule="linear"))
    return Fused(*parts(agent), size=8)


def test_updates_end_where_another_one_could_pass_the_total(slower):
    made = slower.advance(8, TOTAL - 300, TOTAL, np.zeros((8, 2), np.int32))
    assert [update.timesteps for update in made] == [128, 128]


def test_progress_is_the_share_of_the_steps_taken(slower):
    made = slower.advance(2, 5000, TOTAL, np.zeros((2, 2), np.int32))
    assert [update.metrics["learning_rate"] for update in made] == pytest.approx([0.25, 0.5 * (1 - 0.5128)])


@pytest.mark.slow
@pytest.mark.xla
def test_a_model_that_xla_cannot_compile_trains_all_the_same(caplog):
    """A string operation has no XLA kernel."""

    class Strange(keras.layers.Layer):
        def call(self, x):
            length = tf.strings.length(tf.strings.as_string(x[:1, :1]))
            return x + 0.0 * tf.cast(length, x.dtype)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(Strange()(inputs)))
    agent = Reinforce(num_envs=2, baseline="none")
    with caplog.at_level(logging.WARNING, logger="rlgrad"):
        collector = CompiledCollector(CartPole(), num_envs=2, max_episode_steps=10)
        policy = make_policy(collector.observation_space, collector.action_space, model=model)
        learner = Learner(agent, policy, num_envs=2)
        before = [v.numpy() for v in policy.trainable_variables]
        Fused(collector, learner, size=2).advance(2, 0, TOTAL, np.zeros((2, 2), np.int32))
    assert "plain graph" in caplog.text
    assert any((a != v.numpy()).any() for a, v in zip(before, policy.trainable_variables, strict=True))


class Broken(Clock):
    """A reward that is not a number in the eighth step of an episode."""

    def __init__(self):
        super().__init__(length=50, bad_at=8)


@pytest.mark.slow
def test_a_reward_that_is_not_finite_stops_at_the_update_that_met_it_and_names_slot_and_step():
    agent = A2C(num_envs=2, num_steps=3)
    collector, learner = parts(agent, functional=Broken)
    program = Fused(collector, learner, size=8)
    good = program.advance(2, 0, TOTAL, np.zeros((2, 2), np.int32))
    before = [v.numpy() for v in learner.policy.trainable_variables]
    assert len(good) == 2
    with pytest.raises(FloatingPointError, match="slot 0 gave a non-finite reward at step 1"):
        program.advance(6, 6, TOTAL, np.zeros((6, 2), np.int32))
    for a, v in zip(before, learner.policy.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, v.numpy())


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_names_the_output():
    class Overflowing(rlgrad.Agent):
        def credit(self, batch, now):
            return {"log_prob": batch.advantages * 1e38 * 1e38, "value": batch.returns - now.value}

    collector, learner = parts(Overflowing(**EIGHT))
    with pytest.raises(NonFiniteError, match=r"log_prob \(its credit"):
        Fused(collector, learner, size=4).advance(4, 0, TOTAL, np.zeros((4, 2), np.int32))
