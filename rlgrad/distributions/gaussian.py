"""Continuous actions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rlgrad import random
from rlgrad.core.importing import lazy
from rlgrad.distributions.protocol import rank_of, require_noise

if TYPE_CHECKING:
    import tensorflow as tf
else:  # acting needs none
    tf = lazy("tensorflow")

_LOG_2PI = math.log(2.0 * math.pi)
_LOG_STD_LIMITS = (-20.0, 2.0)  # of what a network says, as in the code of SAC's authors
_INSIDE = 1.0 - 1e-6  # of half-widths, where a tanh can still be undone
# E[g(z)] for a standard normal z is Σ_k weight_k g(node_k), to 1e-6 for the integrand in `entropy`.
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(32)


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normal numbers u. Parameters: `{"mean": (…, *shape), "log_std": broadcastable to it}`.

    The log standard deviations are a variable of the policy, or the second half of what the network says (`scale`).

    Rollouts store the sampled u, and log-probabilities are those of u. The environment gets u clipped to the action space. With
    `squash` it gets a = low + (high − low) (tanh u + 1) / 2, and log-probabilities are those of a.

    Args:
        low: float, lower bound of the environment's actions, broadcastable to an action's shape.
        high: float, upper bound.
        rank: number of axes of one action.
        squash: bring u into the bounds, which are finite, by a tanh instead of clipping it.
        entropy_of: with `squash`, `entropy` is that of the action a, H(u) + E[log |da/du|] by Gauss-Hermite quadrature, or that
            of u alone, which squashing to a bound does not lower.
        dtype: of the environment's actions; for integers, actions are rounded.
        scale: where log σ comes from: a `"variable"` of the policy, or the `"network"`, whose output, (…, 2 · size), holds the
            means and then log σ, limited to −20 … 2.
        log_std_offset: added to the log σ that a network says, so that a network near 0 begins with it.
        unit: with `squash`, the unit of densities: one of the environment's action, or a `"half-width"` of its space, in which
            a temperature or an entropy means the same for every environment.
    """

    low: Any = -math.inf
    high: Any = math.inf
    rank: int = 1
    squash: bool = False
    entropy_of: Literal["action", "unsquashed"] = "action"
    dtype: Any = np.float32
    scale: Literal["variable", "network"] = "variable"
    log_std_offset: float = 0.0
    unit: Literal["environment", "half-width"] = "environment"

    def assemble(self, raw: Any, log_std: Any) -> Any:
        """Return the mean and log σ."""
        if self.scale == "variable":
            return {"mean": raw, "log_std": log_std}
        from keras import ops  # exported models are built of these

        reshape, clip = (np.reshape, np.clip) if isinstance(raw, np.ndarray) else (ops.reshape, ops.clip)
        size, shape = raw.shape[-1] // 2, (-1, *np.broadcast(self.low, self.high).shape)
        mean, log_std = raw[..., :size], clip(raw[..., size:] + self.log_std_offset, *_LOG_STD_LIMITS)
        if self.rank != 1:
            mean, log_std = reshape(mean, shape), reshape(log_std, shape)
        return {"mean": mean, "log_std": log_std}

    def log_std_shape(self, raw_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the shape of the mean; `None` if the network says log σ."""
        return raw_shape if self.scale == "variable" else None

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Return Σ_i −½ ((u_i − μ_i)/σ_i)² − log σ_i − ½ log 2π, less Σ_i log |da_i/du_i| with `squash`, shape (…)."""
        mean, log_std = parameters["mean"], parameters["log_std"]
        u = tf.cast(actions, tf.as_dtype(mean.dtype))
        return self._log_prob((u - mean) * tf.exp(-log_std), u, log_std)

    def batch_rank(self, parameters: Any) -> int:
        """Return the number of axes before those of an action."""
        return rank_of(parameters["mean"]) - self.rank

    def entropy(self, parameters: Any) -> tf.Tensor:
        """Return Σ_i log σ_i + ½ log 2πe, of u or, with `squash`, as `entropy_of` says; in nats, shape (…)."""
        mean = tf.convert_to_tensor(parameters["mean"])
        log_std = tf.broadcast_to(parameters["log_std"], tf.shape(mean))
        terms = log_std + 0.5 * (_LOG_2PI + 1.0)
        if self.squash and self.entropy_of == "action":
            nodes, weights = (tf.constant(x, mean.dtype) for x in (_NODES, _NODE_WEIGHTS / _NODE_WEIGHTS.sum()))
            u = mean[..., None] + tf.exp(log_std)[..., None] * nodes
            slopes = 2.0 * (math.log(2.0) - u - tf.nn.softplus(-2.0 * u))
            terms += tf.reduce_sum(slopes * weights, axis=-1) + self._log_half_width(mean.dtype.as_numpy_dtype)
        return tf.reduce_sum(terms, axis=self._event_axes)

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """Return Σ_i log σ′_i − log σ_i + (σ_i² + (μ_i − μ′_i)²) / 2σ′_i² − ½ in nats, shape (…). Squashing keeps it."""
        ratio = parameters["log_std"] - other["log_std"]
        z = (parameters["mean"] - other["mean"]) * tf.exp(-other["log_std"])
        return tf.reduce_sum(-ratio + 0.5 * (tf.exp(2.0 * ratio) + z * z - 1.0), axis=self._event_axes)

    def fisher_product(self, parameters: Any, tangents: Any) -> dict[str, tf.Tensor]:
        """Return the Fisher matrix of each row times v: v/σ² for the mean, 2 v for log σ (one log σ per component)."""
        precision = tf.exp(-2.0 * parameters["log_std"])
        return {"mean": tangents["mean"] * precision, "log_std": 2.0 * tangents["log_std"]}

    def reparameterized(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Return u = μ + σ ε, before it is clipped or squashed."""
        mean = tf.convert_to_tensor(parameters["mean"])
        return mean + tf.exp(parameters["log_std"]) * require_noise(noise, mean)

    def reparameterized_log_prob(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Return Σ_i −½ ε_i² − log σ_i − ½ log 2π, less Σ_i log |da_i/du_i| with `squash`, shape (…).

        It is `log_prob` of `reparameterized`, without the difference of u and μ that loses the digits of a small σ ε.
        """
        mean = tf.convert_to_tensor(parameters["mean"])
        log_std = tf.broadcast_to(parameters["log_std"], tf.shape(mean))
        return self._log_prob(require_noise(noise, mean), self.reparameterized(parameters, noise), log_std)

    def told(self, actions: Any) -> tf.Tensor:
        """TensorFlow: return stored actions as a critic is told them: −1 … 1 where the space has bounds, else as they are."""
        if self.squash:
            return tf.tanh(actions)
        low, high = (np.asarray(bound, np.float32) for bound in (self.low, self.high))
        bounded = np.isfinite(low) & np.isfinite(high)
        least, most = np.where(bounded, low, np.float32(-1.0)), np.where(bounded, high, np.float32(1.0))
        return (tf.clip_by_value(actions, low, high) - (least + most) / 2.0) / ((most - least) / 2.0)

    def check_actions(self, actions: Any) -> tf.Tensor:
        """Return floating-point actions. Raise a TypeError for others."""
        actions = tf.convert_to_tensor(actions)
        if not actions.dtype.is_floating:
            raise TypeError(f"A Gaussian distribution takes floating-point actions, got {actions.dtype.name}.")
        return actions

    def noise(self, parameters: Any, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return standard normal ε, float32 (count, …, *shape)."""
        return generator.standard_normal((count, *parameters["mean"].shape), dtype=np.float32)

    def pick(self, parameters: Any, noise: Any) -> np.ndarray:
        """Return μ + σ ε."""
        actions: np.ndarray = parameters["mean"] + np.exp(parameters["log_std"]) * noise
        return actions

    def numpy_log_prob(self, parameters: Any, actions: np.ndarray) -> np.ndarray:
        """Return Σ_i −½ ((u_i − μ_i)/σ_i)² − log σ_i − ½ log 2π, less Σ_i log |da_i/du_i| with `squash`, shape (…)."""
        mean, log_std = parameters["mean"], parameters["log_std"]
        z = (actions - mean) * np.exp(-log_std)
        terms = -0.5 * z * z - log_std - 0.5 * _LOG_2PI
        if self.squash:
            terms = terms - self._log_slope(actions, lambda x: np.logaddexp(np.float32(0.0), x))
        log_probs: np.ndarray = np.sum(terms, axis=self._event_axes)
        return log_probs

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sample μ + σ ε, ε standard normal."""
        actions = self.pick(parameters, self.noise(parameters, generator, 1)[0])
        return actions, self.numpy_log_prob(parameters, actions)

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean."""
        actions = parameters["mean"]
        return actions, self.numpy_log_prob(parameters, actions)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Return the action within the environment's bounds, in its dtype."""
        if self.squash:
            inside = self.low + (np.asarray(self.high) - self.low) * 0.5 * (np.tanh(actions) + 1.0)
        else:
            inside = np.clip(actions, self.low, self.high)
        if np.issubdtype(self.dtype, np.integer):
            inside = np.rint(inside)
        result: np.ndarray = np.asarray(inside).astype(self.dtype, copy=False)
        return result

    def draw(self, parameters: Any, seeds: Any) -> tf.Tensor:
        """Sample μ + σ ε, ε standard normal."""
        mean = parameters["mean"]
        noise = random.normal(seeds, tuple(mean.shape[mean.shape.rank - self.rank :]))
        return mean + tf.exp(parameters["log_std"]) * noise

    def most_likely(self, parameters: Any) -> tf.Tensor:
        """Return the mean."""
        return tf.convert_to_tensor(parameters["mean"])

    def for_environment(self, actions: tf.Tensor) -> tf.Tensor:
        """Return the action clipped or squashed into the space, in its dtype."""
        low, high = (np.asarray(bound, np.float32) for bound in (self.low, self.high))
        share = 0.5 * (tf.tanh(actions) + 1.0)  # of the way from low to high
        inside = low + (high - low) * share if self.squash else tf.clip_by_value(actions, low, high)
        return tf.cast(tf.round(inside) if np.issubdtype(self.dtype, np.integer) else inside, self.dtype)

    def keras_actions(self, parameters: Any, name: str) -> dict[str, Any]:
        """Keras: the mean, clipped or squashed into the space, in its dtype."""
        from keras import ops

        mean = parameters["mean"]
        low, high = (np.asarray(bound, np.float32) for bound in (self.low, self.high))
        if self.squash:
            inside = 0.5 * (ops.tanh(mean) + 1.0) * (high - low) + low
        else:
            unbounded = np.isinf(low).all() and np.isinf(high).all()
            inside = mean if unbounded else ops.minimum(ops.maximum(mean, low), high)
        dtype = np.dtype(self.dtype)
        return {name: ops.cast(ops.round(inside) if np.issubdtype(dtype, np.integer) else inside, dtype.name)}

    def uniform(self, numbers: Any, arctanh: Any = np.arctanh) -> Any:
        """NumPy and TensorFlow: return stored actions that are uniform in the space, from numbers uniform in 0 … 1.

        Args:
            numbers: (…, *shape).
            arctanh: of the kind of these numbers.

        Raises:
            ValueError: the space has no bounds.
        """
        low, high = (np.asarray(bound, np.float32) for bound in (self.low, self.high))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(
                "Random actions are drawn between the bounds of the space, and these are not finite: set exploration.random "
                "and replay.warmup to 0, or give the space bounds with gymnasium.wrappers.RescaleAction or TransformAction."
            )
        return arctanh((2.0 * numbers - 1.0) * _INSIDE) if self.squash else low + (high - low) * numbers

    @property
    def uniform_log_density(self) -> float:
        """The log density of `uniform` actions, in the unit of `log_prob`, in nats."""
        widths = np.broadcast_to(np.asarray(self.high, np.float64) - self.low, np.broadcast(self.low, self.high).shape)
        return -float(np.sum(np.log(2.0 * np.ones_like(widths) if self._in_half_widths else widths)))

    def _log_prob(self, z: Any, u: Any, log_std: Any) -> tf.Tensor:
        """Return the log-probability of u = μ + σ z."""
        terms = -0.5 * z * z - log_std - 0.5 * _LOG_2PI
        if self.squash:
            terms -= self._log_slope(u, tf.nn.softplus)
        return tf.reduce_sum(terms, axis=self._event_axes)

    @property
    def _event_axes(self) -> tuple[int, ...]:
        return tuple(range(-self.rank, 0))

    @property
    def _in_half_widths(self) -> bool:
        return self.squash and self.unit == "half-width"

    def _log_half_width(self, dtype: Any) -> np.ndarray:
        if self._in_half_widths:
            return np.zeros((), dtype)
        half: np.ndarray = np.log((np.asarray(self.high, np.float64) - self.low) / 2.0)
        return half.astype(dtype)

    def _log_slope(self, u: Any, softplus: Any) -> Any:
        """Return log |da/du| = log (high − low)/2 + log(1 − tanh² u), the latter without cancellation."""
        kind = u.dtype if isinstance(u, np.ndarray) else u.dtype.as_numpy_dtype
        return self._log_half_width(kind) + 2.0 * (math.log(2.0) - u - softplus(-2.0 * u))
