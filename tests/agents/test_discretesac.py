"""Discrete SAC's credits against the three losses that others differentiate, its masks, and its temperature."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.continuous import assert_minus_gradient_of, at, other_weights
from helpers.counting import QUICK

import rlgrad
from rlgrad.agents import A2C, DiscreteSAC
from rlgrad.data import ReplayBatch
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.asking import Now
from rlgrad.learning.contract import batch_signature, dry_run
from rlgrad.learning.objective import PolicyObjective
from rlgrad.learning.trained_variables import connected
from rlgrad.spaces.masks import MASK

ROWS, ACTIONS = 12, 4
PLAIN = spaces.Box(-9.0, 9.0, (3,))
MASKED = spaces.Dict({"observation": PLAIN, MASK: spaces.Box(0, 1, (ACTIONS,), np.int8)})


def traced(agent, spec):
    signature = batch_signature(spec, tf.TensorSpec((None,), tf.int64), replay=True)
    return dry_run(agent, signature, value=False, num_actions=ACTIONS)


def policy_for(agent, space=PLAIN):
    specs = rlgrad.policies.build.specs_for(space, spaces.Discrete(ACTIONS))[0]
    options = {"actor_critic": traced(agent, specs).actor_critic, "scalars": agent.scalars, "hidden_sizes": (6,)}
    made = rlgrad.make_policy(space, spaces.Discrete(ACTIONS), value=False, seed=1, **options)
    rng = np.random.default_rng(0)
    for variable in made.trainable_variables:
        variable.assign(rng.normal(scale=0.7, size=variable.shape))
    return made


def drawn_batch(mask=None):
    rng = np.random.default_rng(4)
    x, after = (rng.normal(size=(ROWS, 3)).astype(np.float32) for _ in range(2))
    weights = rng.random(ROWS)
    weights[::4] = 0.0
    numbers = {
        "log_probs": np.zeros(ROWS),
        "rewards": rng.normal(size=ROWS),
        "discounts": np.where(rng.random(ROWS) < 0.3, 0.0, 0.9),
        "weights": weights,
    }
    shown = (lambda y: tf.constant(y)) if mask is None else lambda y: {"observation": tf.constant(y), MASK: mask}
    return ReplayBatch(
        **{name: tf.constant(each, tf.float32) for name, each in numbers.items()},
        observations=shown(x),
        next_observations=shown(after),
        actions=tf.constant(rng.integers(0, 2, ROWS)),
        seeds=tf.zeros((ROWS, 2), tf.int32),
        progress=tf.constant(0.3),
    )


def credited_gradient(agent, policy, batch, placed, jit=None):
    run = traced(agent, policy.observation_spec)
    variables, _ = connected(agent, policy, run.credited)
    objective = PolicyObjective(agent, policy, batch, run.known, run.credited, variables, run.measured, placed)
    return tf.function(lambda: objective.gradient()[0], jit_compile=jit, autograph=False)()


def smallest(policy, x):
    return tf.reduce_min(tf.stack([critic(x) for critic in policy.critics], axis=1), axis=1)


@pytest.mark.parametrize(
    ("masked", "jit"),
    [(False, None), (True, None), pytest.param(True, True, marks=[pytest.mark.xla, pytest.mark.slow])],
)
def test_the_credited_gradient_is_that_of_the_three_losses(masked, jit):
    """Christodoulou (2019), equations 10 to 12, with log-probabilities of the actions that are allowed."""
    agent, stop = DiscreteSAC(entropy_share=0.7), tf.stop_gradient
    mask = np.tile([1, 1, 1, 1], (ROWS, 1)).astype(np.int8)
    if masked:
        mask[:, 2], mask[::2, 3] = 0, 0  # the actions taken are 0 and 1
    policy, batch = policy_for(agent, MASKED if masked else PLAIN), drawn_batch(tf.constant(mask) if masked else None)
    placed = other_weights(policy)
    slow = at(policy, placed)
    x, after = ((o["observation"] if masked else o) for o in (batch.observations, batch.next_observations))
    log_alpha = policy.scalars["log_alpha"].value
    allowed = tf.constant(mask, tf.float32)

    def distribution(x):
        log_pi = tf.nn.log_softmax(tf.where(mask > 0, policy.network(x), -1e9))
        return allowed * tf.exp(log_pi), tf.where(mask > 0, log_pi, 0.0)

    def loss():
        alpha = stop(tf.exp(log_alpha))
        pi, log_pi = distribution(after)
        y = batch.rewards + batch.discounts * tf.reduce_sum(pi * (smallest(slow, after) - alpha * log_pi), axis=-1)
        taken = tf.one_hot(batch.actions, ACTIONS)
        q = tf.stack([tf.reduce_sum(taken * critic(x), axis=-1) for critic in policy.critics], axis=1)
        of_critics = 0.5 * tf.reduce_sum((stop(y)[:, None] - q) ** 2, axis=-1)
        pi, log_pi = distribution(x)
        of_actor = tf.reduce_sum(pi * (alpha * log_pi - stop(smallest(policy, x))), axis=-1)
        kept = 0.7 * np.log(mask.sum(axis=-1))
        of_temperature = -log_alpha * stop(tf.reduce_sum(pi * log_pi, axis=-1) + kept)
        return tf.reduce_sum(batch.weights * (of_critics + of_actor + of_temperature))

    assert_minus_gradient_of(loss, policy, credited_gradient(agent, policy, batch, placed, jit))


def test_critics_beside_a_policy_say_a_value_of_each_action():
    agent = DiscreteSAC(num_critics=3)
    policy, batch = policy_for(agent), drawn_batch()
    run = traced(agent, policy.observation_spec)
    assert run.credited == ("q", "logits", "log_alpha")
    assert not run.action_values
    now = Now({}, policy, batch.seeds, {key: v.value for v, key in keys_of(policy)})
    here = now.at(batch.observations, batch.actions)
    values = tf.stack([critic(batch.observations) for critic in policy.critics], axis=1)
    np.testing.assert_allclose(here.q_values, values, rtol=1e-6)
    np.testing.assert_allclose(now.target(batch.observations).q_values, values, rtol=1e-6)
    np.testing.assert_allclose(here.q, tf.gather(values, batch.actions, batch_dims=1, axis=2), rtol=1e-6)
    np.testing.assert_allclose(here.logits, policy.network(batch.observations), rtol=1e-6)


def test_it_is_for_discrete_actions_alone():
    with pytest.raises(ValueError, match=r"DiscreteSAC learns the logits of each action.*not Discrete"):
        rlgrad.train("discrete-sac", "Pendulum-v1", total_timesteps=16)
    with pytest.raises(ValueError, match="entropy_share is between 0 and 1"):
        DiscreteSAC(entropy_share=1.5)


def test_logits_can_be_credited_on_rollouts_too():
    """(1[a] − π) Â on the logits is Â on log π, for any agent."""

    class OnLogits(A2C):
        def credit(self, batch, now):
            taken = tf.one_hot(batch.actions, now.logits.shape[-1])
            logits = batch.advantages[:, None] * (taken - tf.nn.softmax(now.logits))
            return {"logits": logits, "value": batch.returns - now.value}

    class OnLogProb(A2C):
        def credit(self, batch, now):
            return {"log_prob": batch.advantages, "value": batch.returns - now.value}

    ends = [rlgrad.train(agent(), "CartPole-v1", total_timesteps=60, **QUICK) for agent in (OnLogits, OnLogProb)]
    for mine, theirs in zip(*(run.policy.get_weights() for run in ends), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
