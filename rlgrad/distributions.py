"""Action distributions: pure functions of the parameters that a policy's network returns.

A layer returns tensors, never a distribution object; the object here only knows what those tensors mean. What is
differentiated is written in TensorFlow, what runs at every environment step in NumPy; tests hold the two together.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

_LOG_2PI = math.log(2.0 * math.pi)


class Distribution(Protocol):
    """What a policy needs of a distribution over actions. `…` is any number of batch axes."""

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Log π(a|s), shape (…)."""

    def entropy(self, parameters: Any) -> tf.Tensor:
        """H(π(·|s)) in nats, shape (…)."""

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """KL(π ‖ π′) in nats, shape (…), π of `parameters` and π′ of `other`."""

    def check_actions(self, actions: Any) -> tf.Tensor:
        """`actions` as a tensor of the right dtype; raises where they cannot be actions of this distribution."""

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """NumPy: sampled actions (…, event) and their log-probabilities (…)."""

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """NumPy: the most likely actions (…, event) and their log-probabilities (…)."""

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """NumPy: what `env.step` gets for these actions."""


@dataclass(frozen=True)
class Categorical:
    """One of `num_actions` actions. Parameters: logits, float (…, num_actions); actions: int (…), from 0.

    Args:
        num_actions: how many actions; `None` leaves the check of the logits' width to the caller.
        start: what the environment calls action 0 (`gymnasium.spaces.Discrete.start`).
    """

    num_actions: int | None = None
    start: int = 0

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Log softmax(logits)[a], shape (…)."""
        log_probs = tf.nn.log_softmax(parameters)
        chosen = tf.one_hot(actions, tf.shape(parameters)[-1], on_value=True, off_value=False, dtype=tf.bool)
        return tf.reduce_sum(tf.where(chosen, log_probs, tf.zeros_like(log_probs)), axis=-1)

    def entropy(self, parameters: Any) -> tf.Tensor:
        """−Σ_a π(a) log π(a) in nats, shape (…)."""
        return -tf.reduce_sum(tf.nn.softmax(parameters) * tf.nn.log_softmax(parameters), axis=-1)

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """Σ_a π(a) (log π(a) − log π′(a)) in nats, shape (…)."""
        log_probs = tf.nn.log_softmax(parameters)
        return tf.reduce_sum(tf.exp(log_probs) * (log_probs - tf.nn.log_softmax(other)), axis=-1)

    def fisher_product(self, parameters: Any, tangents: Any) -> tf.Tensor:
        """(diag(p) − p pᵀ) v of each row: the Fisher matrix of the logits times v, shape (…, num_actions)."""
        p = tf.nn.softmax(parameters)
        return p * (tangents - tf.reduce_sum(p * tangents, axis=-1, keepdims=True))

    def check_actions(self, actions: Any) -> tf.Tensor:
        """Integer actions, within `0 … num_actions − 1` where they are known when called."""
        actions = tf.convert_to_tensor(actions)
        if not actions.dtype.is_integer:
            raise TypeError(f"A categorical distribution takes integer actions, got {actions.dtype.name}.")
        known = tf.get_static_value(actions)
        if known is not None and known.size and self.num_actions is not None:
            low, high = int(known.min()), int(known.max())
            if low < 0 or high >= self.num_actions:
                raise ValueError(f"Actions are 0 … {self.num_actions - 1}, got values from {low} to {high}.")
        return actions

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """By the inverse of the cumulative distribution, one uniform number an action."""
        log_probs = _log_softmax(parameters)
        cumulative = np.cumsum(np.exp(log_probs), axis=-1)
        uniforms = generator.random(log_probs.shape[:-1])[..., None] * cumulative[..., -1:]
        return self._with_log_prob((uniforms >= cumulative[..., :-1]).sum(axis=-1), log_probs)

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """The action of the largest logit; of equal ones, the first."""
        return self._with_log_prob(np.argmax(parameters, axis=-1), _log_softmax(parameters))

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """The action counted from `start`."""
        return actions + self.start if self.start else actions

    @staticmethod
    def _with_log_prob(actions: np.ndarray, log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return actions, np.take_along_axis(log_probs, actions[..., None], axis=-1)[..., 0]


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normal actions. Parameters: `{"mean": (…, *shape), "log_std": broadcastable to it}`.

    The sampled action is what is stored and scored; the environment gets it clipped to the action space.

    Args:
        low: float, lower bound of the environment's actions, broadcastable to an action's shape.
        high: float, upper bound.
        rank: number of axes of one action.
    """

    low: Any = -math.inf
    high: Any = math.inf
    rank: int = 1

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Σ_i −½ ((a_i − μ_i)/σ_i)² − log σ_i − ½ log 2π, shape (…)."""
        mean, log_std = parameters["mean"], parameters["log_std"]
        z = (tf.cast(actions, mean.dtype) - mean) * tf.exp(-log_std)
        return tf.reduce_sum(-0.5 * z * z - log_std - 0.5 * _LOG_2PI, axis=self._event_axes)

    def entropy(self, parameters: Any) -> tf.Tensor:
        """Σ_i log σ_i + ½ log 2πe in nats, shape (…)."""
        log_std = tf.broadcast_to(parameters["log_std"], tf.shape(parameters["mean"]))
        return tf.reduce_sum(log_std + 0.5 * (_LOG_2PI + 1.0), axis=self._event_axes)

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """Σ_i log σ′_i − log σ_i + (σ_i² + (μ_i − μ′_i)²) / 2σ′_i² − ½ in nats, shape (…)."""
        ratio = parameters["log_std"] - other["log_std"]
        z = (parameters["mean"] - other["mean"]) * tf.exp(-other["log_std"])
        return tf.reduce_sum(-ratio + 0.5 * (tf.exp(2.0 * ratio) + z * z - 1.0), axis=self._event_axes)

    def fisher_product(self, parameters: Any, tangents: Any) -> dict[str, tf.Tensor]:
        """The Fisher matrix of each row times v: v/σ² for the mean, 2 v for log σ (one log σ per component)."""
        precision = tf.exp(-2.0 * parameters["log_std"])
        return {"mean": tangents["mean"] * precision, "log_std": 2.0 * tangents["log_std"]}

    def check_actions(self, actions: Any) -> tf.Tensor:
        """Floating-point actions."""
        actions = tf.convert_to_tensor(actions)
        if not actions.dtype.is_floating:
            raise TypeError(f"A Gaussian distribution takes floating-point actions, got {actions.dtype.name}.")
        return actions

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """μ + σ ε, ε standard normal."""
        mean = np.asarray(parameters["mean"])
        noise = generator.standard_normal(mean.shape, dtype=np.float32)
        return self._at(noise, mean, np.asarray(parameters["log_std"]))

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """The mean."""
        mean = np.asarray(parameters["mean"])
        return self._at(np.zeros_like(mean), mean, np.asarray(parameters["log_std"]))

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """The action clipped to the environment's bounds."""
        clipped: np.ndarray = np.clip(actions, self.low, self.high)
        return clipped

    @property
    def _event_axes(self) -> tuple[int, ...]:
        return tuple(range(-self.rank, 0))

    def _at(self, noise: np.ndarray, mean: np.ndarray, log_std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_probs: np.ndarray = np.sum(-0.5 * noise * noise - log_std - 0.5 * _LOG_2PI, axis=self._event_axes)
        return mean + np.exp(log_std) * noise, log_probs


def _log_softmax(logits: Any) -> np.ndarray:
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    log_probs: np.ndarray = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return log_probs
