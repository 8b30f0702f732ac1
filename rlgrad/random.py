"""All randomness of a run comes from one seed, split here into independent named streams.

For one seed, TensorFlow's own float samplers give different numbers with XLA and without, and they take one seed for a whole
batch. Random numbers inside compiled programs are therefore built here, from the bits of a counter-based generator in integer
arithmetic, which is the same in every mode. They are a pure function of a seed, int32 (…, 2). In a batch of seeds, the numbers
of a row do not depend on the other rows.

Source: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3" (Threefry-2x32, 20 rounds).
"""

import functools
import math
from typing import Any, Literal

import numpy as np

StreamName = Literal["init", "action", "environment", "shuffle", "evaluation"]
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_BLOCK = 256  # numbered seeds
_ROUNDS, _LEAST_HEIGHT = 4, 8  # of permutations
_STREAMS: tuple[StreamName, ...] = ("init", "action", "environment", "shuffle", "evaluation")


def stream(seed: int, name: StreamName) -> np.random.SeedSequence:
    """Return the seed sequence of one named stream of a run.

    Args:
        seed: the run's seed, an integer ≥ 0.
        name: `"init"` (weights), `"action"` (the policy's samples), `"environment"` (resets), `"shuffle"` (minibatches) or
            `"evaluation"` (resets and samples of evaluation episodes).

    Returns:
        A `numpy.random.SeedSequence`, independent of the other streams of the same seed.

    Raises:
        ValueError: `seed` is negative or not an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed is an integer ≥ 0, got {seed!r}.")
    return np.random.SeedSequence(int(seed), spawn_key=(_STREAMS.index(name),))


def child(sequence: np.random.SeedSequence, *key: int) -> np.random.SeedSequence:
    """Return the child of a seed sequence at `key`: a pure function, unlike `SeedSequence.spawn`."""
    return np.random.SeedSequence(sequence.entropy, spawn_key=(*sequence.spawn_key, *key))


def integer_seed(sequence: np.random.SeedSequence) -> int:
    """Return a 31-bit integer seed, the kind that Keras initializers and environments take."""
    return int(sequence.generate_state(1)[0] >> 1)


class Seeds:
    """Numbered seeds for the functions below: a pure function of a stream. A block of them costs as much as a few."""

    def __init__(self, sequence: np.random.SeedSequence) -> None:
        self._sequence = sequence
        self._blocks: dict[int, np.ndarray] = {}  # the last one

    def __call__(self, first: int, count: int) -> np.ndarray:
        """Return the seeds `first … first + count − 1`, int32 (count, 2)."""
        at = first % _BLOCK
        if at + count <= _BLOCK:
            return self._block(first // _BLOCK)[at : at + count]
        return np.stack([self._block(n // _BLOCK)[n % _BLOCK] for n in range(first, first + count)])

    def _block(self, number: int) -> np.ndarray:
        if number not in self._blocks:
            words = child(self._sequence, number).generate_state(2 * _BLOCK)
            self._blocks = {number: words.view(np.int32).reshape(_BLOCK, 2)}
        return self._blocks[number]


def permutations(seed: Any, count: int, length: int) -> Any:
    """Return `count` independent random permutations of `0 … length − 1`, the same eager and compiled.

    On a CPU, sorting random keys takes an XLA program as long as a whole epoch of a small network. So if the length has a
    divisor from 8 to its root, the numbers are laid out on a torus, and four times each column moves down and each row to the
    right, by a random distance each. Every number reaches every place equally often, and as far as tests can tell, sets of
    numbers spread over parts of the result as if all permutations were equally likely. Other lengths are sorted.

    Args:
        seed: int32 (2,).
        count: how many.
        length: of each.

    Returns:
        int32 (count, length).

    Source: an unbalanced Feistel network, Luby & Rackoff (1988), with tables of random numbers.
    """
    import tensorflow as tf

    height = max(d for d in range(1, math.isqrt(length) + 1) if length % d == 0)
    if height < _LEAST_HEIGHT:
        return tf.argsort(tf.bitcast(bits(split(seed, count), length), tf.int32), axis=-1, stable=True)
    width = length // height
    distances = uniform(split(seed, count), (_ROUNDS, height + width))
    right = tf.cast(distances[..., :height] * float(width), tf.int32)
    down = tf.cast(distances[..., height:] * float(height), tf.int32)
    place = tf.broadcast_to(tf.range(length), (count, length))
    row, column = place // width, place % width
    for i in range(_ROUNDS):
        row = (row + tf.gather(down[:, i], column, batch_dims=1)) % height
        column = (column + tf.gather(right[:, i], row, batch_dims=1)) % width
    return row * width + column


def seed_of(sequence: np.random.SeedSequence) -> np.ndarray:
    """Return a seed for the functions below, int32 (2,)."""
    return sequence.generate_state(2).view(np.int32)


def bits(seed: Any, count: int) -> Any:
    """Return random bits.

    Args:
        seed: int32 (…, 2).
        count: how many words for each seed.

    Returns:
        uint32 (…, count).
    """
    import tensorflow as tf

    x, y = pairs(seed, (count + 1) // 2)
    # Not a stack, for which XLA would compile everything that x and y come from twice.
    words = tf.where(tf.constant([True, False]), x[..., None], y[..., None])
    return tf.reshape(words, tf.concat([tf.shape(words)[:-2], [-1]], axis=0))[..., :count]


def pairs(seed: Any, count: int) -> tuple[Any, Any]:
    """Return random bits in two words each, which XLA computes several times faster than twice as many in one array.

    Args:
        seed: int32 (…, 2).
        count: how many pairs for each seed.

    Returns:
        Two of uint32 (…, count).
    """
    import tensorflow as tf

    numbers = tf.range(count, dtype=tf.int32)
    return _threefry(_key(seed), tf.zeros_like(numbers), numbers)


def uniform(seed: Any, shape: tuple[int, ...] = ()) -> Any:
    """Return numbers from [0, 1), multiples of 2⁻²⁴.

    Args:
        seed: int32 (…, 2).
        shape: of the numbers for each seed.

    Returns:
        float32 (…, *shape).
    """
    return _shaped(_fractions(bits(seed, math.prod(shape))), shape)


def normal(seed: Any, shape: tuple[int, ...] = ()) -> Any:
    """Return standard normal numbers, by the method of Box and Muller, from −5.8 to 5.8.

    Args:
        seed: int32 (…, 2).
        shape: of the numbers for each seed.

    Returns:
        float32 (…, *shape).
    """
    import tensorflow as tf

    first, second = (_fractions(words) for words in pairs(seed, math.prod(shape)))
    return _shaped(tf.sqrt(-2.0 * tf.math.log(1.0 - first)) * tf.cos(2.0 * math.pi * second), shape)


def integers(seed: Any, bound: int, shape: tuple[int, ...] = ()) -> Any:
    """Return integers 0 … bound − 1, equally likely up to a share of bound · 2⁻²⁴.

    Args:
        seed: int32 (…, 2).
        bound: at most 2¹⁶.
        shape: of the numbers for each seed.

    Returns:
        int32 (…, *shape).
    """
    import tensorflow as tf

    return tf.cast(uniform(seed, shape) * float(bound), tf.int32)


def split(seed: Any, count: int) -> Any:
    """Return seeds that are independent of each other and of the one they come from.

    Args:
        seed: int32 (…, 2).
        count: how many for each.

    Returns:
        int32 (…, count, 2).
    """
    import tensorflow as tf

    # A stack, of which XLA reads either word back without computing the other one again; likewise in `fold_in`.
    return tf.bitcast(tf.stack(pairs(seed, count), axis=-1), tf.int32)


def fold_in(seed: Any, number: Any) -> Any:
    """Return the seed that belongs to a number, such as a time step.

    Args:
        seed: int32 (…, 2).
        number: int32, broadcastable to (…).

    Returns:
        int32 (…, 2).
    """
    import tensorflow as tf

    # A first counter that `bits` never uses.
    number = tf.convert_to_tensor(number, tf.int32)[..., None]
    x, y = _threefry(_key(seed), tf.ones_like(number), number)
    return tf.bitcast(tf.concat([x, y], axis=-1), tf.int32)


def _fractions(words: Any) -> Any:
    """Return the upper 24 bits of uint32 words as float32 of [0, 1)."""
    import tensorflow as tf

    upper = tf.bitwise.right_shift(words, tf.constant(8, tf.uint32))
    return tf.cast(tf.bitcast(upper, tf.int32), tf.float32) * 2.0**-24


def _shaped(numbers: Any, shape: tuple[int, ...]) -> Any:
    """Return numbers (…, k) as (…, *shape)."""
    import tensorflow as tf

    return tf.reshape(numbers, tf.concat([tf.shape(numbers)[:-1], tf.constant(shape, tf.int32)], axis=0))


def _key(seed: Any) -> tuple[Any, Any]:
    """Return the two words of each seed, uint32 (…, 1)."""
    import tensorflow as tf

    words = tf.bitcast(tf.convert_to_tensor(seed, tf.int32), tf.uint32)
    return words[..., :1], words[..., 1:]


def _threefry(key: tuple[Any, Any], x: Any, y: Any) -> tuple[Any, Any]:
    """Scramble two words of counters, int32 (k,), by keys, uint32 (…, 1), into two of uint32 (…, k)."""
    import tensorflow as tf

    shape = tf.broadcast_static_shape(key[0].shape, x.shape)
    words: tuple[Any, Any] = _scrambler()(*key, tf.bitcast(x, tf.uint32), tf.bitcast(y, tf.uint32))
    for word in words:
        word.set_shape(shape)
    return words


@functools.cache
def _scrambler() -> Any:
    """Return the rounds of Threefry for any shapes, traced once: a program draws from it in a dozen places."""
    import tensorflow as tf

    def scrambled(first: Any, second: Any, x: Any, y: Any) -> tuple[Any, Any]:
        both = tf.bitwise.bitwise_xor(first, second)
        keys = (first, second, tf.bitwise.bitwise_xor(both, tf.constant(0x1BD11BDA, tf.uint32)))
        x, y = x + keys[0], y + keys[1]
        for block in range(5):
            for rotation in _ROTATIONS[block % 2]:
                x += y
                left = tf.bitwise.left_shift(y, tf.constant(rotation, tf.uint32))
                right = tf.bitwise.right_shift(y, tf.constant(32 - rotation, tf.uint32))
                y = tf.bitwise.bitwise_xor(tf.bitwise.bitwise_or(left, right), x)
            x += keys[(block + 1) % 3]
            y += keys[(block + 2) % 3] + tf.constant(block + 1, tf.uint32)
        return x, y

    return tf.function(scrambled, input_signature=[tf.TensorSpec(None, tf.uint32)] * 4, autograph=False)
