"""Standardization of observations by their running mean and deviation."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad.mirrors.chains import standardize


class RunningNormalizer(keras.layers.Layer):
    """clip((x − mean) / √(variance + ε), ±limit), over every observation seen so far.

    The statistics are weights of the layer: saved and exported with the policy, and frozen until `update` is called, so that
    acting and every epoch of the update that follows see the same numbers. Before the first update it is the identity but
    for the limit.

    Args:
        shape: one observation's shape.
        limit: in standard deviations; a larger value is cut to it.
        epsilon: added to the variance.
        kwargs: for `keras.layers.Layer`.
    """

    def __init__(self, shape: tuple[int, ...], limit: float = 10.0, epsilon: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(**kwargs | {"trainable": False})
        self.shape, self.limit, self.epsilon = tuple(shape), limit, epsilon
        # In float64: a float32 count stops growing at 2²⁴ steps.
        options = {"dtype": "float64", "trainable": False, "autocast": False}
        self.mean = self.add_weight(shape=self.shape, initializer="zeros", name="mean", **options)
        self.variance = self.add_weight(shape=self.shape, initializer="ones", name="variance", **options)
        self.count = self.add_weight(shape=(), initializer="zeros", name="count", **options)
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Return (…, *shape) standardized, in float32."""
        mean, deviation = self.moments()
        return tf.clip_by_value((tf.cast(x, tf.float32) - mean) / deviation, -self.limit, self.limit)

    def moments(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return mean and standard deviation, float32."""
        deviation = tf.sqrt(self.variance.value + self.epsilon)
        return tf.cast(self.mean.value, tf.float32), tf.cast(deviation, tf.float32)

    def update(self, observations: tf.Tensor, mask: tf.Tensor) -> None:
        """Merge a rollout's observations into the statistics.

        Args:
            observations: (M, *shape).
            mask: float (M,), 0 for rows that do not count.

        Source: Chan, Golub & LeVeque (1983), the pairwise merge of means and sums of squares.
        """
        x = tf.cast(observations, tf.float64)
        mask = tf.cast(mask, tf.float64)
        rows = tf.reshape(mask, (-1,) + (1,) * len(self.shape))
        added = tf.reduce_sum(mask)
        mean = tf.reduce_sum(rows * x, axis=0) / tf.maximum(added, 1.0)
        squares = tf.reduce_sum(rows * tf.square(x - mean), axis=0)
        total = tf.maximum(self.count.value + added, 1.0)
        gap = mean - self.mean.value
        squares += self.variance.value * self.count.value + tf.square(gap) * self.count.value * added / total
        self.mean.assign(self.mean.value + gap * added / total)
        self.variance.assign(tf.where(self.count.value + added > 0.0, squares / total, self.variance.value))
        self.count.assign(self.count.value + added)

    def numpy_function(self, mean: np.ndarray, deviation: np.ndarray) -> Any:
        """Return the layer as a function of NumPy arrays, at these `moments`."""
        return standardize(self.limit, mean, deviation)

    def get_config(self) -> dict[str, Any]:
        """Return constructor arguments."""
        return {**super().get_config(), "shape": self.shape, "limit": self.limit, "epsilon": self.epsilon}
