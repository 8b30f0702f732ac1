"""The credits of an episode, step by step, are those that the agent's update would have of it."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

import rlgrad
from rlgrad.agents import A2C, C51, DQN, PPO, PQN, SAC, DiscreteSAC, Reinforce, StreamAC, StreamSARSA
from rlgrad.diagnostics.credited_steps import ERROR
from rlgrad.learning import step_credits
from rlgrad.learning.asking import Now
from rlgrad.playback.viewer import Transition
from rlgrad.policies.actions import ActorCritic

RNG = np.random.default_rng(0)
SEEN = gymnasium.spaces.Box(-1, 1, (3,))
CHOICES, CONTINUOUS = gymnasium.spaces.Discrete(2), gymnasium.spaces.Box(-2, 2, (2,))
SMALL = {"hidden_sizes": (4,), "seed": 0}


def steps(count=5, terminated=True, space=CHOICES):
    """An episode of random observations and actions, and rewards 1, 2, 3, …"""
    space.seed(0)
    seen = RNG.normal(size=(count + 1, 3)).astype(np.float32)
    return [
        Transition(seen[t], space.sample(), t + 1.0, terminated and t == count - 1, seen[t + 1]) for t in range(count)
    ]


def learner(agent, space=CHOICES, **options):
    if isinstance(agent, DiscreteSAC | SAC):
        kind = "categorical" if isinstance(agent, DiscreteSAC) else "reparameterized"
        options |= {"actor_critic": ActorCritic(agent.num_critics, kind), "scalars": agent.scalars, "value": False}
    elif isinstance(agent, C51 | DQN | PQN | StreamSARSA):
        options |= {"action_values": agent.action_values}
    policy = rlgrad.make_policy(SEEN, space, **SMALL, **options)
    return rlgrad.Learner(agent, policy, num_envs=agent.num_envs)


def test_a2c_credits_the_advantages_and_reinforce_the_returns():
    of = learner(A2C(gamma=0.9, gae_lambda=1.0, num_steps=5))
    played = steps()
    found = step_credits.of_episode(of, played)
    returns = [1.0 + 0.9 * (2.0 + 0.9 * (3.0 + 0.9 * (4.0 + 0.9 * 5.0)))]
    for reward in (1.0, 2.0, 3.0, 4.0):
        returns.append((returns[-1] - reward) / 0.9)
    values = of.policy.value(np.stack([step.observation for step in played])).numpy()
    np.testing.assert_allclose(found.returns, returns, rtol=1e-5)
    np.testing.assert_allclose(found.values, values, rtol=1e-5)
    np.testing.assert_allclose(found.credits["log_prob"], returns - values, rtol=1e-4)
    np.testing.assert_allclose(found.credits["value"], returns - values, rtol=1e-4)
    alone = step_credits.of_episode(learner(Reinforce(gamma=0.9, baseline="none"), value=False), played)
    np.testing.assert_allclose(alone.credits["log_prob"], returns, rtol=1e-4)
    assert alone.values is None


def returns_of(of, played):
    """Without the credits, which take longer."""
    rollout = step_credits._rollout(of, played)
    if of.rehearsal is None:
        batch = of.rows_of(rollout, tf.constant(1.0))
    else:
        batch = of.scaled(step_credits._as_drawn(of, rollout, 1.0))
    now = Now({}, of.policy, step_credits._seeds(len(played)))
    return step_credits._returns(of, rollout, of.objective(batch), now)


def test_an_episode_that_was_cut_goes_on_with_what_the_networks_say_of_its_last_observation():
    """Its value; of actions' values the largest; of critics the mean, for a policy of choices their expectation."""

    def said(of, after):
        policy = of.policy
        heads = policy(after)
        if "value" in heads:
            return heads["value"]
        if not policy.critics:
            return tf.reduce_max(heads["policy"], axis=-1)
        if policy.critics_of_actions:
            each = tf.reduce_mean(policy.critic_values(after, None), axis=1)
            return tf.reduce_sum(tf.nn.softmax(heads["policy"]) * each, axis=-1)
        for critic in policy.critics:  # whose values do not depend on which action is drawn
            kernel = critic.trainable_variables[0]
            kernel.assign(tf.concat([kernel[:3], tf.zeros_like(kernel[3:])], axis=0))
        return tf.reduce_mean(policy.critic_values(after, np.zeros((1, 2), np.float32)), axis=1)

    for agent in (A2C(gamma=0.5), DQN(gamma=0.5), DiscreteSAC(gamma=0.5), SAC(gamma=0.5)):
        space = CONTINUOUS if type(agent) is SAC else CHOICES
        of, played = learner(agent, space), steps(3, terminated=False, space=space)
        for variable in of.policy.trainable_variables:
            variable.assign(np.random.default_rng(variable.shape.rank).normal(size=variable.shape))
        last = 3.0 + 0.5 * float(said(of, played[-1].after[None])[0])
        returns = returns_of(of, played)
        expected = [1.0 + 0.5 * (2.0 + 0.5 * last), 2.0 + 0.5 * last, last]
        np.testing.assert_allclose(returns, expected, rtol=1e-4, err_msg=type(agent).__name__)
    unknown = learner(Reinforce(baseline="none"), value=False)
    assert step_credits.of_episode(unknown, steps(2, terminated=False)).returns is None


