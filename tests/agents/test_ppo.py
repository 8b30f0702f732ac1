"""One update of PPO against NumPy; clipping as a credit against the loss that others differentiate."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.by_hand import (
    KINDS,
    Adam,
    added,
    advantages_and_returns,
    assert_weights,
    clipped,
    entropy_gradient,
    learned,
    literal_rollout,
    log_prob,
    policy_of,
    rows,
    score,
    standardized,
    theta_and_phi,
    value,
    value_gradient,
)
from helpers.slow import mostly_slow

import rlgrad
from rlgrad import random
from rlgrad.agents import A2C, PPO
from rlgrad.updates import Ascent, NaturalGradient, PerHead, TrustRegion

# By how much log π has grown since the rollout: r from e⁻² to e², on both sides of 1 ± 0.2 and between.
FAR = np.array([1.0, -1.0, 0.1, 2.0, -2.0, 0.0, -0.1, 0.5])


def by_hand(policy, rollout, agent, optimizer, seed, steps=None):
    """Schulman et al. (2017), algorithm 1 and eq. 7 and 9; the value's loss as CleanRL's or as Stable-Baselines3's."""
    update = agent.update
    theta, phi = theta_and_phi(policy)
    x, a, log_probs_old, w = rows(rollout)
    advantages, returns = (part.ravel() for part in advantages_and_returns(rollout, phi, agent.gamma, agent.gae_lambda))
    v_old, c = value(phi, x), agent.value_clip_range
    orders = (
        np.asarray(random.permutations(seed, update.num_epochs, len(x)))
        if update.num_epochs > 1
        else [np.arange(len(x))]
    )
    parts = [part for order in orders for part in np.split(np.asarray(order), update.num_minibatches)]
    lengths, outside, kls = [], [], []
    for part in parts[:steps]:
        w_part = w[part] * update.num_minibatches
        s, r = x[part], np.exp(log_prob(theta, x[part], a[part]) - log_probs_old[part])
        psi = standardized(advantages[part], w_part) if agent.standardize_advantages else advantages[part]
        surrogate, limited = r * psi, np.clip(r, 1 - agent.clip_range, 1 + agent.clip_range) * psi
        through = np.where(
            surrogate <= limited, psi * r, 0.0
        )  # of min(·, ·), the left one if it is smaller; ∇r = r ∇log π
        v = value(phi, s)
        v_limited = v_old[part] + np.clip(v - v_old[part], -c, c)
        inside = np.abs(v - v_old[part]) <= c
        error, error_limited = returns[part] - v, (returns[part] - v_limited) * inside
        if agent.value_clip == "cleanrl":  # max( (v − G)², (v_limited − G)² )
            error = np.where(np.square(v - returns[part]) >= np.square(v_limited - returns[part]), error, error_limited)
        elif agent.value_clip == "sb3":
            error = error_limited
        of_policy = added(
            score(theta, s, a[part], w_part * through),
            entropy_gradient(theta, s, w_part * agent.entropy_coefficient),
        )
        of_value = value_gradient(phi, s, w_part * agent.value_coefficient * error)
        gradient, length = clipped([*of_policy, *of_value], update.max_grad_norm)
        lengths.append(length)
        outside.append((w_part * (np.abs(r - 1) > agent.clip_range)).sum() / w_part.sum())
        kls.append((w_part * (r - 1 - np.log(r))).sum() / w_part.sum())
        moved = optimizer.ascend([*theta, *phi], gradient)
        theta, phi = moved[: len(theta)], moved[len(theta) :]
    return theta, phi, {"gradient_norm": lengths, "clip_fraction": outside, "approx_kl": kls}


@mostly_slow("kind", KINDS)
@pytest.mark.parametrize(
    "value_clip", ["none", pytest.param("cleanrl", marks=pytest.mark.slow), pytest.param("sb3", marks=pytest.mark.slow)]
)
def test_one_update_equals_numpy(kind, value_clip):
    """Three epochs of two minibatches by Adam; ratios begin far outside of the clip, and the values soon leave theirs."""
    agent = PPO(
        gamma=0.9,
        gae_lambda=0.8,
        value_clip=value_clip,
        value_clip_range=0.05,
        entropy_coefficient=0.02,
        value_coefficient=0.7,
        update=Ascent(learning_rate=0.02, max_grad_norm=0.5, num_epochs=3, num_minibatches=2),
    )
    policy = policy_of(kind)
    rollout = literal_rollout(policy, moved=FAR)
    theta, phi, expected = by_hand(policy, rollout, agent, Adam(0.02), seed=[3, 4])
    metrics = learned(agent, policy, rollout, seed=[3, 4])
    assert_weights(policy, theta, phi, atol=2e-6)
    for name, values in expected.items():
        assert metrics[name] == pytest.approx(np.mean(values), rel=1e-4)
    assert 0 < metrics["clip_fraction"] < 1


