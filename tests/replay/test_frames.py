"""Stacks of frames are stored a frame a step, come back whole, and are refused where they are no stacks."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.replays import Lists, Player, tensors

from rlgrad.replay import Replay, Ring, Segments
from rlgrad.replay.store import size_of

K = 4
SPEC = {"image": tf.TensorSpec((None, K, 2), tf.uint8), "number": tf.TensorSpec((None,), tf.float32)}
STACKS = {"image": K, "number": None}
ACTION = tf.TensorSpec((None,), tf.int64)


def ring_of(capacity=150, **options):
    settings = Replay(capacity=capacity, warmup=0, **options)
    return Ring(settings, SPEC, ACTION, 3, steps=5, gamma=0.9, stacks=STACKS)


class Stacking:
    """Turns observations that are numbers into stacks of the frames of the last ones, padded at the first as is asked."""

    def __init__(self, padding):
        self.padding, self.seen, self.stacks = padding, {}, {}

    def frame(self, number):
        return np.array([number % 251, number // 251], np.uint8)

    def first(self, number):
        older = {"reset": self.frame(number), "zero": np.zeros(2, np.uint8), "own": self.frame(number + 777)}[
            self.padding
        ]
        return np.stack([older * (j + 1 if self.padding == "own" else 1) for j in range(K - 1)] + [self.frame(number)])

    def follow(self, before, number):
        self.stacks[number] = np.concatenate([self.stacks[before][1:], self.frame(number)[None]])

    def rollout(self, rollout):
        for t, n in np.argwhere(rollout.mask > 0):
            here, after = float(rollout.observations[t, n]), float(rollout.final_observations[t, n])
            if here not in self.stacks:
                self.stacks[here] = self.first(here)
            self.follow(here, after)
        self.stacks |= {-7.0: np.zeros((K, 2), np.uint8), -8.0: np.zeros((K, 2), np.uint8)}
        tree = lambda x: {"image": self.of(x), "number": x}
        return rollout._replace(
            observations=tree(rollout.observations), final_observations=tree(rollout.final_observations)
        )

    def of(self, numbers):
        return np.stack([self.stacks[float(x)] for x in np.ravel(numbers)]).reshape(*np.shape(numbers), K, 2)


def require_stacks(drawn, held, stacking):
    """Require that each step that was drawn is what lists and stacks say; return how many different ones there are."""
    _, once = np.unique(drawn.observations["number"], return_index=True)
    drawn = tf.nest.map_structure(lambda x: x.numpy()[once], drawn)
    step, _, discount, successor = zip(*(held[float(x)] for x in drawn.observations["number"]), strict=True)
    np.testing.assert_array_equal(drawn.actions, [s.action for s in step])
    np.testing.assert_array_equal(drawn.next_observations["number"], successor)
    np.testing.assert_allclose(drawn.discounts, discount, rtol=1e-6)
    for found in (drawn.observations, drawn.next_observations):
        np.testing.assert_array_equal(found["image"], stacking.of(found["number"]))
    return len(once)


@pytest.mark.parametrize(
    ("padding", "prioritized", "jit_compile"),
    [
        ("reset", False, None),
        ("zero", True, None),
        ("own", False, None),
        pytest.param("zero", False, True, marks=pytest.mark.xla),
    ],
)
def test_stacks_come_back_as_they_were_however_the_first_ones_are_padded(padding, prioritized, jit_compile):
    ring, stacking = ring_of(prioritized=prioritized, n_steps=3), Stacking(padding)
    write = tf.function(ring.write, jit_compile=jit_compile, autograph=False)
    draw = tf.function(lambda seed: ring.draw(seed, 2000), jit_compile=jit_compile, autograph=False)
    player, lists = Player(3, seed=3), Lists(3, 10**6, 0.9, 3)
    for i in range(20):
        rollout = player.play(5)
        if i % 4 == 3:
            player.begin_anew(i % 3)
        lists.write(rollout)
        write(tensors(stacking.rollout(rollout)))
        drawn = draw(tf.constant([i, 1]))
        assert require_stacks(drawn, lists.held(), stacking) == int(ring.held)
    ring.require_stacks()
    assert int(ring.steps) > 3 * int(ring.held) > 60


def test_a_stack_takes_the_room_of_a_frame():
    whole = size_of(Replay(), SPEC, ACTION, 1)
    ring = ring_of()
    assert ring.num_bytes == size_of(ring.settings, SPEC, ACTION, 3, stacks=STACKS)
    assert whole - size_of(Replay(), SPEC, ACTION, 1, stacks=STACKS) == pytest.approx(1_000_000 * 3 * 2, rel=1e-5)


def test_stacks_that_do_not_shift_are_refused_by_name():
    ring, stacking = ring_of(), Stacking("reset")
    rollout = stacking.rollout(Player(3, idle=0.0).play(5))
    rollout.final_observations["image"][2, 1, 0] += 1
    ring.write(tensors(rollout))
    with pytest.raises(ValueError, match=r"observation\['image'\] is no stack of the last 4 frames: 1 steps"):
        ring.require_stacks()


def test_what_cannot_be_a_stack_is_refused():
    for stacks, name in (({"image": 3, "number": None}, "image"), ({"image": K, "number": 2}, "number")):
        with pytest.raises(ValueError, match=rf"observation\['{name}'\] has the shape .*, which is no stack of"):
            Ring(Replay(warmup=0, capacity=200), SPEC, ACTION, 3, steps=5, gamma=0.9, stacks=stacks)


def test_stacks_are_restored_from_disk(tmp_path):
    ring, other, stacking, player = ring_of(), ring_of(), Stacking("reset"), Player(3)
    segments = Segments(tmp_path)
    for i in range(16):
        ring.write(tensors(stacking.rollout(player.play(5))))
        if i % 3 == 0:
            Segments(tmp_path).restore(other, segments.save(ring))
            for x, y in zip(*(tf.nest.flatten(r.draw(tf.constant([i, 2]), 200)) for r in (ring, other)), strict=True):
                np.testing.assert_array_equal(x, y)
