"""Means over seeds and their intervals, as in Agarwal et al. (2021), "Deep RL at the Edge of the Statistical Precipice".

Their package, rliable, brings SciPy, seaborn and arch; these are the two of its functions that are needed here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def interquartile_mean(values: Array | Sequence[float]) -> Array:
    """Return the mean of the values between the quartiles: a quarter of them, rounded down, is cut at either end.

    Args:
        values: float (…, n).

    Returns:
        float (…,). For fewer than four values it is their mean.
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    mean: Array = ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)
    return mean


def bootstrap_interval(values: Array | Sequence[float], resamples: int = 50_000) -> Array:
    """Return the 95 % percentile interval of the interquartile mean; each call resamples alike.

    Args:
        values: float (…, n), n seeds. All leading axes are resampled together.
        resamples: number of resamples.

    Returns:
        float (2, …): lower and upper ends.
    """
    values = np.asarray(values, np.float64)
    count = values.shape[-1]
    chosen = np.random.default_rng(0).integers(0, count, (resamples, count))
    interval: Array = np.percentile(interquartile_mean(values[..., chosen]), [2.5, 97.5], axis=-1)
    return interval


def normal_interval(mean: float, deviation: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean, from the standard deviation of `count` independent values."""
    half = 1.96 * deviation / count**0.5
    return mean - half, mean + half
