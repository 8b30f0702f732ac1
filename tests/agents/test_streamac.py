"""Stream AC(λ) against NumPy: one step, a few hundred, several streams, and the classic actor-critic with traces."""

import numpy as np
import pytest
from gymnasium import spaces
from helpers.by_hand import assert_weights, policy_of
from helpers.slow import mostly_slow
from helpers.streams import ActorCriticByHand, Script, traces_in

import rlgrad
from rlgrad.agents import StreamAC
from rlgrad.hyperparameters import fields
from rlgrad.updates import PerHead, Traces

ACTIONS = {"discrete": lambda rng: rng.integers(3), "continuous": lambda rng: rng.normal(size=2).astype(np.float32)}
CONSTANT = PerHead(
    policy=Traces(step="constant", learning_rate=0.002, trace_decay=0.9),
    value=Traces(step="constant", learning_rate=0.01, trace_decay=0.5),
)


def both_ways(agent, kind, steps, xla=False):
    policy = policy_of(kind, normalize_observations=agent.normalize_observations)
    hand, script = ActorCriticByHand(agent, policy), Script(agent.num_envs, action=ACTIONS[kind])
    learner = rlgrad.Learner(agent, policy, num_envs=agent.num_envs, xla=xla)
    for _ in range(steps):
        rollout = script.play()
        metrics = learner.learn(rollout, 0.0, np.array([3, 4], np.int32))
        delta, rates = hand.learn(rollout)
        assert metrics["td_error"] == pytest.approx(np.abs(delta).mean(), rel=2e-3, abs=1e-4)
        assert metrics["effective_step"] == pytest.approx(rates.mean(), rel=2e-3)
    return policy, hand, metrics


@pytest.mark.parametrize("kind", ACTIONS)
def test_one_step_equals_numpy(kind):
    agent = StreamAC(normalize_observations=False, scale_rewards=False, entropy_coefficient=0.3)
    policy, hand, metrics = both_ways(agent, kind, steps=1)
    assert_weights(policy, hand.theta, hand.phi, atol=1e-6)
    assert (
        metrics["trace_norm"] == pytest.approx(np.abs(hand.of_policy.z).sum(), rel=1e-5) or hand.of_policy.z.sum() == 0
    )
    assert metrics["bound_active"] == 1.0
    assert "explained_variance" not in metrics


@mostly_slow(
    "kind, steps, changes",
    {
        "discrete": ("discrete", 200, {}),
        "continuous": ("continuous", 200, {}),
        "classic": ("discrete", 200, {"update": CONSTANT}),
        "as the authors cut": ("discrete", 200, {"truncation_ends_task": True}),
        "a thousand": ("continuous", 1000, {}),
    },
    quick=["discrete", "continuous", "classic", "as the authors cut"],
)
def test_many_steps_equal_numpy_with_statistics_of_all_that_was_seen(kind, steps, changes):
    policy, hand, _ = both_ways(StreamAC(entropy_coefficient=0.3, **changes), kind, steps)
    assert_weights(policy, hand.theta, hand.phi, atol=2e-4)


@pytest.mark.parametrize("over_streams", ["mean", "sum"])
def test_three_streams_have_a_trace_each_and_their_steps_are_averaged_or_added(over_streams):
    traces = {"kappa": 3.0, "over_streams": over_streams}
    agent = StreamAC(num_envs=3, update=PerHead(policy=Traces(**traces), value=Traces(**traces)))
    policy, hand, _ = both_ways(agent, "discrete", steps=40)
    assert_weights(policy, hand.theta, hand.phi, atol=1e-4)


@pytest.mark.xla
@mostly_slow("num_envs", [1, 2], quick=[2])
def test_a_program_of_xla_equals_numpy(num_envs):
    policy, hand, _ = both_ways(StreamAC(num_envs=num_envs, entropy_coefficient=0.3), "discrete", steps=30, xla=True)
    assert_weights(policy, hand.theta, hand.phi, atol=1e-4)


