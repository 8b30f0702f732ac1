"""One seed, independent streams, the same numbers compiled or not."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.slow import mostly_slow

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


# The last three have no divisor that a torus could have.
@mostly_slow("length", [64, 100, 1024, 7, 94, 509], quick=[100, 509])
def test_permutations_are_permutations_and_agree_under_xla(length):
    seed = np.array([7, -3], np.int32)
    plain = random.permutations(seed, 5, length)
    compiled = tf.function(lambda s: random.permutations(s, 5, length), jit_compile=True)(seed)
    np.testing.assert_array_equal(plain, compiled)
    np.testing.assert_array_equal(np.sort(plain, axis=-1), np.tile(np.arange(length), (5, 1)))
    assert len({tuple(row) for row in plain.numpy()}) == 5


@pytest.mark.parametrize("length", [64, 160, 94])
def test_sets_spread_over_a_quarter_of_a_permutation_as_if_all_were_equally_likely(length):
    """Mean and variance of how many of a set come into the first quarter are those of the hypergeometric distribution."""
    many, quarter = 20_000, length // 4
    first = random.permutations(SEED, many, length).numpy()[:, :quarter]
    inside = np.zeros((many, length), bool)
    np.put_along_axis(inside, first, True, axis=1)
    q, places = quarter / length, np.arange(length)
    sets = [
        places < 8,
        places % 8 == 0,
        places < length // 2,
        places % 2 == 0,
        places == 5,
        (places == 0) | (places == 9),
    ]
    for chosen in sets:
        size = chosen.sum()
        count, variance = inside[:, chosen].sum(axis=1), size * q * (1 - q) * (length - size) / (length - 1)
        assert count.mean() == pytest.approx(size * q, abs=5 * np.sqrt(variance / many))
        assert count.var() == pytest.approx(variance, rel=7.5 * np.sqrt(2 / many))


MODES = {"eager": lambda f: f, "graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}
SEED = np.array([7, -3], np.int32)


def test_bits_are_those_of_the_published_test_vectors():
    key = tuple(tf.constant([word], tf.uint32) for word in (0x13198A2E, 0x03707344))
    counters = (tf.constant([word], tf.int32) for word in (0x243F6A88, 0x85A308D3 - 2**32))
    words = [int(word[0]) for word in random._threefry(key, *counters)]
    assert words == [0xC4923A9C, 0x483DF7A0]
    zero = [int(word) for word in random.bits(tf.zeros(2, tf.int32), 2)]
    assert zero == [0x6B200159, 0x99BA4EFE]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: random.uniform(seed, (3, 5)),
        lambda seed: random.integers(seed, 7, (4,)),
        lambda seed: random.split(seed, 3),
        lambda seed: random.fold_in(seed, 12),
    ],
)
def test_numbers_are_the_same_eager_compiled_and_in_any_batch(mode, draw):
    seeds = np.stack([SEED, [1, 2], [5, 5]]).astype(np.int32)
    np.testing.assert_array_equal(draw(SEED), MODES[mode](draw)(tf.constant(seeds))[0])


def test_normal_numbers_agree_to_rounding_eager_and_compiled():
    compiled = tf.function(lambda seed: random.normal(seed, (1000,)), jit_compile=True)
    np.testing.assert_allclose(random.normal(SEED, (1000,)), compiled(tf.constant(SEED)), rtol=1e-5, atol=1e-6)


def test_uniform_numbers_and_normal_numbers_are_what_they_say():
    many = random.split(SEED, 20_000)
    u, z = random.uniform(many, (2,)).numpy().astype(np.float64), random.normal(many, (2,)).numpy().astype(np.float64)
    assert u.min() >= 0.0
    assert u.max() < 1.0
    cells = np.histogram2d(u[:, 0], u[:, 1], bins=20, range=[[0, 1], [0, 1]])[0]
    assert ((cells - 50) ** 2 / 50).sum() < 399 + 5 * np.sqrt(2 * 399)  # χ² of 399 degrees of freedom, five deviations
    for moment, expected in [(1, 0), (2, 1), (3, 0), (4, 3)]:
        assert (z**moment).mean() == pytest.approx(expected, abs=5 * np.sqrt((z ** (2 * moment)).mean() / z.size))
    assert abs(np.corrcoef(z.T)[0, 1]) < 5 / np.sqrt(len(z))


def test_a_split_seed_is_the_bits_in_pairs():
    words = random.bits(SEED, 10).numpy().view(np.int32).reshape(5, 2)
    np.testing.assert_array_equal(random.split(SEED, 5), words)


def test_seeds_that_were_split_or_folded_differ_from_each_other():
    seeds = np.concatenate([random.split(SEED, 500), [random.fold_in(SEED, i) for i in range(500)], [SEED]])
    assert len(np.unique(seeds, axis=0)) == 1001


def test_integers_reach_every_number_below_the_bound():
    assert set(random.integers(SEED, 6, (1000,)).numpy()) == set(range(6))


def test_seeds_of_a_sequence_are_its_first_words():
    """Written out once: every run's numbers follow from them."""
    sequence = np.random.SeedSequence(5)
    words = np.random.SeedSequence(5).generate_state(2)
    np.testing.assert_array_equal(random.seed_of(sequence), words.view(np.int32))
    assert random.integer_seed(sequence) == int(words[0]) // 2
    streams = {"init": 1878776328, "action": 336614359}
    assert {name: random.integer_seed(random.stream(0, name)) for name in streams} == streams


def test_numbered_seeds_are_words_of_the_sequences_children():
    """Number n is pair n mod 256 of the words of child n // 256, whichever numbers are asked for first."""
    sequence = random.stream(2, "shuffle")
    seeds = random.Seeds(sequence)
    for first, count in ((510, 4), (0, 2), (255, 2)):
        expected = [
            random.child(sequence, n // 256).generate_state(512).view(np.int32)[2 * (n % 256) :][:2]
            for n in range(first, first + count)
        ]
        np.testing.assert_array_equal(seeds(first, count), expected, err_msg=f"seeds {first} and on")
