"""Gradients, steps and settings that were taken from other libraries, against those libraries.

Their side is tests/helpers/peer_steps.py, in NumPy, which benchmarks/peers/one_step.py holds against the libraries themselves.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers import continuous, peer_steps
from helpers.peer_settings import SETTINGS, named_here

import rlgrad
from rlgrad import estimators
from rlgrad.agents import A2C, DDPG, DQN, IMPALA, PPO, PQN, QRDQN, SAC, TD3, TQC, TRPO
from rlgrad.config import shipped
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.contract import batch_signature, dry_run
from rlgrad.learning.objective import PolicyObjective
from rlgrad.learning.target_weights import TargetWeights
from rlgrad.replay import Target

NUMBERS = peer_steps.numbers()
ROWS = len(NUMBERS["discrete"]["x"])


def assert_same(got, theirs, factor=1.0, rtol=2e-5):
    """A credited gradient climbs what a loss's descends."""
    assert len(got) == len(theirs)
    for mine, expected in zip(got, theirs, strict=True):
        size = np.abs(expected).max()
        assert size > 1e-4
        np.testing.assert_allclose(mine, -factor * expected, rtol=rtol, atol=rtol * size * factor)


def discrete_policy(agent, *weights):
    value = {"action_values": agent.action_values} if len(weights) == 1 else {}
    policy = rlgrad.make_policy(
        spaces.Box(-9, 9, (3,)), spaces.Discrete(4), hidden_sizes=(5,), activation="tanh", seed=0, **value
    )
    networks = [policy.network, *([] if len(weights) == 1 else [policy.value_network])]
    for network, own in zip(networks, weights, strict=True):
        network.set_weights([w.astype(np.float32) for w in own])
    return policy


def rollout_gradient(agent, *weights, **changes):
    """Of the batch's rows, by network; the policy has not moved."""
    policy, rows = discrete_policy(agent, *weights), NUMBERS["discrete"] | changes
    numbers = {"log_probs": rows["old_log_prob"], "returns": rows["returns"], "advantages": rows["advantages"]}
    zero = {"values": np.zeros(ROWS), "td_errors": np.zeros(ROWS), "weights": np.full(ROWS, 1 / ROWS), "progress": 0.0}
    batch = rlgrad.Batch(
        observations=tf.constant(rows["x"], tf.float32),
        actions=tf.constant(rows["a"]),
        **{name: tf.constant(x, tf.float32) for name, x in (numbers | zero).items()},
    )
    signature = batch_signature(policy.observation_spec, policy.action_spec)
    run = dry_run(agent, signature, value=len(weights) == 2, num_actions=4)
    objective = PolicyObjective(agent, policy, batch, run.known, run.credited, policy.trainable_variables)
    return [g.numpy() for g in objective.gradient()[0].values()]


def test_a2cs_gradient_is_that_of_stable_baselines3():
    theirs = peer_steps.a2c(NUMBERS["theta"], NUMBERS["phi"], NUMBERS["discrete"], ent_coef=0.01, vf_coef=0.25)
    agent = A2C(entropy_coefficient=0.01, value_coefficient=0.5)
    assert_same(rollout_gradient(agent, NUMBERS["theta"], NUMBERS["phi"]), [*theirs[0], *theirs[1]])


@pytest.mark.parametrize("make", [A2C, PPO], ids=["a2c", "ppo"])
def test_standardized_advantages_are_theirs_but_for_a_deviation_that_divides_by_n(make):
    """Their deviation divides by n − 1: with 64 rows a credit of ours is 0.8 percent larger."""
    library = peer_steps.ppo if make is PPO else peer_steps.a2c
    options = {} if make is PPO else {"normalize_advantage": True}
    of_policy, of_value = library(NUMBERS["theta"], NUMBERS["phi"], NUMBERS["discrete"], **options)
    got = rollout_gradient(make(standardize_advantages=True), NUMBERS["theta"], NUMBERS["phi"])
    assert_same(got[:4], of_policy, factor=np.sqrt(ROWS / (ROWS - 1)))
    assert_same(got[4:], of_value)