@pytest.mark.slow
def test_the_three_ways_to_clip_the_value_differ_here():
    ends = []
    for value_clip in ("none", "cleanrl", "sb3"):
        update = Ascent(learning_rate=0.02, num_epochs=3, num_minibatches=2)
        policy = policy_of("discrete")
        learned(PPO(value_clip=value_clip, value_clip_range=0.05, update=update), policy, literal_rollout(policy))
        ends.append(np.concatenate([w.ravel() for w in policy.value_network.get_weights()]))
    assert min(np.abs(a - b).max() for a, b in ((ends[0], ends[1]), (ends[0], ends[2]), (ends[1], ends[2]))) > 1e-4


def batch_and_outputs(policy, agent, moved_values):
    """M = 24 rows: every pair of a ratio, outside of the clip and within, and an advantage of either sign."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(24, 2)).astype(np.float32)
    actions = rng.integers(3, size=24) if policy.log_std is None else rng.normal(size=(24, 2)).astype(np.float32)
    theta, phi = theta_and_phi(policy)
    moved = np.tile([-3.0, -0.5, -0.25, -0.1, 0.0, 0.1, 0.17, 0.25, 0.5, 1.0, 2.0, 3.0], 2)
    values = value(phi, x.astype(float))
    return rlgrad.Batch(
        observations=x,
        actions=actions,
        log_probs=(log_prob(theta, x.astype(float), actions) - moved).astype(np.float32),
        values=(values - moved_values).astype(np.float32),
        returns=rng.normal(size=24).astype(np.float32),
        advantages=np.repeat([1.0, -1.0], 12).astype(np.float32) * rng.uniform(0.5, 2.0, size=24).astype(np.float32),
        td_errors=np.zeros(24, np.float32),
        weights=np.full(24, 1 / 24, np.float32),
        progress=np.float32(0.0),
    )


def credited_gradient(policy, agent, batch):
    signature = rlgrad.learning.contract.batch_signature(policy.observation_spec, policy.action_spec)
    names = rlgrad.learning.contract.dry_run(agent, signature).credited
    from rlgrad.learning.objective import PolicyObjective

    variables = policy.trainable_variables
    batch = tf.nest.map_structure(tf.constant, batch)
    return PolicyObjective(agent, policy, batch, ("log_prob", "entropy", "value"), names, variables).gradient()[0]


def ppo_loss(policy, batch, clip_range, entropy_coefficient):
    """−L^CLIP − β H and v, as a framework that differentiates losses writes it."""
    heads = policy(batch.observations)
    new_log_prob = policy.distribution.log_prob(heads["policy"], batch.actions)
    ratio = tf.exp(new_log_prob - batch.log_probs)
    losses = -tf.minimum(
        batch.advantages * ratio, batch.advantages * tf.clip_by_value(ratio, 1 - clip_range, 1 + clip_range)
    )
    entropy = tf.reduce_mean(policy.distribution.entropy(heads["policy"]))
    return tf.reduce_mean(losses) - entropy_coefficient * entropy, heads["value"]


def cleanrl_value_loss(v, batch, clip_coef):
    """`ppo.py` with clip_vloss: 0.5 · mean( max( (v − G)², (v_old + clamp(v − v_old) − G)² ) )."""
    unclipped = tf.square(v - batch.returns)
    v_clipped = batch.values + tf.clip_by_value(v - batch.values, -clip_coef, clip_coef)
    return 0.5 * tf.reduce_mean(tf.maximum(unclipped, tf.square(v_clipped - batch.returns)))


def sb3_value_loss(v, batch, clip_range_vf):
    """`ppo.py` with clip_range_vf: mean squared error of v_old + clamp(v − v_old); without it, of v."""
    if clip_range_vf is not None:
        v = batch.values + tf.clip_by_value(v - batch.values, -clip_range_vf, clip_range_vf)
    return tf.reduce_mean(tf.square(batch.returns - v))


@mostly_slow("kind", KINDS, quick=["continuous"])
@pytest.mark.parametrize(
    ("value_clip", "value_coefficient", "value_loss"),
    [
        # CleanRL's vf_coef = 0.5 is value_coefficient = 0.5, SB3's vf_coef = 0.5 is value_coefficient = 1.
        ("cleanrl", 0.5, lambda v, batch: 0.5 * cleanrl_value_loss(v, batch, 0.2)),
        ("sb3", 1.0, lambda v, batch: 0.5 * sb3_value_loss(v, batch, 0.2)),
        ("none", 1.0, lambda v, batch: 0.5 * sb3_value_loss(v, batch, None)),
    ],
)
def test_the_credits_gradient_is_that_of_the_loss_with_ratios_and_values_far_outside_of_the_clip(
    kind, value_clip, value_coefficient, value_loss
):
    agent = PPO(
        clip_range=0.2,
        standardize_advantages=False,
        value_clip=value_clip,
        value_coefficient=value_coefficient,
        entropy_coefficient=0.01,
    )
    policy = policy_of(kind)
    moved_values = np.tile([-2.0, -0.5, -0.19, 0.0, 0.1, 0.21, 0.5, 3.0], 3)
    batch = batch_and_outputs(policy, agent, moved_values)
    got = credited_gradient(policy, agent, batch)
    with tf.GradientTape() as tape:
        loss, v = ppo_loss(policy, batch, 0.2, 0.01)
        loss += value_loss(v, batch)
    expected = tape.gradient(loss, [v.value for v in policy.trainable_variables])
    for mine, theirs in zip(got.values(), expected, strict=True):
        np.testing.assert_allclose(mine, -theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("advantage", "moved", "expected"),
    [
        (2.0, 0.3, 0.0),  # r = 1.35 > 1.2 and Â > 0: has been raised enough
        (2.0, -0.3, 2.0 * np.exp(-0.3)),  # r = 0.74: lowered though it was good, counts
        (-2.0, -0.3, 0.0),  # r = 0.74 < 0.8 and Â < 0: has been lowered enough
        (-2.0, 0.3, -2.0 * np.exp(0.3)),  # raised though it was bad, counts
        (2.0, 0.1, 2.0 * np.exp(0.1)),  # within
        (-2.0, -0.1, -2.0 * np.exp(-0.1)),
        (2.0, 200.0, 0.0),  # r overflows
        (-2.0, -200.0, 0.0),
    ],
)
def test_each_region_of_the_clip(advantage, moved, expected):
    row = lambda x: np.array([x], np.float32)
    agent = PPO(standardize_advantages=False)
    fields = {**dict.fromkeys(rlgrad.Batch._fields, row(0.0)), "advantages": row(advantage), "progress": 0.0}
    now = rlgrad.Outputs(log_prob=row(moved), value=row(0.0), entropy=row(0.0))
    np.testing.assert_allclose(agent.credit(rlgrad.Batch(**fields), now)["log_prob"], [expected], rtol=1e-6)


@pytest.mark.parametrize(("progress", "limit"), [(0.0, 0.2), (0.5, 0.1), (0.9, 0.02)])
def test_the_clip_falls_to_0_at_the_end_of_training(progress, limit):
    """A good action counts as long as log r is below log(1 + limit)."""
    agent = PPO(standardize_advantages=False, clip_schedule="linear")
    log_ratios = np.log([1 + 0.9 * limit, 1 + 1.1 * limit]).astype(np.float32)
    fields = {**dict.fromkeys(rlgrad.Batch._fields, np.zeros(2, np.float32)), "advantages": np.ones(2, np.float32)}
    now = rlgrad.Outputs(log_prob=log_ratios, value=np.zeros(2, np.float32), entropy=np.zeros(2, np.float32))
    batch = rlgrad.Batch(**fields | {"progress": np.float32(progress)})
    np.testing.assert_array_equal(np.asarray(agent.credit(batch, now)["log_prob"]) > 0, [True, False])
    np.testing.assert_array_equal(agent.measure(batch, now)["clip_fraction"], [0.0, 1.0])


def test_at_the_end_of_a_linear_clip_only_moves_against_the_advantage_count():
    agent = PPO(standardize_advantages=False, clip_schedule="linear")
    zeros = np.zeros(3, np.float32)
    fields = dict.fromkeys(rlgrad.Batch._fields, zeros) | {"advantages": np.ones(3, np.float32)}
    now = rlgrad.Outputs(log_prob=np.log([0.5, 1.0, 1.001]).astype(np.float32), value=zeros, entropy=zeros)
    credit = agent.credit(rlgrad.Batch(**fields | {"progress": np.float32(1.0)}), now)
    np.testing.assert_allclose(credit["log_prob"], [0.5, 1.0, 0.0], rtol=1e-6)


@mostly_slow("kind", KINDS)
def test_with_one_epoch_and_one_minibatch_it_is_a2c(kind):
    """r = 1 there, so nothing is clipped."""
    shared = {"gae_lambda": 0.8, "entropy_coefficient": 0.01, "standardize_advantages": False}
    weights = []
    for agent in (PPO(**shared, update=Ascent(learning_rate=0.01)), A2C(**shared, update=Ascent(learning_rate=0.01))):
        policy = policy_of(kind)
        learned(agent, policy, literal_rollout(policy))
        weights.append(policy.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7)


def test_the_ratio_is_1_at_the_first_minibatch_also_with_normalized_observations():
    """The collector's own log-probabilities; the normalizer has statistics, and stands still until the last epoch is done."""
    ratios = []

    class Watching(PPO):
        def measure(self, batch, now):
            ratio = tf.exp(now.log_prob - batch.log_probs)
            counts = tf.cast(self_policy.preparation.normalizers[0].count.value, tf.float32)
            tf.py_function(lambda r, n: ratios.append((np.abs(r - 1).max(), float(n))), [ratio, counts], [])
            return super().measure(batch, now)

    agent = Watching(
        num_envs=2,
        num_steps=16,
        normalize_observations=True,
        update=Ascent(learning_rate=0.01, num_epochs=3, num_minibatches=2),
    )
    collector = rlgrad.GymCollector("CartPole-v1", num_envs=2, num_steps=16, seed=0, vectorization_mode="sync")
    self_policy = rlgrad.make_policy(
        collector.observation_space, collector.action_space, hidden_sizes=(8,), normalize_observations=True, seed=0
    )
    learner = rlgrad.Learner(agent, self_policy, num_envs=2, xla=False)
    for _ in range(3):
        learner.learn(collector.collect(self_policy), 0.0, [0, 0])
    collector.close()
    calls = np.array(ratios).reshape(3, 6, 2)
    np.testing.assert_allclose(calls[:, 0, 0], 0.0, atol=1e-5)
    assert calls[:, 1:, 0].min() > 1e-4
    np.testing.assert_array_equal(calls[:, :, 1], [[0.0] * 6, [32.0] * 6, [64.0] * 6])


