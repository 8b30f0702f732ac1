"""Agents of a user's own with critics of continuous actions: what they may ask, what is refused, and what moves."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.continuous import ACTION, OBSERVATION, at, drawn_batch, other_weights, policy_for, traced
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.agents import DDPG, SAC, TD3
from rlgrad.data import Rollout
from rlgrad.gradients import LogProb
from rlgrad.learning.asking import Now
from rlgrad.replay import Exploration, Replay, Target
from rlgrad.updates import Ascent, PerHead, Update

SMALL = Replay(capacity=64, batch_size=8, warmup=0)


class Mine(rlgrad.ReplayAgent):
    """An agent whose credit is given as a function."""

    replay: Replay | None = SMALL
    num_steps: int | None = 1

    def credit(self, batch, now):
        return {"q": batch.rewards[:, None] - now.q}


class WithTarget(Mine):
    target: Target | None = Target(rate=0.5)


def agent_of(credit, base=Mine, **fields):
    return type("Mine", (base,), {"credit": lambda self, batch, now: credit(batch, now)})(**fields)


@pytest.mark.parametrize(
    ("credit", "message"),
    {
        "one number for two critics": (
            lambda batch, now: {"q": batch.rewards - now.q[:, 0]},
            r"credit\['q'\] has the shape .* the numbers of the output",
        ),
        "q without an action": (
            lambda batch, now: {"q": now.at(batch.next_observations).q - now.q},
            r"q is of actions: pass them",
        ),
        "a slope of each critic": (
            lambda batch, now: {"action": now.slope(lambda heads: heads.q, batch.observations, now.action)},
            r"now\.slope is of an output with one number for each row",
        ),
        "a slope for a number": (
            lambda batch, now: {"action": batch.rewards},
            r"credit\['action'\] has the shape",
        ),
        "target weights that it has not": (
            lambda batch, now: {"q": now.target(batch.next_observations, batch.actions).q - now.q},
            r"asks now\.target and has no target weights",
        ),
        "action values": (
            lambda batch, now: {"q": now.at(batch.next_observations).q_values[:, :1] - now.q},
            r"learns a value of each action.*not Discrete: take an agent for continuous actions, such as sac",
        ),
    }.values(),
)
def test_what_is_wrong_is_said_before_anything_is_built(credit, message):
    with pytest.raises(ValueError, match=message):
        traced(agent_of(credit))


def test_only_what_is_asked_for_is_built():
    assert traced(Mine()).actor_critic.actor == "gaussian"
    climbs = agent_of(lambda b, now: {"action": now.slope(lambda h: h.q[:, 0], b.observations, now.action)})
    needs = traced(climbs).actor_critic
    assert (needs.num_critics, needs.actor) == (1, "reparameterized")
    scores = agent_of(lambda b, now: {"log_prob": b.rewards})
    assert traced(scores).actor_critic is None
    assert traced(SAC()).asked_of_target == ("q",)
    assert traced(TD3()).asked_of_target == ("action", "q")


@pytest.mark.parametrize(
    ("agent", "space", "message"),
    [
        (SAC(), spaces.Discrete(3), r"SAC asks for action.*moves with the policy's weights in a Box alone.*dqn"),
        (TD3(), spaces.MultiDiscrete([3, 3]), r"TD3 asks for action.*another kind"),
        (agent_of(lambda b, now: {"q": b.rewards[:, None] - now.q}), spaces.MultiBinary(3), r"not Discrete"),
    ],
)
def test_other_actions_are_refused_with_agents_that_take_them(agent, space, message, tmp_path):
    class Env(rlgrad_env(space)):
        pass

    with pytest.raises(ValueError, match=message):
        rlgrad.train(agent, Env, total_timesteps=100, run_dir=tmp_path / "run", verbose=False)
    assert not (tmp_path / "run").exists()


def rlgrad_env(space):
    import gymnasium

    class Env(gymnasium.Env):
        observation_space, action_space = OBSERVATION, space

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(3, np.float32), {}

        def step(self, action):
            return np.zeros(3, np.float32), 0.0, False, False, {}

    return Env


def test_noise_is_for_deterministic_policies_and_random_actions_for_bounds():
    quiet = SAC(replay=SMALL, exploration=Exploration(noise=0.1))
    with pytest.raises(ValueError, match=r"exploration.noise is for deterministic policies"):
        rlgrad.Learner(quiet, policy_for(quiet), num_envs=1)
    wide = spaces.Box(-np.inf, np.inf, (2,))
    agent = agent_of(lambda b, now: {"q": b.rewards[:, None] - now.q}, exploration=Exploration(random=0.5))
    with pytest.raises(ValueError, match=r"not finite: set exploration.random and replay.warmup to 0"):
        rlgrad.Learner(agent, policy_for(agent, action=wide), num_envs=1)


def test_a_slope_is_how_the_critic_grows_with_each_number_of_the_stored_action():
    policy, batch = policy_for(SAC()), drawn_batch()
    now = Now({}, policy, batch.seeds)
    slope = now.slope(lambda heads: heads.q[:, 1], batch.observations, batch.actions).numpy()
    for k in range(2):
        step = np.zeros((1, 2), np.float32)
        step[0, k] = 1e-2
        above, below = (now.at(batch.observations, batch.actions + s).q[:, 1] for s in (step, -step))
        np.testing.assert_allclose(slope[:, k], (above - below) / 2e-2, atol=2e-3)


def test_target_weights_answer_with_their_own_critics_and_their_own_policy():
    policy, batch = policy_for(TD3()), drawn_batch()
    placed = other_weights(policy)
    now, other = Now({}, policy, batch.seeds, placed), at(policy, placed)
    mu = now.target(batch.next_observations).action
    np.testing.assert_allclose(mu, np.tanh(other.network(batch.next_observations)), rtol=1e-5)
    np.testing.assert_allclose(
        now.target(batch.next_observations, mu).q, other.critic_values(batch.next_observations, mu), rtol=1e-5
    )
    assert not np.allclose(mu, now.at(batch.next_observations).action)


class Doubled(rlgrad.Agent):
    """A2C whose credit on log π is scaled by a number that is learned as well."""

    scalars = {"log_scale": 0.5}
    num_envs: int = 1
    num_steps: int | None = 4
    update: Update = Ascent(optimizer="sgd", learning_rate=0.1)

    def credit(self, batch, now):
        return {
            "log_prob": tf.exp(now.log_scale) * batch.advantages,
            "value": batch.returns - now.value,
            "log_scale": -1.0,
        }


def rollout(steps=4, seed=0, actions=None):
    rng, shape = np.random.default_rng(seed), (steps, 1)
    seen = rng.normal(size=(steps + 1, 1, 3)).astype(np.float32)
    never = np.zeros(shape, bool)
    actions = rng.normal(size=(*shape, 2)).astype(np.float32) if actions is None else actions
    ones = np.ones(shape, np.float32)
    return Rollout(seen[:-1], actions, ones, never, never, seen[1:], 0 * ones, ones)


def test_a_learned_number_of_an_agent_on_rollouts_moves_by_its_credit():
    policy = rlgrad.make_policy(OBSERVATION, ACTION, scalars=Doubled.scalars, hidden_sizes=(4,))
    learner = rlgrad.Learner(Doubled(), policy, num_envs=1)
    learner.learn(rollout(), 0.0, np.array([0, 0], np.int32))
    assert float(policy.scalars["log_scale"].value) == pytest.approx(0.5 - 0.1, rel=1e-5)
    assert learner.credited == ("log_prob", "value", "log_scale")


class OfRows(rlgrad.Agent):
    """Outputs that depend on the rows of the batch, as a method."""

    num_envs: int = 1
    num_steps: int | None = 4
    update: Update = Ascent(optimizer="sgd", learning_rate=0.1)

    def outputs(self, batch):
        return {"of_the_opposite": LogProb(-batch.actions)}

    def credit(self, batch, now):
        return {"log_prob": batch.advantages, "value": 0.0, "of_the_opposite": -0.5 * tf.ones_like(now.of_the_opposite)}


def test_outputs_may_be_a_method_of_the_batch():
    moved = []
    for agent in (OfRows(), type("Plain", (OfRows,), {"outputs": {}, "credit": plain_credit})()):
        policy = rlgrad.make_policy(OBSERVATION, ACTION, hidden_sizes=(4,))
        learner = rlgrad.Learner(agent, policy, num_envs=1)
        before = policy.network.get_weights()
        played = rollout()
        learner.learn(played, 0.0, np.array([0, 0], np.int32))
        moved.append([a - b for a, b in zip(policy.network.get_weights(), before, strict=True)])
    fresh = rlgrad.make_policy(OBSERVATION, ACTION, hidden_sizes=(4,))
    by_hand = rlgrad.gradients.gradient(
        fresh,
        played.observations[:, 0],
        weights=list(fresh.network.trainable_variables),
        output=LogProb(-played.actions[:, 0]),
        sample_weight=-0.5 * np.ones(4, np.float32) / 4,
    )
    extra = [a - b for a, b in zip(*moved, strict=True)]
    for mine, theirs in zip(extra, by_hand.values(), strict=True):
        np.testing.assert_allclose(mine, 0.1 * np.asarray(theirs), rtol=1e-3, atol=1e-6)


def plain_credit(self, batch, now):
    return {"log_prob": batch.advantages, "value": 0.0}


class Expected(rlgrad.Agent):
    """Importance ratios of the current policy, asked while estimating."""

    num_envs: int = 1
    num_steps: int | None = 4

    def estimate(self, rollout, now):
        ratio = tf.exp(now.at(rollout.observations, rollout.actions).log_prob - rollout.log_probs)
        return rlgrad.Estimates(ratio, ratio, ratio)

    def credit(self, batch, now):
        return {"log_prob": batch.advantages, "value": batch.returns - now.value}


def test_an_estimate_may_ask_the_networks_about_whole_rollouts():
    policy = rlgrad.make_policy(OBSERVATION, ACTION, hidden_sizes=(4,))
    learner = rlgrad.Learner(Expected(), policy, num_envs=1)
    played = rollout()
    batch = learner.batch_of(rlgrad.core.nested.map_leaves(tf.constant, played), tf.constant(0.0))
    expected = policy.distribution.log_prob(policy(played.observations[:, 0])["policy"], played.actions[:, 0])
    np.testing.assert_allclose(batch.returns, np.exp(expected), rtol=1e-4)
    learner.learn(played, 0.0, np.array([0, 0], np.int32))


def test_numbers_that_are_not_finite_are_named_and_nothing_moves():
    agent = DDPG(replay=SMALL, num_steps=1)
    policy = policy_for(agent)
    learner = rlgrad.Learner(agent, policy, num_envs=1)
    policy.critics[0].trainable_variables[0].assign(np.full(policy.critics[0].trainable_variables[0].shape, np.nan))
    before = policy.network.get_weights()
    with pytest.raises(rlgrad.NonFiniteError, match=r"q"):
        learner.learn(rollout(1), 0.0, np.array([0, 0], np.int32))
    for a, b in zip(before, policy.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_per_head_refuses_a_policy_without_critics_or_critics_without_a_policy():
    both = PerHead(policy=Ascent(), value=Ascent())
    only_q = agent_of(lambda b, now: {"q": b.rewards[:, None] - now.q}, update=both)
    with pytest.raises(ValueError, match="no policy is trained: use Ascent"):
        rlgrad.Learner(only_q, policy_for(only_q), num_envs=1)


@mostly_slow("agent", {"sac": SAC, "td3": TD3}, quick=["td3"])
def test_the_whole_run_may_be_one_program_on_a_compiled_environment(agent, tmp_path):
    replay = Replay(capacity=200, batch_size=8, warmup=16)
    settings = {"total_timesteps": 96, "hidden_sizes": (4,), "verbose": False, "evaluation_episodes": 2, "seed": 3}
    run = rlgrad.train(
        agent(replay=replay, num_steps=4, num_envs=2), "rlgrad/Pendulum-v1", run_dir=tmp_path / "a", **settings
    )
    assert run.timesteps == 96
    assert run.history["train/gradient_steps"][-1] == 8
    assert np.isfinite(run.history["train/q_mean"][-1])
