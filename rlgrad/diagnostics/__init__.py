"""Diagnostics of an update from per-sample gradients: signal and noise, agreement of samples, value of a baseline.

The functions here are formulas: numbers in, numbers out, float64. They need the norms of N gradients g_1 … g_N (one a time
step, or one an episode), their mean, and inner products with it. A model's closed forms give these without writing out
N · P numbers:

    samples = Samples(model, x, output=LogProb(actions))      to the number
    samples.moments(c): ‖g_n‖² by layer, ḡ = Σ g_n / N        noise_scale, signal_to_noise, variance
    samples.inner_products(ḡ, c): g_n · ḡ                     cosines, shares
    samples.score_moments(R): Σ s_n², Σ R_n s_n², Σ R_n² s_n² optimal_baseline, componentwise_baseline, variance_with

`from_gram` computes the norms and inner products from a Gram matrix.
"""

from rlgrad.diagnostics.baselines import componentwise_baseline, optimal_baseline, variance_with
from rlgrad.diagnostics.formulas import (
    NoiseScale,
    by_layer_squared,
    cosines,
    episode_numbers,
    from_gram,
    noise_scale,
    shares,
    signal_to_noise,
    squared_norm,
    variance,
)
from rlgrad.diagnostics.moments import Moments, Samples, ScoreMoments

__all__ = [
    "Moments",
    "NoiseScale",
    "Samples",
    "ScoreMoments",
    "by_layer_squared",
    "componentwise_baseline",
    "cosines",
    "episode_numbers",
    "from_gram",
    "noise_scale",
    "optimal_baseline",
    "shares",
    "signal_to_noise",
    "squared_norm",
    "variance",
    "variance_with",
]