def test_of_ppo_the_ratio_is_that_of_the_current_weights():
    """So 1: the credit is the standardized advantage, and nothing is clipped."""
    credit = step_credits.of_episode(learner(PPO()), steps()).credits["log_prob"]
    np.testing.assert_allclose([credit.mean(), credit.std()], [0.0, 1.0], atol=1e-3)


@pytest.mark.parametrize("added", [1, 3])
def test_of_dqn_it_is_the_error_of_each_step(added):
    agent = DQN(gamma=0.9, double=False, replay=rlgrad.Replay(capacity=64, batch_size=8, warmup=8, n_steps=added))
    of, played = learner(agent), steps()
    found = step_credits.of_episode(of, played)
    q = of.policy(np.stack([step.observation for step in played]))["policy"].numpy()
    taken = q[np.arange(5), [step.action for step in played]]
    expected = []
    for t in range(5):
        rewards = [played[k].reward for k in range(t, min(t + added, 5))]
        target = sum(0.9**k * reward for k, reward in enumerate(rewards))
        if t + added < 5:
            target += 0.9**added * q[t + added].max()
        expected.append(target - taken[t])
    np.testing.assert_allclose(found.credits["q"], expected, rtol=1e-4)
    np.testing.assert_allclose(found.values, taken, rtol=1e-5)


def test_of_a_distribution_it_is_by_how_much_the_expectation_would_rise():
    """So wide a support cuts no return off, and what is projected onto it keeps its mean: it is the error of means."""
    of, played = learner(C51(atoms=5, support=(-20.0, 90.0), gamma=0.9)), steps()
    found = step_credits.of_episode(of, played)
    expected = of.policy.distribution.expected(of.policy(np.stack([step.observation for step in played]))["policy"])
    taken = expected.numpy()[np.arange(5), [step.action for step in played]]
    following = np.append(expected.numpy().max(axis=1)[1:], 0.0)
    np.testing.assert_allclose(found.values, taken, rtol=1e-5)
    np.testing.assert_allclose(found.credits["q"], np.arange(1.0, 6.0) + 0.9 * following - taken, rtol=1e-3)


def test_of_critics_it_is_the_mean_and_of_actions_the_length():
    of, played = learner(SAC(), CONTINUOUS), steps(space=CONTINUOUS, terminated=False)
    found = step_credits.of_episode(of, played)
    assert {*found.credits} == {"q", "action"}  # the log-probability's credit is the same at every step
    assert found.credits["q"].shape == found.credits["action"].shape == found.values.shape == (5,)
    assert (found.credits["action"] > 0.0).all()
    assert found.returns is not None
    discrete = step_credits.of_episode(learner(DiscreteSAC()), steps(terminated=False))
    assert {*discrete.credits} == {"q", "logits"}


