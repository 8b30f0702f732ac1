"""From the learner's batch to a `Diagnosis`: a traced part, and the numbers that are made of its results.

A sample is the unit that the agent's update averages over: a step, or for agents of whole episodes an episode, whose steps'
gradients add. Each output is diagnosed by itself: the policy gradient Σ c ∇ log π without the entropy bonus, in whose
gradient no sampled action or return takes part, the value's Σ c ∇ v, and that of action values, Σ c ∇ q. Of steps that were
drawn from a replay, the policy's is the sum over all outputs of the policy that are credited.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad import diagnostics
from rlgrad.data import Batch, Rollout
from rlgrad.diagnostics.diagnosis import HEADS, Diagnosis, Head, Variances
from rlgrad.gradients import LogProb
from rlgrad.policies.policy import Policy


def measure(policy: Policy, batch: Batch, credit: Mapping[str, Any], columns: int | None) -> dict[str, Any]:
    """Compute everything that a diagnosis needs of the model. Traced once, and compiled.

    Args:
        policy: at the weights that collected the batch.
        batch: M rows, those of weight 0 are padding.
        credit: of each output, float (M,) or one number.
        columns: number of episodes that the rows run through in turn. `None`: each row is a sample.

    Returns:
        A tree of tensors, for `diagnosis_of`.
    """
    options: dict[str, Any] = {"mask": batch.weights > 0.0}
    if columns is not None:
        rows = tf.shape(batch.weights)[0]
        options |= {"segments": tf.math.floormod(tf.range(rows), columns), "num_segments": columns}
    results: dict[str, Any] = {}
    outputs = {"log_prob": ("policy", LogProb(batch.actions)), "value": ("value", "value")}
    for name in (name for name in outputs if name in credit):
        head, output = outputs[name]
        samples = diagnostics.Samples(policy, batch.observations, output=output, **options)
        results[head] = samples.moments(credit[name])
        if head == "policy":
            results["inner"] = samples.inner_products(results[head].mean, credit[name])
            results["advantages"] = samples.moments(batch.advantages)
            # Returns of 100 ± 0.1 would lose in float32 what distinguishes them: their mean becomes part of the baseline.
            counted = tf.cast(options["mask"], batch.returns.dtype)
            centre = tf.reduce_sum(counted * batch.returns) / tf.reduce_sum(counted)
            results["centre"], results["scores"] = centre, samples.score_moments(batch.returns - centre)
    return results


def diagnosis_of(measured: Mapping[str, Any], rollout: Rollout, by_episode: bool, timesteps: int) -> Diagnosis:
    """Turn the results of `measure` into a diagnosis.

    Args:
        measured: from `measure`.
        rollout: the batch was made of it.
        by_episode: True if a sample is a column of the rollout.
        timesteps: environment steps trained so far.
    """
    mask = np.asarray(rollout.mask) > 0.0
    count = mask.shape[1] if by_episode else int(mask.sum())
    # A gradient that is not finite is the update's to report.
    with np.errstate(all="ignore"):
        parts = _heads(measured)
        if "inner" in measured:
            parts |= _directions(measured, rollout, mask, by_episode)
            parts["variances"] = variances(measured)
        return Diagnosis(unit="episode" if by_episode else "step", count=count, timesteps=timesteps, **parts)


def diagnosis_of_steps(measured: Mapping[str, Any], count: int, timesteps: int) -> Diagnosis:
    """Turn the moments of steps that were drawn into a diagnosis, without the parts that need whole rollouts.

    Args:
        measured: `Moments` by the names of `HEADS`; with those of the policy `inner`, float (count,).
        count: number of steps.
        timesteps: environment steps trained so far.
    """
    with np.errstate(all="ignore"):
        parts = _heads(measured)
        if "inner" in measured:
            inner = np.asarray(measured["inner"], np.float64)
            policy = measured["policy"]
            parts["cosines"] = diagnostics.cosines(policy.total, inner, diagnostics.squared_norm(policy.mean)).tolist()
        return Diagnosis(unit="step", count=count, timesteps=timesteps, **parts)


def _heads(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _head(measured[name]) for name in HEADS if name in measured}


def _head(moments: diagnostics.Moments) -> Head:
    by_layer = diagnostics.by_layer_squared(moments.mean)
    norms = {layer: np.asarray(norm, np.float64) for layer, norm in moments.squared_norms.items()}
    layers = {layer: diagnostics.signal_to_noise(norm, by_layer[layer]) for layer, norm in norms.items()}
    total, mean = sum(norms.values()), sum(by_layer.values())
    scale = diagnostics.noise_scale(total, mean)
    of_mean = {layer: math.sqrt(by_layer[layer]) for layer in norms}
    return Head(scale.signal, scale.noise, scale.scale, diagnostics.signal_to_noise(total, mean), layers, of_mean)


def _directions(measured: Mapping[str, Any], rollout: Rollout, mask: Any, by_episode: bool) -> dict[str, list[float]]:
    """Return the cosines and shares of the steps that count."""
    inner = np.asarray(measured["inner"], np.float64).reshape(mask.shape)[mask]
    time, column = np.nonzero(mask)
    if by_episode:
        episodes = column
    else:
        numbers = diagnostics.episode_numbers(np.asarray(rollout.terminations) | np.asarray(rollout.truncations))
        _, episodes = np.unique(numbers[mask], return_inverse=True)
    of_samples = np.bincount(column, weights=inner, minlength=mask.shape[1]) if by_episode else inner
    mean = diagnostics.squared_norm(measured["policy"].mean)
    return {
        "cosines": diagnostics.cosines(measured["policy"].total, of_samples, mean).tolist(),
        "share_by_time": diagnostics.shares(inner, time).tolist(),
        "share_by_episode": diagnostics.shares(inner, episodes).tolist(),
    }


def variances(measured: Mapping[str, Any]) -> Variances:
    """Return the variance of the policy gradient under each baseline, from the results of `measure`."""
    scores, advantages, centre = measured["scores"], measured["advantages"], float(measured["centre"])
    baseline = diagnostics.optimal_baseline(scores)
    return Variances(
        none=diagnostics.variance_with(scores, -centre),
        agent=diagnostics.variance(advantages.total, diagnostics.squared_norm(advantages.mean)),
        optimal=diagnostics.variance_with(scores, baseline),
        componentwise=diagnostics.variance_with(scores, diagnostics.componentwise_baseline(scores)),
        baseline=centre + baseline,
    )
