"""Constant baselines: the variance of the policy gradient under one, and the baselines that minimize it.

They are computed from sums over samples of the squares of each component (`rlgrad.diagnostics.moments.ScoreMoments`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlgrad.diagnostics.moments import ScoreMoments

Array = np.ndarray[Any, Any]


def optimal_baseline(scores: ScoreMoments) -> float:
    """Return the constant baseline that minimizes the variance of the policy gradient, b* = E[‖s‖² R] / E[‖s‖²].

    s is the score ∇ log π of a sample and R its return. Where a sample is an episode whose steps have returns of their own,
    with h = Σ_t R_t ∇ log π_t, it is E[s · h] / E[‖s‖²], which is the same where R_t does not depend on t. It minimizes
    E‖h − b s‖², and with that the variance, whose mean does not depend on b because E[s] = 0.

    Args:
        scores: from `Samples.score_moments`.

    Returns:
        In units of the return; NaN if all scores are 0.

    Source: Greensmith, Bartlett & Baxter (2004); Peters & Schaal (2008), "Reinforcement learning of motor skills with
    policy gradients".
    """
    return float(ratio(np.asarray(_total(scores.products)), np.asarray(_total(scores.squares))))


def componentwise_baseline(scores: ScoreMoments) -> dict[str, Array]:
    """Return a baseline for each weight, b_k = E[s_k² R] / E[s_k²], each minimizing the variance of its own component.

    Args:
        scores: from `Samples.score_moments`.

    Returns:
        float64 of each variable's shape, by path, in units of the return; 0 for a weight whose score is always 0, where
        every baseline is as good.

    Source: Peters & Schaal (2008).
    """
    squares, products = _doubles(scores.squares), _doubles(scores.products)
    return {key: np.where(s > 0.0, ratio(products[key], s), 0.0) for key, s in squares.items()}


def variance_with(scores: ScoreMoments, baseline: float | Mapping[str, Any] = 0.0) -> float:
    """Return the variance tr Σ of one sample's policy gradient (R_n − b) s_n, with a constant baseline b.

        (N − 1) tr Σ = Σ_n ‖(R_n − b) s_n‖² − N ‖ mean of (R_n − b) s_n ‖²

    Args:
        scores: from `Samples.score_moments`.
        baseline: one number, or for each variable one that broadcasts to its shape, by path; 0: no baseline.

    Returns:
        In units of the gradient squared, at least 0; NaN if N < 2.

    Raises:
        ValueError: `baseline` is of other variables.

    Source: Greensmith, Bartlett & Baxter (2004).
    """
    if isinstance(baseline, Mapping) and set(baseline) != set(scores.squares):
        raise ValueError(f"baseline has the variables {sorted(baseline)}, the scores {sorted(scores.squares)}.")
    count = int(scores.count)
    if count < 2:
        return float("nan")
    s0, s1, s2 = map(_doubles, (scores.squares, scores.products, scores.squared_returns))
    mean, mean_score = _doubles(scores.mean), _doubles(scores.mean_score)
    total = 0.0
    for key in s0:
        b = np.asarray(baseline[key] if isinstance(baseline, Mapping) else baseline, np.float64)
        total += float(np.sum(s2[key] - 2.0 * b * s1[key] + b * b * s0[key]))
        total -= count * float(np.sum(np.square(mean[key] - b * mean_score[key])))
    return at_least_zero(total / (count - 1))


def ratio(numerator: Array, denominator: Array) -> Array:
    """Divide elementwise; NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    result: Array = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0.0)
    return result


def at_least_zero(x: float) -> float:
    """Replace what is negative by rounding with 0; NaN stays NaN."""
    return 0.0 if x < 0.0 else float(x)


def _doubles(values: Mapping[str, Any]) -> dict[str, Array]:
    return {key: np.asarray(value, np.float64) for key, value in values.items()}


def _total(values: Mapping[str, Any]) -> float:
    return sum(float(value.sum()) for value in _doubles(values).values())