def test_a_truncation_keeps_the_bootstrap_and_cuts_the_trace_unless_the_authors_way_is_asked_for():
    rollout = Script(seed=1).play()
    rollout = rollout._replace(terminations=np.zeros((1, 1), bool), truncations=np.ones((1, 1), bool))
    for way in (False, True):
        agent = StreamAC(normalize_observations=False, scale_rewards=False, truncation_ends_task=way)
        policy = policy_of("discrete")
        learner = rlgrad.Learner(agent, policy, num_envs=1)
        v, after = (float(policy.value(x[0])[0]) for x in (rollout.observations, rollout.final_observations))
        metrics = learner.learn(rollout, 0.0, np.array([3, 4], np.int32))
        assert metrics["td_error"] == pytest.approx(abs(rollout.rewards[0, 0] + (0.0 if way else 0.99 * after) - v))
        for traces in (learner.state.policy, learner.state.value):
            assert not traces_in(traces).any()


def test_each_observation_counts_once_before_it_is_acted_on():
    """The first one is its own mean, so the network sees 0; of two, each coordinate is one deviation from the mean."""
    policy, script = policy_of("discrete", normalize_observations=True), Script(seed=2, end=0.0)
    learner, seed = rlgrad.Learner(StreamAC(), policy, num_envs=1, xla=False), np.array([3, 4], np.int32)
    (normalizer,) = policy.preparation.normalizers
    rollout, ended = script.play(), script.play()._replace(truncations=np.ones((1, 1), bool))
    at_zero = policy.network(np.zeros((1, 2), np.float32))
    for _ in range(2):
        np.testing.assert_allclose(learner.first_actor()(rollout.observations[0]), at_zero, atol=1e-6)
        assert float(normalizer.count.numpy()) == 1.0
    learner.learn(rollout, 0.0, seed, ended.observations[0])
    assert float(normalizer.count.numpy()) == 2.0
    signs = np.sign(rollout.final_observations[0] - rollout.observations[0])
    said = learner.actor()(ended.observations[0])
    np.testing.assert_allclose(said, policy.network(signs), atol=1e-5)
    np.testing.assert_array_equal(learner.first_actor()(ended.observations[0]), said), "to the bit"
    learner.learn(ended, 0.0, seed, np.array([[7.0, 8.0]], np.float32))
    assert float(normalizer.count.numpy()) == 4.0, "of the step's successor, and of the first one of the next episode"
    policy.network.trainable_variables[-1].assign_add([1.0, 0.0, 0.0])
    said = learner.first_actor()(np.array([[7.0, 8.0]], np.float32))
    np.testing.assert_allclose(said, policy(np.array([[7.0, 8.0]], np.float32))["policy"], atol=1e-5)


def test_options_of_rollouts_are_none_of_it():
    assert not {"gae_lambda", "episodes_per_env", "replay", "target"} & {*fields(StreamAC())}
    with pytest.raises(ValueError, match="learns from each step as it comes, so num_steps is 1; got 8"):
        StreamAC(num_steps=8)
    with pytest.raises(ValueError, match="entropy_coefficient"):
        StreamAC(entropy_coefficient=-1.0)


def test_what_enters_a_trace_is_not_diagnosed_as_a_gradient():
    learner = rlgrad.Learner(StreamAC(), policy_of("discrete"), num_envs=1)
    with pytest.raises(NotImplementedError, match="those of StreamAC say what enters a trace"):
        learner.diagnose(Script().play(), 0.0)


def test_a_policy_and_a_value_that_share_layers_take_one_trace():
    policy = rlgrad.make_policy(
        spaces.Box(-9, 9, (2,)), spaces.Discrete(3), shared_trunk=True, hidden_sizes=(4,), normalize_observations=True
    )
    with pytest.raises(ValueError, match="share"):
        rlgrad.Learner(StreamAC(), policy, num_envs=1)
    learner = rlgrad.Learner(StreamAC(num_envs=2, update=Traces()), policy, num_envs=2)
    before = [v.numpy() for v in policy.trainable_variables]
    learner.learn(Script(2, end=0.0).play(), 0.0, np.array([3, 4], np.int32))
    moved = sum(np.abs(v.numpy() - w).sum() for v, w in zip(policy.trainable_variables, before, strict=True))
    assert 0.0 < moved <= 1 / 2.0 + 1e-6
    assert (np.abs(traces_in(learner.state)).sum(1) > 1.0).all()


def test_a_memory_is_refused():
    with pytest.raises(ValueError, match="StreamAC learns from single steps, and a memory needs sequences"):
        rlgrad.Learner(StreamAC(), policy_of("discrete", memory="gru", memory_size=3), num_envs=1)
