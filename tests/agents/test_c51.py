"""Updates of C51 against NumPy; its projection against the loop of the paper; its credit against the cross-entropy."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.by_hand import log_softmax
from helpers.slow import mostly_slow
from helpers.values import (
    SLOTS,
    assert_gradient_of_loss,
    assert_same_weights,
    both_ways,
    drawn_batch,
    q_values,
)

from rlgrad.agents import C51
from rlgrad.replay import Replay, Target
from rlgrad.updates import Ascent

REPLAY = {"capacity": 60, "batch_size": 6, "warmup": 0, "updates_per_step": 0.3}
SETTINGS = {
    "gamma": 0.9,
    "num_envs": SLOTS,
    "num_steps": 5,
    "atoms": 4,
    "support": (-1.5, 2.0),
    "replay": Replay(**REPLAY),
    "target": Target(rate=1.0, every=2),
    "update": Ascent(learning_rate=0.02, max_grad_norm=0.1),
}


def c51(**changes):
    return C51(**SETTINGS | changes)


def softmax(z):
    return np.exp(log_softmax(z))


def projected_by_hand(total, discount, p, support):
    """Bellemare et al. (2017), algorithm 1, with both of its neighbors the same where b is whole."""
    low, high = support
    count = len(p)
    delta, m = (high - low) / (count - 1), np.zeros(count)
    for j in range(count):
        at = min(max(total + discount * (low + j * delta), low), high)
        b = (at - low) / delta
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        if lower == upper:
            m[lower] += p[j]
        else:
            m[lower] += p[j] * (upper - b)
            m[upper] += p[j] * (b - lower)
    return m


def credit_by_hand(agent, theta, target, rows):
    x, a, total, discount, after = rows
    atoms = np.linspace(*agent.support, agent.atoms)
    p = softmax(q_values(theta, x, agent))
    live, slow = softmax(q_values(theta, after, agent)), softmax(q_values(target, after, agent))
    credit = np.zeros((len(x), agent.atoms))
    for n in range(len(x)):
        best = int(np.argmax(((live if agent.double else slow)[n] * atoms).sum(-1)))
        credit[n] = projected_by_hand(total[n], discount[n], slow[n, best], agent.support) - p[n, a[n]]
    return credit


SWITCHES = {
    "plain": {},
    "double": {"double": True},
    "dueling": {"dueling": True},
    "three steps": {"replay": Replay(**REPLAY, n_steps=3)},
    "all": {
        "double": True,
        "dueling": True,
        "replay": Replay(**REPLAY, prioritized=True, n_steps=2),
        "target": Target(rate=0.5),
    },
}


@mostly_slow("changes", SWITCHES, quick=["all"])
def test_six_updates_equal_numpy(changes):
    agent = c51(**changes)
    learner, metrics, theta, target, log = both_ways(agent, credit_by_hand, progress=0.5)
    assert_same_weights(learner, theta, target)
    atoms = np.linspace(*agent.support, agent.atoms)
    for i, numbers in enumerate(metrics):
        updates = log[3 * i : 3 * i + 3]
        means = [(u["weights"] * (softmax(u["q"]) * atoms).sum(-1)).sum() / u["weights"].sum() for u in updates]
        assert numbers["q_mean"] == pytest.approx(np.mean(means), rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.xla
def test_six_updates_of_a_program_of_xla_equal_numpy():
    learner, _, theta, target, _ = both_ways(c51(**SWITCHES["all"]), credit_by_hand, xla=True)
    assert_same_weights(learner, theta, target)


@pytest.mark.parametrize(
    ("atoms", "support"), [(2, (0.0, 1.0)), (4, (-1.5, 2.0)), (51, (-10.0, 10.0)), (11, (0.0, 10.0))]
)
def test_the_projection_is_the_loop_of_the_paper(atoms, support):
    rng = np.random.default_rng(atoms)
    rows, width = 60, support[1] - support[0]
    p = softmax(rng.normal(size=(rows, atoms), scale=2.0))
    totals = rng.uniform(support[0] - width, support[1] + width, rows)  # some beyond both ends
    totals[:atoms] = np.linspace(*support, atoms)[:rows]  # some on atoms
    discounts = rng.choice([0.0, 0.5, 0.97, 1.0], rows)
    batch = drawn_batch(rows, rewards=totals, discounts=discounts)
    got = C51(atoms=atoms, support=support).projected(batch, tf.constant(p, tf.float32)).numpy()
    for n in range(rows):
        expected = projected_by_hand(totals[n], discounts[n], p[n], support)
        np.testing.assert_allclose(got[n], expected, atol=2e-5)
    np.testing.assert_allclose(got.sum(1), 1.0, atol=1e-5)


def test_a_projection_keeps_the_mean_of_returns_within_the_support():
    rng = np.random.default_rng(1)
    p, totals = softmax(rng.normal(size=(30, 51))), rng.uniform(-1, 1, 30)
    batch = drawn_batch(30, rewards=totals, discounts=np.full(30, 0.8))
    m = C51().projected(batch, tf.constant(p, tf.float32)).numpy()
    atoms = np.linspace(-10, 10, 51)
    np.testing.assert_allclose(m @ atoms, totals + 0.8 * (p @ atoms), atol=1e-4)


def test_an_episode_that_ended_is_two_atoms_beside_its_reward_and_a_reward_of_0_without_discount_the_same_distribution():
    agent = C51(atoms=5, support=(0.0, 4.0))
    p = tf.constant([[0.1, 0.2, 0.3, 0.3, 0.1]] * 3)
    batch = drawn_batch(3, rewards=np.array([1.25, 9.0, 0.0]), discounts=np.array([0.0, 0.0, 1.0]))
    expected = [[0, 0.75, 0.25, 0, 0], [0, 0, 0, 0, 1.0], [0.1, 0.2, 0.3, 0.3, 0.1]]
    np.testing.assert_allclose(agent.projected(batch, p), expected, atol=1e-6)


@pytest.mark.parametrize(("double", "dueling"), [(False, False), (True, True)])
def test_the_credited_gradient_is_that_of_the_cross_entropy(double, dueling):
    agent = c51(double=double, dueling=dueling)
    atoms = np.linspace(*agent.support, agent.atoms).astype(np.float32)

    def cross_entropy(model, target, batch):
        slow = tf.nn.softmax(target(batch.next_observations))
        chosen_by = tf.nn.softmax(model(batch.next_observations)) if double else slow
        best = tf.argmax(tf.reduce_sum(chosen_by * atoms, -1), axis=-1)
        p = tf.gather(slow, best, batch_dims=1).numpy()
        pairs = zip(batch.rewards.numpy(), batch.discounts.numpy(), p, strict=True)
        m = np.array([projected_by_hand(*pair, agent.support) for pair in pairs], np.float32)
        logits = tf.gather(model(batch.observations), batch.actions, batch_dims=1)
        return tf.nn.softmax_cross_entropy_with_logits(m, logits)

    assert_gradient_of_loss(agent, cross_entropy, atol=2e-6)


def test_fields_that_contradict_are_refused():
    for changes, name in (
        ({"atoms": 1}, "atoms"),
        ({"support": (1.0, 1.0)}, "support"),
        ({"error_clip": 1.0}, "error_clip"),
    ):
        with pytest.raises(ValueError, match=name):
            C51(**changes)
