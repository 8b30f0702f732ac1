"""The ring returns what a replay of plain lists returns, draws each held step equally often, and knows its size."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.replays import Lists, Player, tensors

from rlgrad.replay import Replay, Ring

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


@pytest.mark.parametrize("jit_compile", [None, pytest.param(True, marks=XLA)])
@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("n_steps", [1, 3, 5])
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
