"""From actions as environments get them to actions as rollouts store them: the way back from `to_environment`."""

from typing import Any

import numpy as np

from rlgrad.distributions import (
    Bernoulli,
    Categorical,
    Deterministic,
    DiagonalGaussian,
    Distribution,
    Greedy,
    MultiCategorical,
)

_INSIDE = 1.0 - 1e-6  # of half-widths, where a tanh can still be undone in float32


def as_stored_actions(distribution: Distribution, actions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return recorded actions (S, …) as a distribution's rollouts store them.

    Choices are counted from 0, a deterministic policy's actions are in half-widths, and of a squashed Gaussian u = artanh a is
    stored, where an action at a bound, which no finite u reaches, counts as one a millionth of a half-width inside of it.

    Raises:
        ValueError: the distribution is of several parts.
    """
    known: Any = distribution
    if isinstance(known, Categorical | Greedy):
        return actions.astype(np.int64) - known.start
    if isinstance(known, MultiCategorical):
        start = np.asarray(known.start or [0] * len(known.counts), np.int64)
        return actions.astype(np.int64) - start.reshape(known.shape or start.shape)
    if isinstance(known, Bernoulli):
        return actions.astype(np.int64)
    if isinstance(known, Deterministic | DiagonalGaussian):
        if isinstance(known, DiagonalGaussian) and not known.squash:
            return actions.astype(np.float32)
        low, high = np.asarray(known.low, np.float64), np.asarray(known.high, np.float64)
        halves = np.clip((2.0 * actions - low - high) / (high - low), -1.0, 1.0)
        stored = np.arctanh(halves * _INSIDE) if isinstance(known, DiagonalGaussian) else halves
        return stored.astype(np.float32)
    raise ValueError(
        f"Recorded actions are of one space, and {type(known).__name__} is over several: flatten the action space."
    )
