"""Continuous actions whose noise is a function of the state, which stays the same for several steps (gSDE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad.core.importing import lazy
from rlgrad.distributions.gaussian import DiagonalGaussian

if TYPE_CHECKING:
    import tensorflow as tf
else:  # acting needs none
    tf = lazy("tensorflow")

_LEAST_VARIANCE = 1e-6
_FARTHEST_MEAN = 2.0  # of squashed actions, beyond which a tanh shows no noise


@dataclass(frozen=True)
class StateDependentNoise(DiagonalGaussian):
    """A diagonal Gaussian u = μ(s) + Θᵀ φ(s), Θ_jk ~ N(0, σ_jk²), of features φ of the network and a variable σ of the policy.

    Of a single step this is a normal number of variance Σ_j φ_j(s)² σ_jk², and everything that is learned from steps is that of
    `DiagonalGaussian`. Acting draws Θ once for `hold` steps, and at the beginning of each rollout, so that in between noise
    changes with the state alone: motors are not shaken, and what is tried goes on for a while.

    The network's output holds the means and then the features, through which no gradient of the noise flows. Parameters are
    `{"mean", "log_std", "basis"}`, the last φ_j σ_jk, float (…, features, size).

    Args:
        low: see `DiagonalGaussian`, as the next eight.
        high: upper bound of the environment's actions.
        rank: number of axes of one action.
        squash: bring u into the bounds by a tanh; then the mean stays within −2 … 2.
        entropy_of: with `squash`, that of the action, or of u alone.
        dtype: of the environment's actions.
        scale: the `"variable"` σ.
        log_std_offset: of no use here.
        unit: of densities, with `squash`.
        hold: steps for which Θ stays.

    Source: Raffin, Kober & Stulp (2021), "Smooth exploration for robotic reinforcement learning".
    """

    hold: int = 1

    def assemble(self, raw: Any, log_std: Any) -> Any:
        """Return mean, log σ of the step and basis.

        Args:
            raw: (…, size + features).
            log_std: log σ_jk, broadcastable to (…, features, size).
        """
        size, ops = self._size, _operations(raw)
        mean, features = raw[..., :size], raw[..., size:]
        features = features if ops is np else ops.stop_gradient(features)
        if self.squash:
            mean = ops.clip(mean, -_FARTHEST_MEAN, _FARTHEST_MEAN)
        basis = features[..., None] * ops.exp(log_std)
        log_std = 0.5 * ops.log(ops.sum(ops.square(basis), axis=-2) + _LEAST_VARIANCE)
        if self.rank != 1:
            mean, log_std = (ops.reshape(x, (-1, *self._shape)) for x in (mean, log_std))
        return {"mean": mean, "log_std": log_std, "basis": basis}

    def log_std_shape(self, raw_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of log σ_jk, (features, size)."""
        return raw_shape[-1] - self._size, self._size

    def fisher_product(self, parameters: Any, tangents: Any) -> dict[str, tf.Tensor]:
        """Return the product of `DiagonalGaussian`; the basis, which log σ is made of, counts through that."""
        return super().fisher_product(parameters, tangents) | {"basis": tf.zeros_like(tangents["basis"])}

    def noise(self, parameters: Any, generator: np.random.Generator, count: int) -> Any:
        """Return Θ/σ of `count` samples, float32 (N, features, size) each, the same for `hold` of them in a row."""
        shape = (-(-count // self.hold), *parameters["basis"].shape)
        return Held(generator.standard_normal(shape, dtype=np.float32), self.hold)

    def pick(self, parameters: Any, noise: Any) -> np.ndarray:
        """Return μ + Θᵀ φ."""
        mean = parameters["mean"]
        moved = np.sum(parameters["basis"] * noise, axis=-2)
        actions: np.ndarray = mean + moved.reshape(mean.shape)
        return actions

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(np.broadcast(self.low, self.high).shape)

    @property
    def _size(self) -> int:
        return int(np.prod(self._shape))


def _operations(x: Any) -> Any:
    """Return NumPy for arrays, and for others the operations that exported models are built of."""
    if isinstance(x, np.ndarray):
        return np
    from keras import ops

    return ops


@dataclass(frozen=True)
class Held:
    """Random numbers that stay for several samples: `held[i]` are those of sample i."""

    numbers: np.ndarray
    hold: int

    def __getitem__(self, sample: int) -> np.ndarray:
        numbers: np.ndarray = self.numbers[sample // self.hold]
        return numbers
