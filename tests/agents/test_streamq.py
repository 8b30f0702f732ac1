"""Stream Q(λ) and stream SARSA(λ) against NumPy."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from helpers.slow import mostly_slow
from helpers.streams import ActionValuesByHand, Script, traces_in
from helpers.values import policy_for, theta_of

import rlgrad
from rlgrad.agents import StreamQ, StreamSARSA
from rlgrad.updates import Traces

RULES = {
    "obgd": {},
    "adaptive_obgd": {"step": "adaptive_obgd"},
    "adam": {"step": "adam", "learning_rate": 1e-3, "epsilon": 0.1, "error_clip": 1.0},
    "constant": {"step": "constant", "learning_rate": 0.01, "trace_decay": 0.5},
    "a bound that is rarely active": {"learning_rate": 0.01, "kappa": 2.0},
}


def both_ways(agent, steps, xla=False):
    policy = policy_for(agent, normalize_observations=agent.normalize_observations)
    hand = ActionValuesByHand(agent, policy)
    script = Script(agent.num_envs, action=lambda rng: rng.integers(5))
    learner, decided, cuts = rlgrad.Learner(agent, policy, num_envs=agent.num_envs, xla=xla), None, []
    for step in range(steps):
        rollout = script.play(decided)
        metrics = learner.learn(rollout, 0.5, np.array([step, 4], np.int32))
        learned_with = None
        if learner.stream.decided is not None:
            decided, ends = learner.stream.decided.numpy(), (rollout.terminations | rollout.truncations)[0]
            learned_with = np.array([int(metrics[f"next_{n}"]) for n in range(agent.num_envs)])
            np.testing.assert_array_equal(decided, np.where(ends, -1, learned_with))
        delta, rates = hand.learn(rollout, learned_with)
        assert metrics["td_error"] == pytest.approx(np.abs(np.clip(delta, *_clip(agent))).mean(), rel=2e-3, abs=1e-4)
        assert metrics["effective_step"] == pytest.approx(rates.mean(), rel=2e-3)
        cuts.append(not hand.trace.z.any())
        np.testing.assert_allclose(traces_in(learner.state), hand.trace.z, rtol=1e-3, atol=1e-3)
    return policy, hand, cuts


def _clip(agent):
    limit = agent.update.error_clip or np.inf
    return -limit, limit


def assert_same(policy, hand, atol):
    for mine, expected in zip(theta_of(policy), hand.theta, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_one_step_equals_numpy(rule):
    agent = StreamQ(normalize_observations=False, scale_rewards=False, update=Traces(**rule))
    policy, hand, _ = both_ways(agent, steps=1)
    assert_same(policy, hand, atol=1e-6)


@mostly_slow(
    "rule, steps",
    {name: (rule, 200) for name, rule in RULES.items()} | {"a thousand": ({}, 1000)},
    quick=[*RULES],
)
def test_many_steps_equal_numpy(rule, steps):
    policy, hand, cuts = both_ways(StreamQ(update=Traces(**rule)), steps)
    assert_same(policy, hand, atol=5e-4)
    assert 0.4 < np.mean(cuts) < 0.95, "actions that are not greedy cut the trace, and ends do; a greedy one leaves it"


def test_two_streams_equal_numpy():
    policy, hand, _ = both_ways(StreamQ(num_envs=2), steps=40)
    assert_same(policy, hand, atol=1e-4)


class Watched(StreamSARSA):
    """One that logs the actions it decides, also those that a time limit forestalls."""

    def measure(self, batch, now):
        return {f"next_{n}": batch.next_actions[n] for n in range(self.num_envs)}


@mostly_slow("num_envs, way", {"one": (1, False), "two": (2, False), "as the authors": (1, True)})
def test_sarsa_equals_numpy_on_the_actions_that_it_decides(num_envs, way):
    policy, hand, _ = both_ways(Watched(num_envs=num_envs, truncation_ends_task=way), steps=100)
    assert_same(policy, hand, atol=3e-4)


@pytest.mark.parametrize(("way", "expected"), [(False, [9.5, 19.5, 3.5]), (True, [9.5, 1.5, 3.5])])
def test_sarsas_error_goes_on_at_a_time_limit_unless_the_authors_way_is_asked_for(way, expected):
    """r + γ q(s′)[a′] − q(s)[a] of a step in the midst of an episode, one that was cut and one that ended its task."""
    batch = SimpleNamespace(
        rewards=tf.constant([1.0, 2.0, 4.0]),
        discounts=tf.constant([0.9, 0.9, 0.0]),
        ends=tf.constant([0.0, 1.0, 1.0]),
        next_observations="next",
        next_actions="decided",
    )
    following = {("next", "decided"): SimpleNamespace(q=tf.constant([10.0, 20.0, 30.0]))}
    now = SimpleNamespace(q=tf.constant([0.5, 0.5, 0.5]), at=lambda *asked: following[asked])
    np.testing.assert_allclose(StreamSARSA(truncation_ends_task=way).td_error(batch, now), expected, rtol=1e-6)


def test_sarsa_takes_the_action_that_it_learned_with():
    agent, taken, decided = StreamSARSA(), [], []
    with rlgrad.GymCollector("CartPole-v1", num_envs=1, num_steps=1, seed=0) as collector:
        policy = rlgrad.make_policy(
            collector.observation_space, collector.action_space, action_values=agent.action_values, hidden_sizes=(4,)
        )
        learner = rlgrad.Learner(agent, policy, num_envs=1)
        for step in range(60):
            rollout = collector.collect(learner.acting(0.0, step))
            taken.append(int(rollout.actions[0, 0]))
            learner.learn(rollout, 0.0, np.array([step, 1], np.int32))
            decided.append(int(learner.stream.decided.numpy()[0]))
            assert (decided[-1] < 0) == bool(rollout.terminations[0, 0])
    pairs = [(now, then) for then, now in zip(decided[:-1], taken[1:], strict=True) if then >= 0]
    assert len(pairs) > 40
    assert all(now == then for now, then in pairs)
    assert 10 < sum(now for now, _ in pairs) < len(pairs) - 10, "with ε = 1 both actions are decided"


def test_a_random_action_that_is_greedy_leaves_the_trace():
    agent = StreamQ(normalize_observations=False, scale_rewards=False)
    for greedy in (True, False):
        policy = policy_for(agent)
        rollout = Script(seed=2).play()
        q = policy(rollout.observations[0])["policy"].numpy()[0]
        action = int(q.argmax() if greedy else q.argmin())
        learner = rlgrad.Learner(agent, policy, num_envs=1)
        flags = np.zeros((1, 1), bool)
        learner.learn(
            rollout._replace(actions=np.array([[action]]), terminations=flags, truncations=flags),
            0.0,
            np.array([3, 4], np.int32),
        )
        assert traces_in(learner.state).any() == greedy
