"""From stored observations to the input of a network: each leaf prepared by its encoder, then normalized if asked."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlgrad.policies.normalizer import RunningNormalizer
from rlgrad.spaces.encoder import Encoder
from rlgrad.spaces.table import encoder_tree
from rlgrad.spaces.trees import map_arrays, storage


def observation_spec(space: spaces.Space[Any]) -> Any:
    """Return a tree of `tf.TensorSpec`s of a batch of stored observations, (None, …).

    Raises:
        ValueError: a leaf has no encoder, with what to wrap it in; or the space holds not a single number.
    """
    empty = storage(space, (1,))
    if not any(leaf.size for leaf in tf.nest.flatten(empty)):
        raise ValueError(f"{space} shows nothing, and a policy needs at least one number: a constant one, if need be.")
    return map_arrays(lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), empty)


class Preparation(keras.layers.Layer):
    """A tree of stored observations (N, *leaf shape) to the input of networks. Holds the normalizers.

    Args:
        space: of the observations, without an action mask.
        normalize: put a `RunningNormalizer` behind every leaf of floating-point numbers.

    Attributes:
        encoders: of the leaves, in the order of `tf.nest`.
        normalizers: of the same leaves; `None` for a leaf that is not normalized.
    """

    def __init__(self, space: spaces.Space[Any], normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(trainable=False, autocast=False, **{"dtype": "float32", **kwargs})
        self.encoders: tuple[Encoder, ...] = tuple(tf.nest.flatten(encoder_tree(space)))
        several = len(self.encoders) > 1
        self.normalizers = [
            RunningNormalizer(
                encoder.input_spec()[0], name=f"normalizer_{i}" if several else "normalizer", dtype="float32"
            )
            if normalize and encoder.normalizes()
            else None
            for i, encoder in enumerate(self.encoders)
        ]
        self._standardized = False
        self.built = True

    def call(self, observations: Any) -> Any:
        """Return the tree that networks take."""
        if self._standardized:
            return self._rest_prepared(observations)
        prepared = [
            x if normalizer is None else normalizer(x)
            for x, normalizer in zip(self._prepare(observations), self.normalizers, strict=True)
        ]
        return tf.nest.pack_sequence_as(observations, prepared)

    def update(self, observations: Any, mask: tf.Tensor) -> None:
        """Merge a rollout's observations into the statistics.

        Args:
            observations: (M, …).
            mask: float (M,), 0 for rows that do not count.
        """
        if not any(normalizer is not None for normalizer in self.normalizers):
            return
        for normalizer, x in zip(self.normalizers, self._prepare(observations), strict=True):
            if normalizer is not None:
                normalizer.update(x, mask)

    def standardize(self, observations: Any) -> Any:
        """Return observations (M, …) with their normalized leaves prepared and standardized, and the others as given."""
        leaves = tf.nest.flatten(observations)
        parts = zip(leaves, self._prepare(observations), self.normalizers, strict=True)
        return tf.nest.pack_sequence_as(
            observations, [x if normalizer is None else normalizer(prepared) for x, prepared, normalizer in parts]
        )

    @contextlib.contextmanager
    def given_standardized(self) -> Iterator[None]:
        """Trace programs that take observations as `standardize` returns them, while the context lasts."""
        self._standardized = True
        try:
            yield
        finally:
            self._standardized = False

    def moments(self) -> tuple[tf.Tensor, ...]:
        """Return what a policy in NumPy standardizes with, for an observation that is one array."""
        (normalizer,) = self.normalizers
        return () if normalizer is None else normalizer.moments()

    @property
    def has_numpy_function(self) -> bool:
        """True if the observation is one array that NumPy can prepare."""
        return len(self.encoders) == 1 and self.encoders[0].numpy_prepare() is not None

    def _rest_prepared(self, observations: Any) -> Any:
        parts = zip(self.encoders, tf.nest.flatten(observations), self.normalizers, strict=True)
        return tf.nest.pack_sequence_as(
            observations,
            [encoder.prepare(x) if normalizer is None else tf.cast(x, tf.float32) for encoder, x, normalizer in parts],
        )

    def _prepare(self, observations: Any) -> list[Any]:
        leaves = tf.nest.flatten(observations)
        return [encoder.prepare(x) for encoder, x in zip(self.encoders, leaves, strict=True)]


def zeros(specs: Any, leading: tuple[int, ...]) -> Any:
    """Return NumPy zeros for a tree of `tf.TensorSpec`s, with `leading` in the place of their first axis."""
    return tf.nest.map_structure(lambda spec: np.zeros((*leading, *spec.shape[1:]), spec.dtype.as_numpy_dtype), specs)


def like(specs: Any, observations: Any) -> Any:
    """Return a tree of arrays in the dtypes of the specs."""
    return map_arrays(lambda spec, x: np.asarray(x).astype(spec.dtype.as_numpy_dtype, copy=False), specs, observations)
