"""Several switches at once, each on or off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad import random
from rlgrad.core.importing import lazy
from rlgrad.distributions.protocol import integers, rank_of, refuse_reparameterization, require_within

if TYPE_CHECKING:
    import tensorflow as tf
else:  # acting needs none
    tf = lazy("tensorflow")


@dataclass(frozen=True)
class Bernoulli:
    """Independent switches. Parameters: logits of being on, float (…, *shape); actions: int (…, *shape), 0 or 1.

    Args:
        rank: number of axes of one action.
    """

    rank: int = 1

    def assemble(self, raw: Any, log_std: Any) -> Any:
        """Return the logits."""
        return raw

    def log_std_shape(self, raw_shape: tuple[int, ...]) -> None:
        """Return `None`: there are no log standard deviations."""

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Return Σ_i a_i log p_i + (1 − a_i) log(1 − p_i), shape (…)."""
        signed = tf.where(tf.cast(actions, tf.bool), parameters, -parameters)
        return -tf.reduce_sum(tf.nn.softplus(-signed), axis=self._event_axes)

    def batch_rank(self, parameters: Any) -> int:
        """Return the number of axes before those of the logits."""
        return rank_of(parameters) - self.rank

    def entropy(self, parameters: Any) -> tf.Tensor:
        """Return −Σ_i p_i log p_i + (1 − p_i) log(1 − p_i) in nats, shape (…)."""
        p = tf.nn.sigmoid(parameters)
        return tf.reduce_sum(tf.nn.softplus(parameters) - p * parameters, axis=self._event_axes)

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """Return Σ_i p_i log(p_i / q_i) + (1 − p_i) log((1 − p_i) / (1 − q_i)) in nats, shape (…)."""
        p = tf.nn.sigmoid(parameters)
        terms = p * (parameters - other) - tf.nn.softplus(parameters) + tf.nn.softplus(other)
        return tf.reduce_sum(terms, axis=self._event_axes)

    def fisher_product(self, parameters: Any, tangents: Any) -> tf.Tensor:
        """Return each switch's p (1 − p) times v, shape (…, *shape)."""
        p = tf.nn.sigmoid(parameters)
        return p * (1.0 - p) * tangents

    def reparameterized(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Raise a TypeError: a switch is on or off."""
        raise refuse_reparameterization(self)

    def reparameterized_log_prob(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Raise a TypeError: a switch is on or off."""
        raise refuse_reparameterization(self)

    def check_actions(self, actions: Any) -> tf.Tensor:
        """Return integer actions. Raise if they are not 0 or 1, as far as they are known when called."""
        actions = integers(actions, "Bernoulli")
        require_within(actions, 2)
        return actions

    def noise(self, parameters: Any, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return one uniform number a switch, (count, …, *shape)."""
        return generator.random((count, *parameters.shape))

    def pick(self, parameters: Any, noise: Any) -> np.ndarray:
        """Return 1 for each switch whose number is below its probability, else 0."""
        on: np.ndarray = noise < 1.0 / (1.0 + np.exp(-parameters.astype(np.float64)))
        return on.astype(np.int64)

    def numpy_log_prob(self, parameters: Any, actions: np.ndarray) -> np.ndarray:
        """Return Σ_i a_i log p_i + (1 − a_i) log(1 − p_i), shape (…)."""
        signed = np.where(actions.astype(np.bool_), parameters, -parameters)
        log_probs: np.ndarray = -np.logaddexp(0.0, -signed).sum(axis=self._event_axes)
        return log_probs.astype(np.float32)

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sample with one uniform number a switch."""
        actions = self.pick(parameters, self.noise(parameters, generator, 1)[0])
        return actions, self.numpy_log_prob(parameters, actions)

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return 1 for each switch whose probability is above one half, else 0."""
        actions = (parameters > 0.0).astype(np.int64)
        return actions, self.numpy_log_prob(parameters, actions)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Return the actions as int8, the dtype of `gymnasium.spaces.MultiBinary`."""
        return actions.astype(np.int8)

    def draw(self, parameters: Any, seeds: Any) -> tf.Tensor:
        """Sample with one uniform number a switch."""
        uniforms = random.uniform(seeds, tuple(parameters.shape[-self.rank :]))
        return tf.cast(uniforms < tf.nn.sigmoid(parameters), tf.int64)

    def most_likely(self, parameters: Any) -> tf.Tensor:
        """Return 1 for each switch whose probability is above one half, else 0."""
        return tf.cast(parameters > 0.0, tf.int64)

    def for_environment(self, actions: tf.Tensor) -> tf.Tensor:
        """Return the actions as int8, the dtype of `gymnasium.spaces.MultiBinary`."""
        return tf.cast(actions, tf.int8)

    def keras_actions(self, parameters: Any, name: str) -> dict[str, Any]:
        """Keras: on where its probability is above one half, as int8."""
        from keras import ops

        return {name: ops.cast(parameters > 0.0, "int8")}

    @property
    def _event_axes(self) -> tuple[int, ...]:
        return tuple(range(-self.rank, 0))
