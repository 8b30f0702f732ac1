"""The action that the network says: the policy of agents that follow how a critic's value grows with the action."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad import random
from rlgrad.core.importing import lazy
from rlgrad.distributions.protocol import rank_of, require_noise

if TYPE_CHECKING:
    import tensorflow as tf
else:  # acting needs none
    tf = lazy("tensorflow")

_LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Deterministic:
    """The tanh of a network's output, in half-widths of the action space: −1 is its lower bound, 1 its upper bound.

    Parameters: the action μ, float (…, *shape). Rollouts store actions in half-widths; the environment gets them within its
    bounds. With a `deviation`, as training adds it to explore, actions are μ + deviation · ε, and what is stored may lie
    outside of −1 … 1.

    Args:
        low: float, lower bound of the environment's actions, finite, broadcastable to an action's shape.
        high: float, upper bound, finite.
        rank: number of axes of one action.
        dtype: of the environment's actions; for integers, actions are rounded.
        deviation: standard deviation of Gaussian noise on the action, in half-widths; a tensor in compiled programs.
    """

    low: Any
    high: Any
    rank: int = 1
    dtype: Any = np.float32
    deviation: Any = 0.0

    def noisy(self, deviation: Any) -> Deterministic:
        """Return the same with noise of this standard deviation, in half-widths."""
        return replace(self, deviation=deviation)

    def assemble(self, raw: Any, log_std: Any) -> Any:
        """Return the tanh of what the network says."""
        if isinstance(raw, np.ndarray):
            return np.tanh(raw)
        from keras import ops  # exported models are built of these

        return ops.tanh(raw)

    def log_std_shape(self, raw_shape: tuple[int, ...]) -> None:
        """Return `None`: there are no log standard deviations to learn."""

    def batch_rank(self, parameters: Any) -> int:
        """Return the number of axes before those of an action."""
        return rank_of(parameters) - self.rank

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Return the log density of μ + deviation · ε, per half-width, shape (…); zeros without noise, where there is none."""
        if isinstance(self.deviation, float) and self.deviation == 0.0:
            return tf.zeros_like(tf.reduce_sum(parameters, axis=self._event_axes))
        z = (tf.cast(actions, parameters.dtype) - parameters) / self.deviation
        terms = -0.5 * z * z - tf.math.log(tf.cast(self.deviation, z.dtype)) - 0.5 * _LOG_2PI
        return tf.where(tf.cast(self.deviation, z.dtype) > 0.0, tf.reduce_sum(terms, axis=self._event_axes), 0.0)

    def entropy(self, parameters: Any) -> tf.Tensor:
        """Raise a TypeError: the action is certain."""
        raise self._no_density("entropy")

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """Raise a TypeError: two such policies are equal or infinitely far apart."""
        raise self._no_density("KL divergence, so no trust region or natural gradient")

    def fisher_product(self, parameters: Any, tangents: Any) -> Any:
        """Raise, as `kl_divergence` does."""
        return self.kl_divergence(parameters, parameters)

    def reparameterized(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Return μ + deviation · ε: μ itself, but for the policy of training."""
        action = tf.convert_to_tensor(parameters)
        return action + self.deviation * require_noise(noise, action)

    def reparameterized_log_prob(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Raise a TypeError: the action is certain."""
        raise self._no_density("log-probability")

    def told(self, actions: Any) -> tf.Tensor:
        """TensorFlow: return stored actions as a critic is told them, −1 … 1."""
        return tf.clip_by_value(actions, -1.0, 1.0)

    def check_actions(self, actions: Any) -> tf.Tensor:
        """Return floating-point actions. Raise a TypeError for others."""
        actions = tf.convert_to_tensor(actions)
        if not actions.dtype.is_floating:
            raise TypeError(f"A deterministic policy takes floating-point actions, got {actions.dtype.name}.")
        return actions

    def noise(self, parameters: Any, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return standard normal ε, float32 (count, …, *shape); without a deviation no numbers."""
        if self.deviation == 0.0:
            return np.zeros((count, 0), np.float32)
        return generator.standard_normal((count, *parameters.shape), dtype=np.float32)

    def pick(self, parameters: Any, noise: Any) -> np.ndarray:
        """Return μ + deviation · ε."""
        actions: np.ndarray = parameters if self.deviation == 0.0 else parameters + np.float32(self.deviation) * noise
        return actions

    def numpy_log_prob(self, parameters: Any, actions: np.ndarray) -> np.ndarray:
        """Return the log density of noisy actions, per half-width, shape (…); zeros without noise, where there is none."""
        if self.deviation == 0.0:
            return np.zeros(actions.shape[: actions.ndim - self.rank], np.float32)
        deviation = np.float32(self.deviation)
        z = (actions - parameters) / deviation
        log_probs: np.ndarray = np.sum(-0.5 * z * z - np.log(deviation) - 0.5 * _LOG_2PI, axis=self._event_axes)
        return log_probs

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the action, with noise if there is any."""
        actions = self.pick(parameters, self.noise(parameters, generator, 1)[0])
        return actions, self.numpy_log_prob(parameters, actions)

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the action without noise."""
        return parameters, self.numpy_log_prob(parameters, parameters)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Return the action within the environment's bounds, in its dtype."""
        inside = self.low + (np.asarray(self.high) - self.low) * 0.5 * (np.clip(actions, -1.0, 1.0) + 1.0)
        if np.issubdtype(self.dtype, np.integer):
            inside = np.rint(inside)
        result: np.ndarray = np.asarray(inside).astype(self.dtype, copy=False)
        return result

    def draw(self, parameters: Any, seeds: Any) -> tf.Tensor:
        """Return the action, with noise if there is any."""
        if isinstance(self.deviation, float) and self.deviation == 0.0:
            return tf.convert_to_tensor(parameters)
        noise = random.normal(seeds, tuple(parameters.shape[parameters.shape.rank - self.rank :]))
        return parameters + self.deviation * noise

    def most_likely(self, parameters: Any) -> tf.Tensor:
        """Return the action without noise."""
        return tf.convert_to_tensor(parameters)

    def for_environment(self, actions: tf.Tensor) -> tf.Tensor:
        """Return the action within the environment's bounds, in its dtype."""
        low, high = (np.asarray(bound, np.float32) for bound in (self.low, self.high))
        return self._in_dtype(
            low + (high - low) * 0.5 * (tf.clip_by_value(actions, -1.0, 1.0) + 1.0), tf.round, tf.cast
        )

    def keras_actions(self, parameters: Any, name: str) -> dict[str, Any]:
        """Keras: the action within the environment's bounds, in its dtype."""
        from keras import ops

        low, high = (np.asarray(bound, np.float32) for bound in (self.low, self.high))
        return {name: self._in_dtype(0.5 * (parameters + 1.0) * (high - low) + low, ops.round, ops.cast)}

    def uniform(self, numbers: Any, arctanh: Any = np.arctanh) -> Any:
        """NumPy and TensorFlow: return stored actions that are uniform in the space, from numbers uniform in 0 … 1."""
        del arctanh
        return 2.0 * numbers - 1.0

    @property
    def uniform_log_density(self) -> float:
        """The log density of `uniform` actions, per half-width, in nats."""
        return -math.log(2.0) * math.prod(np.broadcast(self.low, self.high).shape)

    def _in_dtype(self, actions: Any, rounded: Any, cast: Any) -> Any:
        dtype = np.dtype(self.dtype)
        return cast(rounded(actions) if np.issubdtype(dtype, np.integer) else actions, dtype.name)

    def _no_density(self, what: str) -> TypeError:
        return TypeError(
            f"The action of a deterministic policy is certain: it has no {what}. Credit its action, with the slope of a critic."
        )

    @property
    def _event_axes(self) -> tuple[int, ...]:
        return tuple(range(-self.rank, 0))
