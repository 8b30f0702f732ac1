"""Means over seeds and their intervals, as in Agarwal et al. (2021), "Deep RL at the Edge of the Statistical Precipice".

Their package, rliable, brings SciPy, seaborn and arch; these are the functions of it that are needed here.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_PAIRED = 2_000  # resamples of two kinds of runs, or of a whole profile


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


def mean_interval(mean: float, deviation: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean over independent values, by Student's t.

    Args:
        mean: of the values.
        deviation: their standard deviation, of the values themselves: the root of the mean square of their distances.
        count: number of values.

    Returns:
        Lower and upper end; NaN for fewer than two values, which say nothing of how far others lie.
    """
    if count < 2:
        return math.nan, math.nan
    half = _t_quantile(count - 1) * deviation / (count - 1) ** 0.5
    return mean - half, mean + half


# Of 1 to 9 degrees of freedom, where the expansion is not exact enough.
_FEW = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)


def _t_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t (Abramowitz and Stegun, 26.7.5), to three digits after the point."""
    if degrees <= len(_FEW):
        return _FEW[degrees - 1]
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + math.fsum(term / float(degrees) ** power for power, term in enumerate(terms, start=1))


def probability_of_improvement(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Return how likely a run of one kind is better than a run of another, with its 95 % interval (Agarwal et al., 2021).

    Args:
        values: one number for each seed.
        others: likewise, of the other kind; as many or not.

    Returns:
        The share of pairs in which the value is above the other one, pairs of equal ones by half; and the ends of its
        percentile bootstrap interval, in which the seeds of both kinds are drawn anew.
    """
    x, y = (np.asarray(each, np.float64) for each in (values, others))
    better = (np.sign(x[:, None] - y[None, :]) + 1.0) / 2.0
    generator = np.random.default_rng(0)
    rows, columns = (generator.integers(0, len(each), (_PAIRED, len(each))) for each in (x, y))
    shares = better[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(better.mean()), float(low), float(high)


def performance_profile(values: Sequence[float], levels: Array) -> tuple[Array, Array, Array]:
    """Return the share of runs above each level, with its 95 % interval by level (Agarwal et al., 2021).

    Args:
        values: one number for each seed.
        levels: float (L,).

    Returns:
        The shares, and the ends of their percentile bootstrap intervals, float (L,) each.
    """
    above = np.asarray(values, np.float64)[:, None] > levels[None, :]
    chosen = np.random.default_rng(0).integers(0, len(above), (_PAIRED, len(above)))
    low, high = np.percentile(above[chosen].mean(axis=1), [2.5, 97.5], axis=0)
    return above.mean(axis=0), low, high


def running_mean(values: Any, window: int) -> Any:
    """Return at each position the mean of the last `window` values that are finite; NaN before the first."""
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    sums, counts = (np.cumsum(x) for x in (np.where(finite, values, 0.0), finite))
    sums[window:], counts[window:] = sums[window:] - sums[:-window], counts[window:] - counts[:-window]
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)
