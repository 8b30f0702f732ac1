"""One seed, independent streams, the same numbers compiled or not."""

import numpy as np
import pytest
import tensorflow as tf

from rlgrad import random


def test_streams_of_one_seed_differ_and_repeat():
    first = [tuple(random.stream(3, name).generate_state(4)) for name in ("init", "action", "environment", "shuffle")]
    again = [tuple(random.stream(3, name).generate_state(4)) for name in ("init", "action", "environment", "shuffle")]
    assert first == again
    assert len(set(first)) == 4


def test_a_child_depends_on_its_key_alone():
    sequence = random.stream(0, "environment")
    before = random.child(sequence, 2, 5).generate_state(2)
    random.child(sequence, 1, 1)
    np.testing.assert_array_equal(before, random.child(sequence, 2, 5).generate_state(2))


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True])
def test_a_seed_is_a_natural_number(seed):
    with pytest.raises(ValueError, match="integer ≥ 0"):
        random.stream(seed, "init")


def test_permutations_are_permutations_and_agree_under_xla():
    seed = np.array([7, -3], np.int32)
    plain = random.permutations(seed, 5, 100)
    compiled = tf.function(lambda s: random.permutations(s, 5, 100), jit_compile=True)(seed)
    np.testing.assert_array_equal(plain, compiled)
    np.testing.assert_array_equal(np.sort(plain, axis=-1), np.tile(np.arange(100), (5, 1)))
    assert len({tuple(row) for row in plain.numpy()}) == 5
