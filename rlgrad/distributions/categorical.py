"""One of several actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad import random
from rlgrad.core.importing import lazy
from rlgrad.distributions.protocol import (
    IMPOSSIBLE,
    integers,
    keras_argmax,
    log_softmax,
    rank_of,
    refuse_reparameterization,
    require_within,
)

if TYPE_CHECKING:
    import tensorflow as tf
else:  # acting needs none
    tf = lazy("tensorflow")

_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Categorical:
    """One of `num_actions` actions. Parameters: logits, float (…, num_actions); actions: int (…), from 0.

    Args:
        num_actions: the number of actions; `None` leaves the check of the logits' width to the caller.
        start: the environment's number of action 0 (`gymnasium.spaces.Discrete.start`).
    """

    num_actions: int | None = None
    start: int = 0

    def allowed(self, parameters: Any) -> Any:
        """NumPy and TensorFlow: return bool (…, num_actions), false for actions that a mask forbids."""
        return parameters > IMPOSSIBLE / 2

    def assemble(self, raw: Any, log_std: Any) -> Any:
        """Return the logits."""
        return raw

    def log_std_shape(self, raw_shape: tuple[int, ...]) -> None:
        """Return `None`: there are no log standard deviations."""

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Return log softmax(logits)[a], shape (…)."""
        log_probs = tf.nn.log_softmax(parameters)
        chosen = tf.one_hot(actions, tf.shape(parameters)[-1], on_value=True, off_value=False, dtype=tf.bool)
        return tf.reduce_sum(tf.where(chosen, log_probs, tf.zeros_like(log_probs)), axis=-1)

    def batch_rank(self, parameters: Any) -> int:
        """Return the number of axes before those of the logits."""
        return rank_of(parameters) - 1

    def entropy(self, parameters: Any) -> tf.Tensor:
        """Return −Σ_a π(a) log π(a) in nats, shape (…)."""
        log_probs = tf.nn.log_softmax(parameters)
        return -tf.reduce_sum(tf.exp(log_probs) * log_probs, axis=-1)

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """Return Σ_a π(a) (log π(a) − log π′(a)) in nats, shape (…)."""
        log_probs = tf.nn.log_softmax(parameters)
        return tf.reduce_sum(tf.exp(log_probs) * (log_probs - tf.nn.log_softmax(other)), axis=-1)

    def fisher_product(self, parameters: Any, tangents: Any) -> tf.Tensor:
        """Return (diag(p) − p pᵀ) v of each row: the Fisher matrix of the logits times v, shape (…, num_actions)."""
        p = tf.nn.softmax(parameters)
        return p * (tangents - tf.reduce_sum(p * tangents, axis=-1, keepdims=True))

    def reparameterized(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Raise a TypeError: an action is one of several."""
        raise refuse_reparameterization(self)

    def reparameterized_log_prob(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Raise a TypeError: an action is one of several."""
        raise refuse_reparameterization(self)

    def check_actions(self, actions: Any) -> tf.Tensor:
        """Return integer actions. Raise if they are not within `0 … num_actions − 1`, as far as they are known when called."""
        actions = integers(actions, "categorical")
        if self.num_actions is not None:
            require_within(actions, self.num_actions)
        return actions

    def noise(self, parameters: Any, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return gumbel numbers −log e, e exponential, float32 (count, …, num_actions)."""
        exponential = generator.standard_exponential((count, *parameters.shape))
        gumbel: np.ndarray = -np.log(np.maximum(exponential, _TINY))
        return gumbel.astype(np.float32)

    def pick(self, parameters: Any, noise: Any) -> np.ndarray:
        """Return the index of the largest logit plus noise.

        These are two operations, where the inverse of the cumulative distribution takes eight.
        """
        actions: np.ndarray = (parameters + noise).argmax(axis=-1)
        return actions

    def numpy_log_prob(self, parameters: Any, actions: np.ndarray) -> np.ndarray:
        """Return log softmax(logits)[a], shape (…)."""
        log_probs: np.ndarray = np.take_along_axis(log_softmax(parameters), actions[..., None], axis=-1)[..., 0]
        return log_probs

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sample by the largest logit plus Gumbel noise."""
        actions = self.pick(parameters, self.noise(parameters, generator, 1)[0])
        return actions, self.numpy_log_prob(parameters, actions)

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the action of the largest logit; of equal ones, the first."""
        actions = np.argmax(parameters, axis=-1)
        return actions, self.numpy_log_prob(parameters, actions)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Return the action counted from `start`."""
        return actions + self.start if self.start else actions

    def draw(self, parameters: Any, seeds: Any) -> tf.Tensor:
        """Sample by the inverse of the cumulative distribution, with one uniform number an action."""
        cumulative = tf.cumsum(tf.nn.softmax(parameters), axis=-1)
        uniforms = random.uniform(seeds)[..., None] * cumulative[..., -1:]
        return tf.reduce_sum(tf.cast(uniforms >= cumulative[..., :-1], tf.int64), axis=-1)

    def most_likely(self, parameters: Any) -> tf.Tensor:
        """Return the action of the largest logit; of equal ones, the first."""
        return tf.argmax(parameters, axis=-1, output_type=tf.int64)

    def for_environment(self, actions: tf.Tensor) -> tf.Tensor:
        """Return the action counted from `start`."""
        return actions + self.start if self.start else actions

    def keras_actions(self, parameters: Any, name: str) -> dict[str, Any]:
        """Keras: the most likely action, counted from `start`."""
        return {name: keras_argmax(parameters) + self.start}