def replay_rows(rows, actions):
    fields = {"x": "observations", "rewards": "rewards", "discounts": "discounts", "after": "next_observations"}
    numbers = {name: tf.constant(rows[key], tf.float32) for key, name in fields.items()}
    return rlgrad.ReplayBatch(
        actions=actions,
        log_probs=tf.zeros(ROWS),
        weights=tf.fill([ROWS], 1 / ROWS),
        seeds=tf.constant(np.random.default_rng(0).integers(0, 2**30, (ROWS, 2)), tf.int32),
        progress=tf.constant(0.3),
        **numbers,
    )


@pytest.mark.parametrize("agent", [DQN(double=False, error_clip=1.0), QRDQN(quantiles=3)], ids=["dqn", "qr-dqn"])
def test_the_gradient_of_action_values_is_that_of_huber_s_loss_of_theirs(agent):
    names, further = (("theta", "target"), ()) if type(agent) is DQN else (("quantiles", "quantile_target"), (3,))
    library = peer_steps.dqn if type(agent) is DQN else peer_steps.qrdqn
    theta, target = map(NUMBERS.get, names)
    policy = discrete_policy(agent, theta)
    run = dry_run(
        agent, batch_signature(policy.observation_spec, policy.action_spec, replay=True), value=False, num_actions=4
    )
    batch = replay_rows(NUMBERS["discrete"], tf.constant(NUMBERS["discrete"]["a"]))
    placed = {key: tf.constant(w, tf.float32) for (_, key), w in zip(keys_of(policy), target, strict=True)}
    objective = PolicyObjective(agent, policy, batch, run.known, run.credited, policy.trainable_variables, (), placed)
    theirs = library(theta, target, NUMBERS["discrete"], *further)
    assert_same([g.numpy() for g in objective.gradient()[0].values()], theirs)


def test_pqns_gradient_is_half_of_cleanrls_and_that_of_the_authors():
    """CleanRL's loss is the squared error and the authors' half of it: their limit on the norm, 10, is ours."""
    theirs = peer_steps.pqn(NUMBERS["theta"], NUMBERS["discrete"])
    assert_same(rollout_gradient(PQN(), NUMBERS["theta"]), theirs, factor=0.5)


def continuous_gradient(agent, actor, target_actor, critics, target_critics, actions):
    """Of actor, critics and what else is credited, by key; and the batch, for its noise."""
    policy = continuous.policy_for(agent)
    for scalar in policy.scalars.values():
        scalar.assign(0.0)  # log α
    placed, followed = {}, [policy.network, *policy.critics]
    for network, own, slow in zip(followed, [actor, *critics], [target_actor, *target_critics], strict=True):
        network.set_weights([w.astype(np.float32) for w in own])
        ids = {id(v): w for v, w in zip(network.trainable_variables, slow or own, strict=True)}
        placed |= {key: tf.constant(ids[id(v)], tf.float32) for v, key in keys_of(policy) if id(v) in ids}
    batch = replay_rows(NUMBERS["continuous"], tf.constant(actions, tf.float32))
    rest = {key: v.value for v, key in keys_of(policy) if key not in placed and v.trainable}
    got = continuous.credited_gradient(agent, policy, batch, placed | rest)
    parts = []
    for network in followed:
        mine = {id(v) for v in network.trainable_variables}
        parts.append([got[key].numpy() for v, key in keys_of(policy) if id(v) in mine])
    scalars = [got[key].numpy() for v, key in keys_of(policy) if any(v is s for s in policy.scalars.values())]
    return parts, scalars, batch


@pytest.mark.parametrize("make", [DDPG, TD3], ids=["ddpg", "td3"])
def test_the_gradients_of_deterministic_actors_are_theirs_but_for_a_factor_that_adam_does_not_see(make):
    """Their critics' loss is the squared error, ours half of it."""
    agent = DDPG() if make is DDPG else TD3(smoothing=0.0)
    count, rows = (1, NUMBERS["continuous"]) if make is DDPG else (2, NUMBERS["continuous"])
    critics, targets = NUMBERS["critics"][:count], NUMBERS["target_critics"][:count]
    (of_actor, *of_critics), _, _ = continuous_gradient(
        agent, NUMBERS["actor"], NUMBERS["target_actor"], critics, targets, rows["a"]
    )
    expected = peer_steps.td3_critics(critics, targets, NUMBERS["target_actor"], rows)
    for mine, theirs in zip(of_critics, expected, strict=True):
        assert_same(mine, theirs, factor=0.5)
    assert_same(of_actor, peer_steps.td3_actor(NUMBERS["actor"], critics[0], rows))