class Given(SAC):
    """Credits of 0, 1, 2, … times what is written here."""

    def credit(self, batch, now):
        t = tf.range(5.0)[:, None]
        return {"q": t * [[1.0, 3.0]], "action": t * [[3.0, -4.0]], "action_log_prob": t[:, 0], "log_alpha": t[:, 0]}


def test_several_numbers_of_a_step_become_one():
    """Of two critics the mean, of an action's numbers their length; what learned numbers are credited is of no step."""
    found = step_credits._credits(learner(Given(), CONTINUOUS), SimpleNamespace(batch=None), None)
    assert {*found} == {"q", "action", "action_log_prob"}
    for name, factor in (("q", 2.0), ("action", 5.0), ("action_log_prob", 1.0)):
        np.testing.assert_allclose(found[name], factor * np.arange(5.0), err_msg=name)


def test_returns_are_in_the_units_in_which_the_agent_learns():
    of = learner(A2C(gamma=0.5, scale_rewards=True, num_envs=1))
    unscaled = returns_of(of, steps(2))
    rewards, no = tf.constant([[3.0], [7.0]]), tf.zeros((2, 1), tf.bool)
    before = float(of.reward_scale.scale(tf.constant(1.0)))
    of.reward_scale.update(rewards, no, tf.ones((2, 1)))
    after = float(of.reward_scale.scale(tf.constant(1.0)))
    assert before != after
    np.testing.assert_allclose(unscaled, before * np.array([2.0, 2.0]), rtol=1e-5)
    np.testing.assert_allclose(returns_of(of, steps(2)), after * np.array([2.0, 2.0]), rtol=1e-5)


def test_of_streams_it_is_the_error():
    of, played = learner(StreamSARSA(gamma=0.9, scale_rewards=False)), steps()
    q = of.policy(np.stack([step.observation for step in played]))["policy"].numpy()
    taken = q[np.arange(5), [step.action for step in played]]
    following = np.append(0.9 * taken[1:], 0.0)
    found = step_credits.of_episode(of, played)
    assert [*found.credits] == [ERROR]
    np.testing.assert_allclose(found.credits[ERROR], np.arange(1.0, 6.0) + following - taken, rtol=1e-4)
    assert step_credits.of_episode(learner(StreamAC()), played).credits[ERROR].shape == (5,)


def test_nothing_is_changed():
    of, played = learner(PQN(num_envs=2)), steps()
    before = [variable.numpy() for variable in of.policy.variables]
    first, again = (step_credits.of_episode(of, played) for _ in range(2))
    np.testing.assert_array_equal(first.credits["q"], again.credits["q"])
    for variable, value in zip(of.policy.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_what_cannot_be_credited_step_by_step_is_said():
    with pytest.raises(NotImplementedError, match="a policy with memory learns from sequences"):
        step_credits.of_episode(learner(A2C(), memory="gru", memory_size=3), steps())
    with pytest.raises(ValueError, match="an episode of 1 to 4,096 steps is needed, got 0"):
        step_credits.of_episode(learner(A2C()), [])


def test_masks_and_trees_of_observations():
    space = gymnasium.spaces.Dict(a=SEEN, action_mask=gymnasium.spaces.MultiBinary(2))
    policy = rlgrad.make_policy(space, CHOICES, **SMALL)
    of = rlgrad.Learner(A2C(), policy, num_envs=2)
    trees = [{"a": RNG.normal(size=3), "action_mask": np.array([1, t % 2])} for t in range(4)]
    arrays = [policy.as_arrays(tree) for tree in trees]
    played = [Transition(arrays[t], 0, 1.0, t == 2, arrays[t + 1]) for t in range(3)]
    assert tf.nest.flatten(step_credits.of_episode(of, played).credits["log_prob"])[0].shape == (3,)
