"""Updates of DQN against NumPy, its credit against the loss that others differentiate, and its target weights."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from helpers.by_hand import SGD
from helpers.slow import mostly_slow
from helpers.values import (
    SLOTS,
    Source,
    assert_gradient_of_loss,
    assert_same_weights,
    both_ways,
    credited_gradient,
    drawn_batch,
    policy_for,
    q_values,
    target_model,
    theta_of,
)

import rlgrad
from rlgrad.agents import C51, DQN, PQN, QRDQN
from rlgrad.gradients import Chosen, gradient
from rlgrad.replay import Replay, Target
from rlgrad.updates import Ascent

REPLAY = Replay(capacity=60, batch_size=6, warmup=0, updates_per_step=0.3)  # three updates for each rollout of 10 steps
SETTINGS = {
    "gamma": 0.9,
    "num_envs": SLOTS,
    "num_steps": 5,
    "replay": REPLAY,
    "target": Target(rate=1.0, every=2),
    "update": Ascent(learning_rate=0.02, max_grad_norm=0.5),
}


def dqn(**changes):
    return DQN(**SETTINGS | changes)


def replay(**changes):
    return dataclasses.replace(REPLAY, **changes)


def credit_by_hand(agent, theta, target, rows):
    """Mnih et al. (2015), algorithm 1; van Hasselt et al. (2016), equation 4."""
    x, a, total, discount, after = rows
    credit = np.zeros(len(x))
    q, live, slow = q_values(theta, x, agent), q_values(theta, after, agent), q_values(target, after, agent)
    for n in range(len(x)):
        best = int(np.argmax((live if agent.double else slow)[n]))
        error = total[n] + discount[n] * slow[n, best] - q[n, a[n]]
        credit[n] = error if agent.error_clip is None else max(-agent.error_clip, min(agent.error_clip, error))
    return credit


SWITCHES = {
    "double": {},
    "plain": {"double": False},
    "dueling": {"dueling": True},
    "three steps": {"replay": replay(n_steps=3)},
    "clipped": {"error_clip": 0.3},
    "slow copies": {"target": Target(rate=0.25)},
    "prioritized": {"replay": replay(prioritized=True)},
    "all": {
        "dueling": True,
        "error_clip": 0.8,
        "replay": replay(n_steps=3, prioritized=True, importance_exponent=0.7, priority_exponent=0.5),
        "target": Target(rate=0.5, every=2),
    },
}


@mostly_slow("changes", SWITCHES, quick=["double", "all"])
def test_six_updates_equal_numpy(changes):
    agent = dqn(**changes)
    learner, metrics, theta, target, log = both_ways(agent, credit_by_hand, progress=0.25)
    assert_same_weights(learner, theta, target)
    for i, numbers in enumerate(metrics):
        updates = log[3 * i : 3 * i + 3]
        assert numbers["gradient_steps"] == 3
        assert numbers["gradient_norm"] == pytest.approx(np.mean([u["gradient_norm"] for u in updates]), rel=1e-4)
        means = [(u["weights"] * u["q"]).sum() / u["weights"].sum() for u in updates]
        assert numbers["q_mean"] == pytest.approx(np.mean(means), rel=1e-4)
    moved = [np.abs(a - b).max() for a, b in zip(theta, theta_of(policy_for(agent)), strict=True)]
    assert min(moved) > 1e-3


@pytest.mark.xla
def test_six_updates_of_a_program_of_xla_equal_numpy():
    learner, _, theta, target, _ = both_ways(dqn(**SWITCHES["all"]), credit_by_hand, xla=True)
    assert_same_weights(learner, theta, target)


def test_steps_whose_mask_is_0_are_never_learned_from():
    """They hold an observation, −7, that nothing else has: by hand a draw of one would be no step that is held."""
    agent = dqn(replay=replay(updates_per_step=1.0))
    policy, source = policy_for(agent), Source(agent, seed=1, idle=0.4)
    learner = rlgrad.Learner(agent, policy, num_envs=SLOTS)
    played = 0
    for i in range(4):
        rollout = source.play()
        numbers = learner.learn(rollout, 0.0, np.array([i, 0], np.int32))
        played += rollout.mask.sum()
        assert numbers["gradient_steps"] == rollout.mask.sum()
    assert int(learner.rehearsal.ring.steps) == played
    drawn = learner.rehearsal.ring.draw(tf.constant([1, 2]), 500)
    assert {tuple(row) for row in drawn.observations.numpy()} == set(source.held())


def squared_error(model, target, batch, *, double, huber=None):
    """½ (y − q)² of the current action, or Huber's loss of it, as others write them."""
    q = tf.gather(model(batch.observations), batch.actions, batch_dims=1)
    slow = target(batch.next_observations)
    best = tf.argmax(model(batch.next_observations) if double else slow, axis=-1)
    y = tf.stop_gradient(batch.rewards + batch.discounts * tf.gather(slow, best, batch_dims=1))
    if huber is None:
        return 0.5 * tf.square(y - q)
    size = tf.abs(y - q)
    return tf.where(size <= huber, 0.5 * tf.square(size), huber * (size - 0.5 * huber))


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("error_clip", [None, 0.7])
@pytest.mark.parametrize("double", [False, True])
def test_the_credited_gradient_is_that_of_the_loss_with_a_second_model_as_target(double, error_clip, dueling):
    agent = dqn(double=double, error_clip=error_clip, dueling=dueling)
    assert_gradient_of_loss(
        agent, lambda model, target, batch: squared_error(model, target, batch, double=double, huber=error_clip)
    )