@pytest.mark.parametrize("agent", [SAC(), TQC(quantiles=4, dropped=1)], ids=["sac", "tqc"])
def test_the_gradients_of_gaussian_actors_are_theirs_but_for_the_size_of_tqcs_loss(agent, monkeypatch):
    """Their TQC takes the mean over critics and quantiles where ours sums, as the paper does. And theirs add 1e-6 to 1 − a² in
    log π: near the bounds that changes it, here by 2 percent of the gradient."""
    monkeypatch.setattr(peer_steps, "INSIDE", 0.0)
    of_tqc = type(agent) is TQC
    names = ("quantile_critics", "target_quantile_critics") if of_tqc else ("critics", "target_critics")
    critics, targets = map(NUMBERS.get, names)
    whole, rows = NUMBERS["gaussian"], NUMBERS["continuous"]
    (of_actor, *of_critics), (of_log_alpha,), batch = continuous_gradient(
        agent, whole, None, critics, targets, np.arctanh(rows["a"])
    )
    noise = {"epsilon": continuous.noise(batch, 0), "epsilon_after": continuous.noise(batch, 1)}
    rows |= {name: x.numpy().astype(float) for name, x in noise.items()}
    theirs = (
        peer_steps.tqc_critics(critics, targets, whole, 1.0, rows, dropped=1)
        if of_tqc
        else peer_steps.sac_critics(critics, targets, whole, 1.0, rows)
    )
    for mine, expected in zip(of_critics, theirs, strict=True):
        assert_same(mine, expected, factor=2 * 4 if of_tqc else 1.0, rtol=1e-3)
    assert_same(of_actor, peer_steps.sac_actor(whole, critics, 1.0, rows, mean=of_tqc), rtol=1e-3)
    np.testing.assert_allclose(of_log_alpha, -peer_steps.sac_temperature(whole, rows, -2.0), rtol=1e-3)


def test_advantages_are_those_of_their_rollout_buffer():
    """Episodes end after the third, the seventh and the last step; where time ran out, they add γ v(s′) to the reward."""
    rng = np.random.default_rng(2)
    rewards, values, nexts = rng.normal(size=(3, 8)).astype(np.float32)
    terminations, truncations = np.zeros((2, 8), bool)
    terminations[2] = truncations[6] = terminations[7] = True
    ends = terminations | truncations
    nexts[:-1] = np.where(ends[:-1], nexts[:-1], values[1:])
    starts = np.concatenate([[1.0], ends[:-1]])
    theirs = peer_steps.advantages(
        rewards + 0.97 * np.where(truncations, nexts, 0.0), values, starts, nexts[-1], 1.0, 0.97, 0.9
    )[1]
    column = lambda x: tf.constant(x[:, None])
    mine = estimators.lambda_returns(
        *map(column, (rewards, values, nexts, terminations)), column(ends), gamma=0.97, gae_lambda=0.9
    )
    np.testing.assert_allclose(mine[:, 0], theirs, rtol=1e-5, atol=1e-6)


def test_pqns_returns_are_cleanrls_as_long_as_an_episode_goes_on():
    rng = np.random.default_rng(3)
    rewards, values = rng.normal(size=(2, 7)).astype(np.float32)
    theirs = peer_steps.pqn_returns(rewards, values, 0.4, 0.99, 0.65)
    never, nexts = np.zeros((7, 1), bool), np.append(values[1:], np.float32(0.4))
    mine = estimators.lambda_returns(
        rewards[:, None], values[:, None], nexts[:, None], never, never, gamma=0.99, gae_lambda=0.65
    )
    np.testing.assert_allclose(mine[:, 0], theirs, rtol=1e-5)


