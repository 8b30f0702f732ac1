"""What an agent must not give, and gradients that are not finite: the error names output, slot, step and weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.agents import PPO
from rlgrad.envs import CartPole
from rlgrad.learning.fused import Fused
from rlgrad.rollouts import Rollout
from rlgrad.rollouts.compiled import CompiledCollector
from rlgrad.updates import Ascent, PerHead

OBSERVATIONS, ACTIONS = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
SHAPE = (4, 2)


class Given(rlgrad.Agent):
    """Credits what it is told to."""

    num_envs: int = 2
    num_steps: int | None = 4
    what: object = None

    def credit(self, batch, now):
        return self.what(batch, now)


def learner(agent, memory=None):
    policy = rlgrad.make_policy(OBSERVATIONS, ACTIONS, hidden_sizes=(4,), memory=memory, memory_size=3, seed=0)
    return rlgrad.Learner(agent, policy, num_envs=2)


def rollout(policy, **changes):
    numbers = np.zeros(SHAPE, np.float32)
    observations = np.random.default_rng(0).normal(size=(*SHAPE, 3)).astype(np.float32)
    filled = Rollout(
        observations=observations,
        actions=np.zeros(SHAPE, np.int64),
        rewards=numbers.copy(),
        terminations=np.zeros(SHAPE, bool),
        truncations=np.zeros(SHAPE, bool),
        final_observations=observations,
        log_probs=numbers,
        mask=np.ones(SHAPE, np.float32),
        initial_states=policy.initial_state(2),
    )
    return filled._replace(**changes)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda b, n: b.advantages, "Given.credit returns a dict"),
        (lambda b, n: {}, "Given.credit returns a dict"),
        (lambda b, n: {"log_prob": "much"}, r"Given.credit\['log_prob'\] is no number .*'much'"),
        (lambda b, n: {"log_prob": None}, r"Given.credit\['log_prob'\] is no number"),
        (lambda b, n: {"log_prob": b.advantages, "value": 1.0, "entrpy": 1.0}, "'entrpy' that does not exist"),
        (
            lambda b, n: {"log_prob": b.advantages[:, None]},
            r"\['log_prob'\] has the shape \(None, 1\).*\(None,\) is exp",
        ),
        (lambda b, n: {"log_prob": tf.cast(b.advantages, tf.float64)}, "is float64 where float32 .*tf.cast"),
        (lambda b, n: {"log_prob": b.advantages > 0}, "is bool where float32 is expected"),
    ],
)
def test_a_credit_of_another_kind_shape_or_dtype_is_refused_before_anything_runs(what, message):
    with pytest.raises(ValueError, match=message):
        learner(Given(what=what))


@mostly_slow("memory", [None, "gru"])
def test_a_credit_for_too_few_rows_is_refused_when_the_update_is_compiled(memory):
    learn = learner(Given(what=lambda b, n: {"log_prob": b.advantages[1:], "value": b.returns - n.value}), memory)
    with pytest.raises(
        ValueError, match=r"Given.credit\['log_prob'\] has the shape \(\d.*is expected: one number for each"
    ):
        learn.learn(rollout(learn.policy), 0.0, [0, 0])


def test_numbers_that_are_no_tensors_are_credits_too():
    numbers = {"log_prob": 1, "value": np.float64(0.5), "entropy": np.full(8, 0.1)}
    learn = learner(Given(what=lambda b, n: numbers if b.log_probs.shape[0] else {**numbers, "entropy": 0.1}))
    assert np.isfinite(learn.learn(rollout(learn.policy), 0.0, [0, 0])["gradient_norm"])


class Estimating(rlgrad.Agent):
    """Estimates what it is told to."""

    num_envs: int = 2
    num_steps: int | None = 4
    gives: object = None

    def estimate(self, rollout):
        return self.gives(super().estimate(rollout))

    def credit(self, batch, now):
        return {"log_prob": batch.advantages, "value": batch.returns - now.value}


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda e: tuple(e), r"Estimating.estimate returns rlgrad.Estimates"),
        (
            lambda e: e._replace(returns=e.returns[0]),
            r"estimate's returns has the shape \(2,\) where \(4, 2\) is expected",
        ),
        (lambda e: e._replace(advantages=tf.cast(e.advantages, tf.float64)), "estimate's advantages is float64"),
        (lambda e: e._replace(td_errors=0.0), r"estimate's td_errors has the shape \(\) where"),
    ],
)
def test_estimates_of_another_kind_shape_or_dtype_are_refused(gives, message):
    learn = learner(Estimating(gives=gives))
    with pytest.raises(ValueError, match=message):
        learn.learn(rollout(learn.policy), 0.0, [0, 0])


def not_finite_at(slot, step, memory):
    """A credit that is not a number for one row."""
    row = slot * SHAPE[0] + step if memory else step * SHAPE[1] + slot
    bad = np.zeros(SHAPE[::-1] if memory else SHAPE[0] * SHAPE[1], np.float32)
    bad.reshape(-1)[row] = np.nan

    def what(batch, now):
        whole = batch.log_probs.shape.is_compatible_with(bad.shape)
        return {"log_prob": batch.log_probs + (bad if whole else 0.0), "value": batch.returns - now.value}

    return what


@mostly_slow("memory", [None, "gru"])
def test_a_credit_that_is_not_finite_names_output_slot_step_and_weights(memory):
    learn = learner(Given(what=not_finite_at(slot=1, step=2, memory=memory)), memory)
    before = [v.numpy() for v in learn.policy.variables]
    message = r"through: log_prob \(its credit, nan in slot 1 at step 2; [\w/]*hidden_1/kernel"
    with pytest.raises(rlgrad.NonFiniteError, match=message) as caught:
        learn.learn(rollout(learn.policy), 0.0, [0, 0])
    assert "value" not in str(caught.value)
    for a, v in zip(before, learn.policy.variables, strict=True):
        np.testing.assert_array_equal(a, v.numpy())


def test_what_made_the_credit_not_finite_is_named_where_the_batch_has_it():
    agent = Given(what=lambda b, n: {"log_prob": b.advantages, "value": b.returns - n.value}, gae_lambda=0.0)
    learn = learner(agent)
    bad = rollout(learn.policy)
    bad.rewards[0, 1] = np.inf
    message = r"its credit, inf in slot 1 at step 0, where returns, advantages, td_errors of the batch are not finite"
    with pytest.raises(rlgrad.NonFiniteError, match=message):
        learn.learn(bad, 0.0, [0, 0])


@mostly_slow("per_head", [False, True])
def test_epoch_and_minibatch_are_named(per_head):
    ascent = Ascent(optimizer="sgd", learning_rate=1e30, num_epochs=3, num_minibatches=4)
    agent = PPO(num_envs=2, num_steps=4, update=PerHead(policy=ascent, value=ascent) if per_head else ascent)
    learn = learner(agent)
    good = rollout(learn.policy)
    good.rewards[:] = np.arange(8).reshape(SHAPE)
    with pytest.raises(rlgrad.NonFiniteError, match=r"at step [1-9]\d* of this update \(epoch \d, minibatch \d\)"):
        learn.learn(good, 0.0, [0, 0])


def test_an_output_that_is_not_finite_names_slot_and_step():
    policy_model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="only")])
    policy = rlgrad.make_policy(OBSERVATIONS, ACTIONS, model=policy_model, hidden_sizes=(4,))
    learn = rlgrad.Learner(Given(what=lambda b, n: {"log_prob": 1.0, "value": 0.0}), policy, num_envs=2)
    bad = rollout(policy)
    bad.observations[2, 1] = np.nan
    with pytest.raises(
        rlgrad.NonFiniteError, match=r"log_prob \(the output itself, nan in slot 1 at step 2.*only/kernel"
    ):
        learn.learn(bad, 0.0, [0, 0])


def test_a_fused_update_names_the_same():
    class Once(rlgrad.Agent):
        num_envs: int = 2
        num_steps: int | None = 4

        def credit(self, batch, now):
            bad = np.zeros(8, np.float32)
            bad[5] = np.inf
            whole = batch.log_probs.shape[0] == 8
            return {"log_prob": batch.log_probs + (bad if whole else 0.0), "value": batch.returns - now.value}

    collector = CompiledCollector(CartPole(), num_envs=2, num_steps=4)
    policy = rlgrad.make_policy(collector.observation_space, collector.action_space, hidden_sizes=(4,))
    fused = Fused(collector, rlgrad.Learner(Once(), policy, num_envs=2), size=2)
    with pytest.raises(rlgrad.NonFiniteError, match=r"log_prob \(its credit, inf in slot 1 at step 2; policy/"):
        fused.advance(2, 0, 1000, np.zeros((2, 2), np.int32))
