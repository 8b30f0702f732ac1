"""Signal and noise, cosines and shares: formulas of per-sample norms and inner products. Numbers in, numbers out, float64."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rlgrad import gradients
from rlgrad.diagnostics.baselines import at_least_zero, ratio

Array = np.ndarray[Any, Any]


class NoiseScale(NamedTuple):
    """Estimates of the gradient that infinitely many samples would give. NaN for fewer than two samples.

    Attributes:
        signal: ‖G‖², unbiased and so possibly below 0, in units of the gradient squared.
        noise: tr Σ, the variance of one sample's gradient summed over the weights, in the same units.
        scale: B_simple = tr Σ / ‖G‖², in samples; infinite where the signal cannot be told from 0.
    """

    signal: float
    noise: float
    scale: float

    @property
    def batch_size(self) -> int | None:
        """B_simple as a number of samples to average over, at least 1. `None`: it is not finite."""
        return max(1, round(self.scale)) if np.isfinite(self.scale) else None


def noise_scale(squared_norms: Any, mean_squared_norm: Any) -> NoiseScale:
    """Return the gradient noise scale B_simple = tr Σ / ‖G‖²: the batch size whose mean is as much signal as noise.

        tr Σ = (Σ_n ‖g_n‖² − N ‖ḡ‖²) / (N − 1)
        ‖G‖² = ‖ḡ‖² − tr Σ / N

    Both are unbiased for independent samples; their ratio is not, so average each over several updates before dividing.
    Batches well below B_simple waste little data, batches well above it save few updates: at B_simple an update makes
    half the progress of one without noise.

    Args:
        squared_norms: float (N,), ‖g_n‖².
        mean_squared_norm: ‖ḡ‖², of the mean over the same N samples.

    Returns:
        `NoiseScale`.

    Raises:
        ValueError: `squared_norms` is not one number a sample.

    Source: McCandlish et al. (2018), "An empirical model of large-batch training", section 2.2 and
    appendix A.1.
    """
    noise = variance(squared_norms, mean_squared_norm)
    signal = float(mean_squared_norm) - noise / max(1, len(squared_norms))
    if signal > 0.0:
        return NoiseScale(signal, noise, noise / signal)
    return NoiseScale(signal, noise, np.inf if noise > 0.0 else np.nan)


def signal_to_noise(squared_norms: Any, mean_squared_norm: Any) -> float:
    """Return the signal-to-noise ratio of the mean gradient, SNR = ‖G‖² / (tr Σ / N) = N / B_simple.

    Signal and noise are estimated as in `noise_scale`. Above 1 the averaged gradient is more signal than noise; below 0
    the signal's estimate is negative: it cannot be told from 0. For a single layer, pass that layer's norms.

    Args:
        squared_norms: float (N,), ‖g_n‖².
        mean_squared_norm: ‖ḡ‖².

    Returns:
        The ratio, without units; infinite without noise, not a number for one sample or for gradients that are all 0.

    Raises:
        ValueError: `squared_norms` is not one number a sample.

    Source: McCandlish et al. (2018), section 2.2: N over the noise scale.
    """
    signal, noise, _ = noise_scale(squared_norms, mean_squared_norm)
    if noise == 0.0:
        return np.inf if signal > 0.0 else np.nan
    return len(squared_norms) * signal / noise


def variance(squared_norms: Any, mean_squared_norm: Any) -> float:
    """Return the variance of one sample's gradient, summed over the weights: tr Σ = (Σ_n ‖g_n‖² − N ‖ḡ‖²) / (N − 1).

    The variance of the mean over N samples is 1 / N of it.

    Args:
        squared_norms: float (N,), ‖g_n‖².
        mean_squared_norm: ‖ḡ‖².

    Returns:
        In units of the gradient squared, at least 0 (rounding could make it less); not a number where N < 2.

    Raises:
        ValueError: `squared_norms` is not one number a sample.

    Source: McCandlish et al. (2018), appendix A.1; it is the trace of the sample covariance.
    """
    norms = _vector(squared_norms, "squared_norms")
    if len(norms) < 2:
        return float("nan")
    return at_least_zero((norms.sum() - len(norms) * float(mean_squared_norm)) / (len(norms) - 1))


def cosines(squared_norms: Any, inner_products: Any, mean_squared_norm: Any) -> Array:
    """Return cos_n = g_n · ḡ / (‖g_n‖ ‖ḡ‖): 1 for samples that pull along the mean gradient, −1 for those against it.

    The inner products come from one forward-mode product along ḡ (`Samples.inner_products`), which takes N P multiplications
    and no more memory than the layers' inputs; the rows of a Gram matrix (`from_gram`) take N² Σ(d_in + d_out) and N²
    numbers. For a policy of two hidden layers of 64 the first is cheaper from 18 samples on, so it is what rlgrad uses.

    Args:
        squared_norms: float (N,), ‖g_n‖².
        inner_products: float (N,), g_n · ḡ.
        mean_squared_norm: ‖ḡ‖².

    Returns:
        float64 (N,), −1 … 1; not a number for a gradient that is 0.

    Raises:
        ValueError: the two do not have one number a sample.

    Source: the definition of the cosine.
    """
    norms, inner = _vector(squared_norms, "squared_norms"), _vector(inner_products, "inner_products")
    if norms.shape != inner.shape:
        raise ValueError(f"squared_norms has shape {norms.shape} and inner_products {inner.shape}: both are (N,).")
    lengths = np.sqrt(np.maximum(norms, 0.0) * float(mean_squared_norm))
    return np.clip(ratio(inner, lengths), -1.0, 1.0)


def shares(inner_products: Any, groups: Any = None, num_groups: int | None = None) -> Array:
    """Return the share of each sample, or group of samples, in the gradient: share_n = g_n · ḡ / (N ‖ḡ‖²).

    This is the length that g_n adds along the gradient, as a part of the whole. Shares add up to 1; those of samples that
    pull against the mean are below 0.

    Args:
        inner_products: float (N,), g_n · ḡ.
        groups: int (N,), from 0, the time step or episode that each sample belongs to. `None`: each sample is its own group.
        num_groups: G, the number of groups. `None`: the largest number in `groups` plus one.

    Returns:
        float64 (N,), or (G,) with groups; not a number where the gradient is 0.

    Raises:
        ValueError: `groups` has not one number a sample, or one below 0.

    Source: Σ_n g_n · ḡ = N ‖ḡ‖², from ḡ = Σ_n g_n / N.
    """
    inner = _vector(inner_products, "inner_products")
    total = inner.sum()
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != inner.shape or (len(groups) and groups.min() < 0):
            raise ValueError(f"groups is int {inner.shape}, from 0, one a sample; got shape {groups.shape}.")
        inner = np.bincount(groups, weights=inner, minlength=num_groups or 0)
    return ratio(inner, np.asarray(total))


def episode_numbers(ends: Any) -> Array:
    """Number the episode that each step of a rollout belongs to, counted from 0 down each column and then across columns.

    Args:
        ends: bool (T, N), `terminations | truncations`.

    Returns:
        int64 (T, N).

    Raises:
        ValueError: `ends` has other than two axes.
    """
    ends = np.asarray(ends, bool)
    if ends.ndim != 2:
        raise ValueError(f"ends is bool (T, N), got shape {ends.shape}.")
    begins = np.zeros(ends.shape, np.int64)
    begins[1:] = ends[:-1]
    begins[:1] = 1
    numbers: Array = begins.cumsum(axis=0) - 1
    before = np.concatenate([[0], (numbers[-1] + 1).cumsum()[:-1]]) if ends.size else 0
    return numbers + before


def discounted_returns(rewards: Any, gamma: float, after: float = 0.0) -> Array:
    """Return the discounted return of each step of one episode, r_t + γ G_t+1.

    Args:
        rewards: float (T,), in the order of the steps.
        gamma: discount per step.
        after: what counts as the return after the last step.

    Returns:
        float64 (T,).
    """
    rewards = np.asarray(rewards, np.float64)
    returns: Array = np.empty_like(rewards)
    following = after
    for t in reversed(range(len(rewards))):
        following = returns[t] = rewards[t] + gamma * following
    return returns


def from_gram(gram: Any) -> tuple[Array, Array, float]:
    """Return ‖g_n‖², g_n · ḡ and ‖ḡ‖² from a Gram matrix K: its diagonal, the means of its rows, and their mean.

    Args:
        gram: float (N, N), K_nm = g_n · g_m.

    Returns:
        `(squared_norms (N,), inner_products (N,), mean_squared_norm)`, float64.

    Raises:
        ValueError: K is not square, or empty.
    """
    gram = np.asarray(gram, np.float64)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not gram.size:
        raise ValueError(f"A Gram matrix is square, (N, N), got shape {gram.shape}.")
    inner = gram.mean(axis=1)
    return gram.diagonal().copy(), inner, float(inner.mean())


def by_layer_squared(gradient: Mapping[str, Any]) -> dict[str, float]:
    """Return ‖g‖² of each layer of a dict of gradients, in float64; layers as `gradients.by_layer` names them."""
    return {layer: squared_norm(of) for layer, of in gradients.by_layer(gradient).items()}


def squared_norm(gradient: Mapping[str, Any]) -> float:
    """Return ‖g‖² over all variables of a dict of gradients, in float64."""
    return sum(float(np.sum(np.square(np.asarray(g, np.float64)))) for g in gradient.values())


def _vector(x: Any, name: str) -> Array:
    vector = np.asarray(x, np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name} has one number a sample, shape (N,), got shape {vector.shape}.")
    return vector