# What moves the weights here, and what moves them there: the same rates, decays and limits. The ε differ, by the bound below.
OPTIMIZERS = {
    "a2c": (A2C().update, peer_steps.RMSprop(7e-4, alpha=0.99, eps=1e-5), 0.5, 1e-5),
    "impala": (IMPALA().update, peer_steps.RMSprop(7e-4, alpha=0.99, eps=1e-5), 0.5, 1e-5),
    "ppo": (PPO().update, peer_steps.Adam(3e-4, eps=1e-5), 0.5, 1e-5),
    "cartpole-ppo": (shipped("cartpole-ppo").agent.update, peer_steps.Adam(1e-3, eps=1e-5), 0.5, 1e-5),
    "trpo, value": (TRPO().update.part("value"), peer_steps.Adam(1e-3, eps=1e-5), None, 1e-5),
    "dqn": (DQN().update, peer_steps.Adam(1e-3), 10.0, 0.0),
    "qr-dqn": (shipped("lunar-lander-qr-dqn").agent.update, peer_steps.Adam(1.5e-3, eps=0.01 / 128), 10.0, 0.01 / 128),
    "ddpg": (DDPG().update.part("q"), peer_steps.Adam(1e-3), None, 0.0),
    "td3": (TD3().update.part("action"), peer_steps.Adam(1e-3), None, 0.0),
    "sac": (SAC().update, peer_steps.Adam(3e-4), None, 0.0),
    "tqc": (TQC().update, peer_steps.Adam(3e-4), None, 0.0),
    "pong-a2c": (shipped("pong-a2c").agent.update, peer_steps.RMSpropTFLike(7e-4, alpha=0.99, eps=1e-5), 0.5, 0.0),
}


def bound(peer, g, eps):
    """How far a step may be from theirs by ε alone: rate · |m| / r · (ε / r), with m and r of their step."""
    if isinstance(peer, peer_steps.RMSpropTFLike):
        return 0.0
    if isinstance(peer, peer_steps.RMSprop):
        return peer.rate * np.abs(g) * eps / peer.squares
    left = 1 - peer.betas[1] ** peer.steps
    mean, root = peer.mean / (1 - peer.betas[0] ** peer.steps), np.sqrt(peer.squares / left)
    return peer.rate * np.abs(mean) / root**2 * max(eps, 1e-7 / np.sqrt(left))  # Keras's ε, before the correction


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_of_the_optimizer_are_theirs(name):
    """With gradients of norms from 20 to 0.2, so that limits act on some, whose numbers are from 1 to 1e-3 of each other."""
    update, peer, limit, eps = OPTIMIZERS[name]
    theirs, apart = np.zeros(20), np.zeros(20)
    variable = keras.Variable(theirs.astype(np.float32), name="v")
    state = update.build([variable])
    if isinstance(
        peer, peer_steps.RMSpropTFLike
    ):  # its average begins at 1 and Keras's at 0: here both once they have met
        peer.squares = np.full(20, 1e-4)
        next(slot for slot in state.slots if slot.shape == (20,)).assign(peer.squares.astype(np.float32))
    rng = np.random.default_rng(4)
    for norm in (20.0, 3.0, 0.7, 0.2, 6.0):
        g = rng.normal(size=20) * np.logspace(0, -3, 20)
        g = (norm * g / np.linalg.norm(g)).astype(np.float32)
        state.apply_gradient({"v": tf.constant(-g)})
        (limited,) = [g.astype(float)] if limit is None else peer_steps.clipped([g.astype(float)], limit)
        theirs += peer.step(limited)
        apart += bound(peer, limited, eps)
        difference = np.abs(variable.numpy() - theirs)
        assert (difference <= apart + 1e-6 * np.maximum(1.0, peer.rate / 1e-3)).all(), (norm, difference, apart)
    assert np.median(apart) < 0.1 * np.median(np.abs(theirs))


def test_copies_follow_as_polyak_update_does():
    """θ′ ← (1 − τ) θ′ + τ θ."""
    variable = keras.Variable(np.array([1.0, -2.0], np.float32))
    weights = TargetWeights(Target(rate=0.005), {"v": variable})
    expected = variable.numpy().astype(float)
    for value in ([3.0, 4.0], [5.0, 0.0]):
        variable.assign(np.array(value, np.float32))
        weights.follow(tf.constant(True))
        expected = 0.995 * expected + 0.005 * np.array(value)
        np.testing.assert_allclose(weights.placed["v"], expected, rtol=1e-6)


DEFAULTS = {"a2c": A2C, "ppo": PPO}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_number_that_was_taken_from_a_library_is_its_number_or_named(name):
    """Of configs, and of the agents' defaults."""
    _, theirs, differences = SETTINGS[name]
    config = None if name in DEFAULTS else shipped(name)
    agent = DEFAULTS[name]() if config is None else config.agent

    def field(path):
        thing = agent if hasattr(agent, path.split(".")[0]) else config
        for part in path.split("."):
            thing = getattr(thing, part)
        return thing

    here = named_here(theirs)
    assert {path: field(path) for path in here} == here | differences
    assert all(here[path] != value for path, value in differences.items())
