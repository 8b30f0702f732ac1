"""From what an environment shows to what a network sees.

Numbers are float32, standardized if asked; bytes become shares of 255; choices (Discrete, MultiDiscrete, MultiBinary) stay
integers, which the default network turns into one-hot vectors. An action mask is no observation: it is taken out, and the
policy gives what it forbids probability 0.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlgrad.policies.normalizer import RunningNormalizer
from rlgrad.spaces.masks import MASK, OBSERVATION, has_mask
from rlgrad.spaces.trees import map_arrays, storage


def seen_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """What of an observation space a network sees: all but the action mask."""
    if not has_mask(space):
        return space
    rest = {key: inner for key, inner in space.items() if key != MASK}
    return rest[OBSERVATION] if set(rest) == {OBSERVATION} else spaces.Dict(rest)


def without_mask(observations: Any) -> Any:
    """What `seen_space` keeps, of observations."""
    rest = {key: inner for key, inner in observations.items() if key != MASK}
    return rest[OBSERVATION] if set(rest) == {OBSERVATION} else rest


def observation_spec(space: spaces.Space[Any]) -> Any:
    """A tree of `tf.TensorSpec`s of a batch of observations as they are stored, (None, …).

    Raises:
        ValueError: a space without fixed shape, with what to wrap it in; or without a single number.
    """
    stored = storage(space, (1,))
    if not any(leaf.size for leaf in tf.nest.flatten(stored)):
        raise ValueError(f"{space} shows nothing, and a policy needs at least one number: a constant one, if need be.")
    return map_arrays(lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), stored)


class Preparation(keras.layers.Layer):
    """A tree of observations as they are stored, (…, *leaf shape), to what networks see. Holds the normalizers.

    Args:
        space: what a network is to see of the observation space.
        normalize: put a `RunningNormalizer` before every leaf of floating-point numbers.
    """

    def __init__(self, space: spaces.Space[Any], normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(trainable=False, autocast=False, **kwargs)
        self.kinds = kinds = tuple(tf.nest.flatten(_kinds(space)))
        shapes = [tuple(spec.shape[1:]) for spec in tf.nest.flatten(observation_spec(space))]
        names = ["normalizer"] if len(kinds) == 1 else [f"normalizer_{i}" for i in range(len(kinds))]
        self.normalizers = [
            RunningNormalizer(shape, name=name) if normalize and kind == "number" else None
            for kind, shape, name in zip(kinds, shapes, names, strict=True)
        ]
        self.built = True

    def call(self, observations: Any) -> Any:
        """The tree as networks see it."""
        leaves = tf.nest.flatten(observations)
        seen = [
            _prepared(kind, leaf) if normalizer is None else normalizer(leaf)
            for kind, normalizer, leaf in zip(self.kinds, self.normalizers, leaves, strict=True)
        ]
        return tf.nest.pack_sequence_as(observations, seen)

    def update(self, observations: Any, mask: tf.Tensor) -> None:
        """Merge a rollout's observations into the statistics.

        Args:
            observations: (M, …).
            mask: float (M,), 0 for rows that do not count.
        """
        for normalizer, leaf in zip(self.normalizers, tf.nest.flatten(observations), strict=True):
            if normalizer is not None:
                normalizer.update(leaf, mask)

    def moments(self) -> tuple[tf.Tensor, ...]:
        """What `numpy_function` takes, for an observation that is one array."""
        (normalizer,) = self.normalizers
        return () if normalizer is None else normalizer.moments()

    def numpy_function(self, *moments: np.ndarray) -> Any:
        """The layer as a function of NumPy arrays, at these `moments`, for an observation that is one array."""
        (normalizer,), (kind,) = self.normalizers, self.kinds
        if normalizer is not None:
            return normalizer.numpy_function(*moments)
        return (lambda x: x.astype(np.float32) / np.float32(255)) if kind == "bytes" else _as_float32


def _kinds(space: spaces.Space[Any]) -> Any:
    """`"number"`, `"bytes"`, `"integers"` or `"choice"` for each leaf."""
    if isinstance(space, spaces.Dict):
        return {key: _kinds(inner) for key, inner in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_kinds(inner) for inner in space)
    if not isinstance(space, spaces.Box):
        return "choice"
    if np.issubdtype(space.dtype, np.floating):
        return "number"
    return "bytes" if space.dtype == np.uint8 and space.high.max() == 255 else "integers"


def _prepared(kind: str, leaf: Any) -> Any:
    if kind == "choice":
        return tf.cast(leaf, tf.int32)
    x = tf.cast(leaf, tf.float32)
    return x / 255.0 if kind == "bytes" else x


def _as_float32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32, copy=False)