def test_a_clip_that_no_error_reaches_changes_nothing_and_one_that_all_reach_leaves_their_signs():
    policy, batch = policy_for(dqn()), drawn_batch()
    _, placed = target_model(policy)
    plain, wide = (credited_gradient(dqn(error_clip=clip), policy, batch, placed) for clip in (None, 1e3))
    for a, b in zip(plain.values(), wide.values(), strict=True):
        np.testing.assert_array_equal(a, b)
    agent = dqn(error_clip=1e-4)
    rows = [x.numpy() for x in (batch.observations, batch.actions, batch.rewards, batch.discounts)]
    target = [placed[key].numpy() for key in placed]
    credit = credit_by_hand(agent, theta_of(policy), target, (*rows, batch.next_observations.numpy()))
    np.testing.assert_allclose(np.abs(credit), 1e-4)
    got = credited_gradient(agent, policy, batch, placed)
    weight = batch.weights * tf.constant(np.sign(credit) * 1e-4, tf.float32)
    expected = gradient(policy, batch.observations, output=Chosen("policy", batch.actions), sample_weight=weight)
    for a, b in zip(got.values(), expected.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9)


def test_with_the_live_weights_as_target_double_is_plain_and_with_others_it_is_not():
    policy, batch = policy_for(dqn()), drawn_batch()
    _, other = target_model(policy)
    live = {key: variable.value for key, variable in zip(other, policy.network.trainable_variables, strict=True)}
    credits = {
        (name, double): credited_gradient(dqn(double=double), policy, batch, placed)
        for name, placed in (("live", live), ("other", other))
        for double in (False, True)
    }
    for a, b in zip(credits["live", False].values(), credits["live", True].values(), strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = zip(credits["other", False].values(), credits["other", True].values(), strict=True)
    assert max(float(tf.reduce_max(tf.abs(a - b))) for a, b in pairs) > 1e-3


def test_where_every_episode_ends_at_once_it_is_regression_on_the_rewards():
    """d = 0 in every row: neither the target weights nor the successors matter, and the credit is r − q(s)[a]."""
    policy, batch = policy_for(dqn()), drawn_batch(discounts=np.zeros(24))
    _, placed = target_model(policy)
    got = credited_gradient(dqn(), policy, batch, placed)
    q = tf.gather(policy.network(batch.observations), batch.actions, batch_dims=1)
    weight = batch.weights * (batch.rewards - q)
    expected = gradient(policy, batch.observations, output=Chosen("policy", batch.actions), sample_weight=weight)
    for a, b in zip(got.values(), expected.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_where_all_actions_have_one_value_it_is_temporal_difference_learning():
    """A network that says v(s) of every action: max q̄(s′) is v̄(s′), and the gradient of q(s)[a] that of v(s), whatever a is."""
    policy, batch = policy_for(dqn()), drawn_batch()
    kernel, bias = policy.network.trainable_variables[2:]
    for variable in (kernel, bias):
        variable.assign(np.repeat(variable.numpy()[..., :1], variable.shape[-1], axis=-1))
    model, _ = target_model(policy)
    shared = [np.repeat(w[..., :1], w.shape[-1], axis=-1) if i >= 2 else w for i, w in enumerate(model.get_weights())]
    model.set_weights(shared)
    names = [variable.path for variable in policy.network.trainable_variables]
    placed = dict(zip(names, [tf.constant(w) for w in shared], strict=True))
    got = credited_gradient(dqn(), policy, batch, placed)
    v, v_next = policy.network(batch.observations)[:, 0], model(batch.next_observations)[:, 0]
    delta = batch.rewards + batch.discounts * v_next - v
    with tf.GradientTape() as tape:
        objective = tf.reduce_sum(batch.weights * delta * policy.network(batch.observations)[:, 0])
    hidden = tape.gradient(objective, [v.value for v in policy.network.trainable_variables[:2]])
    for mine, theirs in zip(list(got.values())[:2], hidden, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@mostly_slow("rate, every", [(1.0, 2), (0.005, 1), (1.0, 1), (0.3, 3)], quick=[(1.0, 2), (0.005, 1)])
def test_target_weights_stay_while_the_weights_move_and_follow_exactly_when_it_is_their_turn(rate, every):
    """One update for each rollout, so that the copies are seen after each."""
    agent = dqn(target=Target(rate=rate, every=every), replay=replay(updates_per_step=0.1))
    policy, source = policy_for(agent), Source(agent)
    learner = rlgrad.Learner(agent, policy, num_envs=SLOTS)
    copies = lambda: [value.numpy() for value in learner.target.placed.values()]
    expected = [w.astype(np.float32) for w in theta_of(policy)]
    for step in range(1, 8):
        before = theta_of(policy)
        learner.learn(source.play(), 0.0, np.array([step, 0], np.int32))
        assert all(np.abs(a - b).max() > 0 for a, b in zip(theta_of(policy), before, strict=True))
        if step % every == 0:
            live = [v.numpy() for v in policy.network.trainable_variables]
            moved = [t + np.float32(rate) * (w - t) for w, t in zip(live, expected, strict=True)]
            expected = live if rate == 1.0 else moved
        for mine, theirs in zip(copies(), expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=0 if rate == 1.0 else 1e-7)


def test_target_weights_are_other_variables_than_the_weights():
    agent = dqn()
    learner = rlgrad.Learner(agent, policy_for(agent), num_envs=SLOTS)
    mine = learner.policy.network.trainable_variables
    copies = learner.target.variables[: len(mine)]
    for variable, copy in zip(mine, copies, strict=True):
        np.testing.assert_array_equal(variable.numpy(), copy.numpy())
        variable.assign(variable + 1.0)
        assert np.abs(variable.numpy() - copy.numpy()).min() > 0.9
        copy.assign(copy - 5.0)
        assert np.abs(variable.numpy() - copy.numpy()).min() > 5.9


def test_a_network_that_cannot_say_more_finds_the_value_of_a_step_that_repeats():
    """γ = 0.5, reward 1, no end: q = 2. By plain ascent on one row whose features are constant, in closed form: every
    update brings q a share of the way to 1 + q̄ / 2."""
    agent = dqn(gamma=0.5, target=Target(rate=1.0), double=False)
    x, optimizer, theta = np.ones((1, 2)), SGD(0.25), [np.zeros((2, 5)), np.zeros(5)]
    for _ in range(200):
        rows = x, np.array([0]), np.ones(1), np.full(1, 0.5), x
        c = credit_by_hand(agent, theta, theta, rows)
        theta = optimizer.ascend(theta, [np.outer(x[0], np.eye(5)[0]) * c, np.eye(5)[0] * c])
    assert q_values(theta, x, agent)[0, 0] == pytest.approx(2.0, rel=1e-6)


def test_fields_that_contradict_are_refused():
    for clip in (0.0, -1.0):
        with pytest.raises(ValueError, match="error_clip"):
            DQN(error_clip=clip)
    with pytest.raises(ValueError, match="set replay"):
        DQN(replay=None)
    with pytest.raises(ValueError, match="num_steps"):
        DQN(num_steps=None)
    policy = policy_for(DQN())
    with pytest.raises(ValueError, match="target"):
        rlgrad.Learner(DQN(target=None), policy, num_envs=1)


@pytest.mark.parametrize("agent", [DQN(), QRDQN(), C51(), PQN()], ids=lambda agent: type(agent).__name__)
def test_what_tuning_searches_are_fields_of_the_agent(agent):
    for name in agent.search_space():
        thing = agent
        for part in name.split("."):
            thing = getattr(thing, part)
