"""All randomness of a run comes from one seed, split here into independent named streams.

TensorFlow's own float samplers give different numbers under XLA than without it, for the same seed. Random numbers inside
compiled programs are therefore built here, from integer bits that agree in every mode.
"""

from typing import Any, Literal

import numpy as np

StreamName = Literal["init", "action", "environment", "shuffle", "evaluation"]
_STREAMS: tuple[StreamName, ...] = ("init", "action", "environment", "shuffle", "evaluation")


def stream(seed: int, name: StreamName) -> np.random.SeedSequence:
    """The seed sequence of one named stream of a run.

    Args:
        seed: the run's seed, an integer ≥ 0.
        name: `"init"` (weights), `"action"` (the policy's samples), `"environment"` (resets), `"shuffle"` (minibatches) or
            `"evaluation"` (resets and samples of evaluation episodes).

    Returns:
        A `numpy.random.SeedSequence`, independent of the other streams of the same seed.

    Raises:
        ValueError: `seed` is negative or no integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed is an integer ≥ 0, got {seed!r}.")
    return np.random.SeedSequence(int(seed), spawn_key=(_STREAMS.index(name),))


def child(sequence: np.random.SeedSequence, *key: int) -> np.random.SeedSequence:
    """The child of a seed sequence at `key`: a pure function, unlike `SeedSequence.spawn`."""
    return np.random.SeedSequence(sequence.entropy, spawn_key=(*sequence.spawn_key, *key))


def integer_seed(sequence: np.random.SeedSequence) -> int:
    """A 31-bit integer seed, the kind that Keras initializers and environments take."""
    return int(sequence.generate_state(1)[0] >> 1)


def permutations(seed: Any, count: int, length: int) -> Any:
    """`count` independent random permutations of `0 … length − 1`, the same eager and compiled.

    Args:
        seed: int32 (2,).
        count: how many.
        length: how long each is.

    Returns:
        int32 (count, length).
    """
    import tensorflow as tf

    # "philox" by name: the automatic choice is another algorithm under XLA.
    keys = tf.random.stateless_uniform((count, length), seed, minval=None, maxval=None, dtype=tf.int32, alg="philox")
    return tf.argsort(keys, axis=-1, stable=True)