def test_target_kl_ends_the_steps_before_the_first_minibatch_that_is_too_far():
    """gradient_steps says how many were taken, and the weights are those of so many steps by hand."""
    options = {"learning_rate": 0.02, "num_epochs": 4, "num_minibatches": 2}
    policy = policy_of("discrete")
    rollout = literal_rollout(policy)
    _, _, unbounded = by_hand(policy, rollout, PPO(update=Ascent(**options)), Adam(0.02), seed=[3, 4])
    moved = np.array(unbounded["approx_kl"])
    target = moved[1] / 1.35  # there further than the target, but by less than half of it
    agent = PPO(update=Ascent(**options, target_kl=target))
    allowed = int(np.argmax(moved > 1.5 * target))
    assert allowed == 2, f"the steps that are taken, by the numbers themselves: {moved / target}"
    theta, phi, _ = by_hand(policy, rollout, agent, Adam(0.02), seed=[3, 4], steps=allowed)
    metrics = learned(agent, policy, rollout, seed=[3, 4])
    assert metrics["gradient_steps"] == allowed
    assert_weights(policy, theta, phi)
    assert metrics["approx_kl"] == pytest.approx(np.mean(unbounded["approx_kl"][: allowed + 1]), rel=1e-4)


def test_a_target_kl_that_is_never_reached_changes_nothing():
    weights, steps = [], []
    for target in (None, 1e6):
        update = Ascent(learning_rate=0.01, num_epochs=2, num_minibatches=2, target_kl=target)
        policy = policy_of("discrete")
        steps.append(learned(PPO(update=update), policy, literal_rollout(policy)).get("gradient_steps"))
        weights.append(policy.get_weights())
    assert steps == [None, 4.0]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_values_own_steps_go_on_when_the_policys_stop():
    value_update = Ascent(learning_rate=0.01, num_epochs=3, num_minibatches=2)
    ends = []
    for target in (1e-6, 1e6):
        of_policy = Ascent(learning_rate=0.05, num_epochs=4, num_minibatches=2, target_kl=target)
        policy = policy_of("discrete")
        learner = rlgrad.Learner(
            PPO(update=PerHead(policy=of_policy, value=value_update)), policy, num_envs=2, xla=False
        )
        taken = learner.learn(literal_rollout(policy), 0.0, [3, 4])["gradient_steps"]
        ends.append((taken, int(learner.state.value.optimizer.iterations), policy.value_network.get_weights()))
    assert [taken for taken, *_ in ends] == [1.0, 8.0]
    assert [steps for _, steps, _ in ends] == [6, 6]
    for a, b in zip(ends[0][2], ends[1][2], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_range": 0.0}, "clip_range is above 0"),
        ({"value_clip": "cleanrl", "value_clip_range": -1.0}, "value_clip_range is above 0"),
        ({"update": PerHead(policy=NaturalGradient())}, "PPO's clipping and NaturalGradient both limit"),
        ({"update": TrustRegion()}, "PPO's clipping and TrustRegion both limit.*npg and trpo"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PPO(**options)
