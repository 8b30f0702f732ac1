"""The ring returns what a replay of plain lists returns, draws each held step equally often, and knows its size."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.replays import Lists, Player, tensors

from rlgrad.core import capacity as memory
from rlgrad.replay import Replay, Ring
from rlgrad.replay.priorities import sizes
from rlgrad.replay.store import size_of

SCALAR = tf.TensorSpec((None,), tf.float32)
ACTION = tf.TensorSpec((None,), tf.int64)
XLA = pytest.mark.xla


def ring_of(capacity=60, slots=3, steps=5, gamma=0.9, observation=SCALAR, **options):
    return Ring(Replay(capacity=capacity, warmup=0, **options), observation, ACTION, slots, steps=steps, gamma=gamma)


def programs(ring, count, jit_compile):
    options = {"jit_compile": jit_compile, "autograph": False}
    return tf.function(ring.write, **options), tf.function(lambda seed: ring.draw(seed, count), **options)


def require_equal(drawn, expected):
    rows = [expected[float(x)] for x in drawn.observations]  # a KeyError: it is not held
    step, total, discount, successor = zip(*rows, strict=True)
    np.testing.assert_array_equal(drawn.actions, [s.action for s in step])
    np.testing.assert_array_equal(drawn.log_probs, [s.log_prob for s in step])
    np.testing.assert_array_equal(drawn.next_observations, successor)
    np.testing.assert_allclose(drawn.rewards, total, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(drawn.discounts, discount, rtol=1e-6)


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize(
    ("n_steps", "jit_compile"), [(1, None), (3, None), (5, None), pytest.param(3, True, marks=XLA)]
)
def test_every_draw_is_what_plain_lists_say(n_steps, prioritized, jit_compile):
    ring = ring_of(n_steps=n_steps, prioritized=prioritized)
    write, draw = programs(ring, 1000, jit_compile)
    player, lists = Player(3, seed=n_steps), Lists(3, ring.rows, 0.9, n_steps)
    written = 0
    for i in range(25):  # five times around
        rollout = player.play(5)
        if i % 4 == 3:
            player.begin_anew(i % 3)
        lists.write(rollout)
        write(tensors(rollout))
        expected, drawn = lists.held(), tf.nest.map_structure(np.asarray, draw(tf.constant([i, 1])))
        written += int(rollout.mask.sum())
        assert int(ring.held) == len(expected)
        assert int(ring.steps) == written
        require_equal(drawn, expected)
        assert set(drawn.observations) == set(expected)  # the newest and the oldest among them
        np.testing.assert_allclose(drawn.weights, 1 / 1000)
    assert written > 4 * len(expected)


def filled(ring, rollouts=6, steps=5, seed=0, **player):
    playing = Player(ring.num_envs, seed=seed, **player)
    lists = Lists(ring.num_envs, ring.rows, 0.9, ring.settings.n_steps)
    for _ in range(rollouts):
        rollout = playing.play(steps)
        lists.write(rollout)
        ring.write(tensors(rollout))
    return lists.held()


def counts(ring, held, draws, progress=0.0):
    """How often each held step is drawn, by its observation, in the order of `held`."""
    seen = ring.draw(tf.constant([3, 4]), draws, progress).observations.numpy()
    return np.array([np.sum(seen == observation) for observation in held])


def chi_square(found, shares):
    expected = found.sum() * np.asarray(shares)
    return float(np.sum((found - expected) ** 2 / expected)), len(found) - 1


def require_likely(found, shares):
    statistic, freedom = chi_square(found, shares)
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom), (statistic, freedom)  # four deviations of chi-square


def test_each_held_step_is_drawn_equally_often_though_slots_have_different_numbers_of_ends():
    ring = ring_of()
    player = Player(3)
    for _ in range(12):
        rollout = player.play(5)
        rollout.terminations[:, 1] = True  # half of the rows of this slot are ends
        rollout.mask[2:, 2] = 0
        ring.write(tensors(rollout))
    held = {float(x) for x in ring.draw(tf.constant([1, 1]), 4000).observations}
    assert len(held) == int(ring.held)
    require_likely(counts(ring, held, 40_000), 1 / len(held))


def test_steps_are_drawn_in_proportion_to_a_power_of_their_priorities():
    ring = ring_of(prioritized=True, priority_exponent=0.5, importance_exponent=0.4)
    held = filled(ring)
    drawn = ring.draw(tf.constant([1, 1]), 4000)
    place = dict(zip(drawn.observations.numpy(), drawn.rows.numpy(), strict=True))
    rows, priorities = [place[x] for x in held], np.linspace(0.0, 9.0, len(held)).astype(np.float32)
    ring.reprioritize(tf.constant(rows), tf.constant(priorities))
    shares = (priorities + 1e-6) ** 0.5
    shares /= shares.sum()
    found = counts(ring, held, 60_000)
    require_likely(found[1:], shares[1:] / shares[1:].sum())
    assert found[0] <= 20  # 0.001 of 60 or so

    for progress, power in ((0.0, 0.4), (0.5, 0.7), (1.0, 1.0)):
        drawn = ring.draw(tf.constant([5, 5]), 64, progress)
        of_step = dict(zip(held, shares, strict=True))
        expected = np.array([(len(held) * of_step[float(x)]) ** -power for x in drawn.observations])
        np.testing.assert_allclose(drawn.weights, expected / expected.max() / 64, rtol=1e-5)


def test_the_mean_under_importance_weights_of_power_one_is_that_of_uniform_draws():
    ring = ring_of(prioritized=True, priority_exponent=1.0)
    held = filled(ring)
    drawn = ring.draw(tf.constant([1, 1]), 4000)
    ring.reprioritize(drawn.rows, 1.0 + drawn.rewards**2)
    drawn = ring.draw(tf.constant([2, 2]), 40_000, 1.0)
    mean = float(tf.reduce_sum(drawn.weights * drawn.rewards) / tf.reduce_sum(drawn.weights))
    assert abs(mean - np.mean([total for _, total, _, _ in held.values()])) < 0.02


def test_new_steps_have_the_largest_priority_so_far_and_steps_overwritten_have_none():
    ring = ring_of(prioritized=True, priority_exponent=1.0)
    player, lists = Player(3), Lists(3, ring.rows, 0.9, 1)
    rows = None
    for i in range(20):
        rollout = player.play(5)
        lists.write(rollout)
        ring.write(tensors(rollout))
        if rows is not None:
            ring.reprioritize(rows, tf.fill(rows.shape, 4.0 if i == 1 else 1.0))  # some are of steps that are gone
        rows = ring.draw(tf.constant([i, 0]), 30).rows
        held = lists.held()
        weights = ring._priorities.levels[0].numpy()
        assert np.count_nonzero(weights) == len(held) == int(ring.held)
        for below, above in zip(ring._priorities.levels, ring._priorities.levels[1:], strict=False):
            sums = below.numpy().reshape(-1, 16).sum(axis=1)
            np.testing.assert_allclose(above.numpy()[: len(sums)], sums, rtol=1e-6)
    newest = ring.draw(tf.constant([9, 9]), 2000)
    last = newest.rows.numpy()[newest.observations.numpy() == rollout.observations[4][rollout.mask[4] > 0][0]]
    np.testing.assert_allclose(weights[last], 4.0, rtol=1e-5)


def test_a_priority_that_is_none_changes_nothing_and_the_greatest_of_two_counts():
    ring = ring_of(prioritized=True, priority_exponent=1.0)
    filled(ring)
    row = int(ring.draw(tf.constant([1, 1]), 1).rows[0])
    ring.reprioritize(tf.constant([row, row, row]), tf.constant([0.25, 0.5, np.nan]))
    np.testing.assert_allclose(ring._priorities.weights([row]), 0.5, rtol=1e-5)
    ring.reprioritize(tf.constant([row] * 3), tf.constant([np.inf, -1.0, 3e38]))
    np.testing.assert_allclose(ring._priorities.weights([row]), 0.5, rtol=1e-5)
    assert float(ring._largest) == 1.0


@XLA
@pytest.mark.parametrize("prioritized", [False, True])
def test_a_program_of_xla_writes_and_draws_what_a_plain_graph_does(prioritized):
    rings = [ring_of(n_steps=3, prioritized=prioritized, priority_exponent=1.0) for _ in range(2)]
    players = [Player(3) for _ in rings]
    pairs = [programs(ring, 300, jit) for ring, jit in zip(rings, (None, True), strict=True)]
    for i in range(8):
        drawn = []
        for (write, draw), player in zip(pairs, players, strict=True):
            write(tensors(player.play(5)))
            drawn.append(draw(tf.constant([i, 7])))
        for name, plain, compiled in zip(drawn[0]._fields, *drawn, strict=True):
            if name in ("rewards", "weights"):
                np.testing.assert_allclose(plain, compiled, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(plain, compiled)
        if prioritized:
            for ring in rings:  # powers of two: their sums are exact in any order
                ring.reprioritize(drawn[0].rows[:20], tf.constant([0.0, 1.0, 3.0, 7.0, 15.0] * 4) + 1.0 - 1e-6)


def test_observations_may_be_trees_and_bytes_stay_bytes():
    spec = {"image": tf.TensorSpec((None, 4, 3), tf.uint8), "rest": (tf.TensorSpec((None,), tf.int64),)}
    ring = ring_of(observation=spec)
    assert {v.dtype for v in ring.variables} >= {tf.uint8, tf.int64}
    player, scalars = Player(3), Lists(3, ring.rows, 0.9, 1)

    def tree(x):
        number = np.asarray(x).astype(np.int64)
        image = (number[..., None, None] * np.arange(1, 13).reshape(4, 3) % 251).astype(np.uint8)
        return {"image": image, "rest": (number,)}

    for _ in range(10):
        rollout = player.play(5)
        scalars.write(rollout)
        ring.write(
            rollout._replace(
                observations=tree(rollout.observations), final_observations=tree(rollout.final_observations)
            )
        )
    drawn, held = ring.draw(tf.constant([1, 2]), 200), scalars.held()
    for here, after in zip(drawn.observations["rest"][0].numpy(), drawn.next_observations["rest"][0], strict=True):
        assert held[float(here)][3] == after
    for name in ("observations", "next_observations"):
        found = getattr(drawn, name)
        assert found["image"].dtype == tf.uint8
        np.testing.assert_array_equal(found["image"], tree(found["rest"][0])["image"])


@pytest.mark.parametrize("options", [{}, {"prioritized": True}, {"hindsight": 0.5}, {"frames": 4}])
def test_the_bytes_are_known_before_anything_is_allocated(options):
    spec = {"image": tf.TensorSpec((None, 4, 3), tf.uint8), "rest": tf.TensorSpec((None,), tf.int64)}
    stacks = {"image": 4, "rest": None} if "frames" in options else None
    settings = Replay(capacity=100, warmup=0, **options)
    ring = Ring(settings, spec, ACTION, 3, steps=5, gamma=0.9, stacks=stacks)
    assert ring.num_bytes == size_of(settings, spec, ACTION, 3, stacks=stacks)
    assert ring.num_bytes == sum(v.numpy().nbytes for v in ring.variables)
    assert ring.num_bytes < 103 * (12 + 8 + 8 + 4 + 4 + 1 + 8) + 300


def test_levels_of_priorities_have_a_block_for_each_sixteen_of_the_level_below():
    for rows, levels in ((1, [16]), (16, [16]), (17, [32, 16]), (256, [256, 16]), (257, [272, 32, 16])):
        assert sizes(rows) == levels, f"of {rows} rows"


def test_a_replay_larger_than_the_memory_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(memory, "memory", lambda: 2 * 2**30)
    image = tf.TensorSpec((None, 84, 84, 4), tf.uint8)
    with pytest.raises(
        ValueError, match=r"A replay of 1,000,000 steps takes 26 GiB, and this machine has 2: lower replay"
    ):
        ring_of(capacity=1_000_000, observation=image)


def test_rollouts_that_would_overwrite_themselves_are_refused():
    with pytest.raises(ValueError, match=r"replay.capacity is at least 34, for rollouts of 5 steps in 3 environments"):
        ring_of(capacity=33)
    ring = ring_of(capacity=36)
    with pytest.raises(ValueError, match="at most 5 steps in 3 environments, got 6 steps in 3"):
        ring.write(tensors(Player(3).play(6)))
    with pytest.raises(ValueError, match="got 5 steps in 2"):
        ring.write(tensors(Player(2).play(5)))
    wrong = tensors(Player(3).play(5))
    with pytest.raises(ValueError, match=r"actions is .*int64.* in this replay, got .*int32"):
        ring.write(wrong._replace(actions=tf.cast(wrong.actions, tf.int32)))
    with pytest.raises(ValueError, match="prioritized=True"):
        ring.reprioritize(tf.constant([0]), tf.constant([1.0]))


def test_a_ring_of_the_least_capacity_holds_what_lists_hold():
    ring = ring_of(capacity=36, n_steps=3)
    player, lists = Player(3, end=0.9, idle=0.0), Lists(3, 12, 0.9, 3)
    for i in range(12):
        player.begin_anew(i % 3)
        rollout = player.play(5)
        lists.write(rollout)
        ring.write(tensors(rollout))
        drawn = tf.nest.map_structure(np.asarray, ring.draw(tf.constant([i, 1]), 500))
        require_equal(drawn, lists.held())
        assert set(drawn.observations) == set(lists.held())


def test_nothing_held_is_drawn_with_weight_0():
    for prioritized in (False, True):
        drawn = ring_of(prioritized=prioritized).draw(tf.constant([1, 2]), 10)
        np.testing.assert_array_equal(drawn.weights, np.zeros(10))
        assert np.isfinite(drawn.rewards).all()


def test_rows_have_seeds_of_their_own_and_draws_depend_on_the_seed_alone():
    ring = ring_of()
    filled(ring)
    first, again, other = (ring.draw(tf.constant([1, i]), 50) for i in (1, 1, 2))
    for x, y in zip(tf.nest.flatten(first), tf.nest.flatten(again), strict=True):
        np.testing.assert_array_equal(x, y)
    assert (first.rows.numpy() != other.rows.numpy()).any()
    assert len(np.unique(np.concatenate([first.seeds, other.seeds]), axis=0)) == 100


@XLA
def test_writes_draws_and_priorities_in_a_loop_of_one_program_are_those_of_one_after_the_other():
    rings = [ring_of(n_steps=3, prioritized=True, priority_exponent=1.0) for _ in range(2)]
    rollouts = [tensors(Player(3, seed=i, idle=0.0).play(5)) for i in range(4)]
    stacked = tf.nest.map_structure(lambda *x: None if x[0] is None else tf.stack(x), *rollouts)

    def step(ring, rollout, i):
        ring.write(rollout)
        drawn = ring.draw(tf.stack([i, 3]), 64)
        ring.reprioritize(drawn.rows, tf.cast(drawn.actions, tf.float32))
        return drawn.observations, drawn.rows

    @tf.function(jit_compile=True, autograph=False)
    def looped():
        def body(i, seen, rows):
            rollout = tf.nest.map_structure(lambda x: None if x is None else x[i], stacked)
            found = step(rings[0], rollout, i)
            return i + 1, tf.tensor_scatter_nd_update(seen, [[i]], [found[0]]), rows + found[1]

        start = (tf.constant(0), tf.zeros((4, 64)), tf.zeros((64,), tf.int32))
        return tf.while_loop(lambda i, *_: i < 4, body, start)[1:]

    seen, rows = looped()
    one_by_one = [step(rings[1], rollout, tf.constant(i)) for i, rollout in enumerate(rollouts)]
    np.testing.assert_array_equal(seen, [observations for observations, _ in one_by_one])
    np.testing.assert_array_equal(rows, sum(rows.numpy() for _, rows in one_by_one))
    for looped_variable, variable in zip(rings[0].variables, rings[1].variables, strict=True):
        np.testing.assert_allclose(looped_variable, variable, rtol=1e-5)
