"""Returns and advantages of rollouts, time first, shapes (T, N), and the slope of a regression on quantiles: pure functions."""

from typing import Any

import tensorflow as tf


def discounted_sums(x: Any, discounts: Any) -> tf.Tensor:
    """y_t = x_t + d_t y_t+1, with y_T = 0, in ⌈log₂ T⌉ vectorised steps instead of a loop over time.

    After k steps y_t holds the first 2ᵏ terms of its sum, and d_t the product of as many discounts.

    Args:
        x: float (T, N), T known when traced.
        discounts: float (T, N), d_t.

    Returns:
        float (T, N).
    """
    x, discounts = tf.convert_to_tensor(x), tf.convert_to_tensor(discounts)
    length, reach = x.shape[0], 1
    if length is None:
        raise ValueError("The number of time steps must be known when traced; got shape " + str(x.shape))
    while reach < length:
        x += discounts * _shift(x, reach)
        discounts *= _shift(discounts, reach)
        reach *= 2
    return x


def reward_to_go(rewards: Any, boundaries: Any, gamma: float) -> tf.Tensor:
    """Monte-Carlo returns G_t = r_t + γ G_t+1; at an episode's end G_t+1 is 0.

    Args:
        rewards: float (T, N), in units of reward.
        boundaries: bool (T, N), the episode ended after this step, for whatever reason.
        gamma: discount per step.

    Returns:
        float (T, N), same units as `rewards`.
    """
    rewards = tf.convert_to_tensor(rewards)
    return discounted_sums(rewards, gamma * _continues(boundaries, rewards.dtype))


def td_errors(rewards: Any, values: Any, next_values: Any, terminations: Any, gamma: float) -> tf.Tensor:
    """δ_t = r_t + γ (1 − term_t) v(s_t+1) − v(s_t).

    Args:
        rewards: float (T, N), in units of reward.
        values: float (T, N), v(s_t).
        next_values: float (T, N), v of the true successor, also where the episode was cut.
        terminations: bool (T, N), the task ended after this step.
        gamma: discount per step.

    Returns:
        float (T, N), same units as `rewards`.
    """
    values = tf.convert_to_tensor(values)
    return rewards + gamma * _continues(terminations, values.dtype) * next_values - values


def lambda_returns(
    rewards: Any, values: Any, next_values: Any, terminations: Any, boundaries: Any, gamma: float, gae_lambda: float
) -> tf.Tensor:
    """λ-returns G_t = r_t + γ (1 − term_t) [(1 − λ) v(s_t+1) + λ G_t+1]; at a boundary G_t+1 is v(s_t+1).

    The end of the rollout is a boundary too. G_t − v(s_t) is the generalized advantage estimate.

    Args:
        rewards: float (T, N), in units of reward.
        values: float (T, N), v(s_t).
        next_values: float (T, N), v of the true successor, also where the episode was cut.
        terminations: bool (T, N), the task ended after this step.
        boundaries: bool (T, N), the episode ended after this step, for whatever reason.
        gamma: discount per step.
        gae_lambda: λ: 0 gives one-step targets, 1 Monte-Carlo returns with a bootstrap at cuts.

    Returns:
        float (T, N), same units as `rewards`.

    Raises:
        ValueError: the arguments' shapes differ.

    Source: Sutton & Barto (2018), eq. 12.18; Schulman et al. (2016), eq. 16.
    """
    values = tf.convert_to_tensor(values)
    for name, other in (("rewards", rewards), ("next_values", next_values), ("boundaries", boundaries)):
        if tuple(other.shape) != tuple(values.shape):
            raise ValueError(
                f"{name} has shape {tuple(other.shape)}, values has {tuple(values.shape)}: both are (T, N)."
            )
    # Where the recursion stops, the whole weight is on v(s_t+1); elsewhere 1 − λ of it, and the rest on G_t+1.
    continues = _continues(boundaries, values.dtype)
    continues = tf.concat([continues[:-1], tf.zeros_like(continues[-1:])], axis=0)
    bootstrap = gamma * _continues(terminations, values.dtype) * next_values * (1.0 - gae_lambda * continues)
    return discounted_sums(rewards + bootstrap, gamma * gae_lambda * continues)


def v_trace(
    rewards: Any,
    values: Any,
    next_values: Any,
    terminations: Any,
    *,
    boundaries: Any,
    ratios: Any,
    gamma: float,
    gae_lambda: float = 1.0,
    rho_limit: float = 1.0,
    trace_limit: float = 1.0,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """V_t = v(s_t) + δ_t + γ c_t (V_t+1 − v(s_t+1)), δ_t = ρ_t (r_t + γ v(s_t+1) − v(s_t)); at a boundary V_t+1 is v(s_t+1).

    ρ_t = min(ρ̄, π/μ) and c_t = λ min(c̄, π/μ) correct for actions of another policy μ. The end of the rollout is a boundary too.

    Args:
        rewards: float (T, N), in units of reward.
        values: float (T, N), v(s_t).
        next_values: float (T, N), v of the true successor, also where the episode was cut.
        terminations: bool (T, N), the task ended after this step.
        boundaries: bool (T, N), the episode ended after this step, for whatever reason.
        ratios: float (T, N), π(a_t|s_t) / μ(a_t|s_t).
        gamma: discount per step.
        gae_lambda: λ.
        rho_limit: ρ̄.
        trace_limit: c̄.

    Returns:
        V_t; the advantages ρ_t (r_t + γ V_t+1 − v(s_t)); and δ_t. Each float (T, N), same units as `rewards`.

    Source: Espeholt et al. (2018), eq. 1 and remark 1.
    """
    values, ratios = tf.convert_to_tensor(values), tf.convert_to_tensor(ratios)
    rho, alive = tf.minimum(ratios, rho_limit), gamma * _continues(terminations, values.dtype)
    continues = _continues(boundaries, values.dtype)
    continues = tf.concat([continues[:-1], tf.zeros_like(continues[-1:])], axis=0)
    deltas = rho * (rewards + alive * next_values - values)
    traces = gamma * gae_lambda * tf.minimum(ratios, trace_limit) * continues
    corrections = discounted_sums(deltas, traces)  # V − v
    following = next_values + continues * _shift(corrections, 1)
    return values + corrections, rho * (rewards + alive * following - values), deltas


def standardize(x: Any, weights: Any, epsilon: float = 1e-8) -> tf.Tensor:
    """(x − mean) / (standard deviation + ε), mean and deviation under `weights`.

    Args:
        x: float, any shape.
        weights: float, same shape, ≥ 0; rows of weight 0 (padding) do not count.
        epsilon: added to the deviation, in units of x.

    Returns:
        float, shape of x, without units.
    """
    weights = weights / tf.reduce_sum(weights)
    centred = x - tf.reduce_sum(weights * x)
    return centred / (tf.sqrt(tf.reduce_sum(weights * centred * centred)) + epsilon)


def explained_variance(values: Any, returns: Any, weights: Any) -> tf.Tensor:
    """1 − Var(G − v) / Var(G): 1 is a perfect baseline, 0 no better than a constant, below 0 worse.

    Args:
        values: float, any shape, v(s).
        returns: float, same shape, G.
        weights: float, same shape, ≥ 0.

    Returns:
        float (), without units; not a number where the returns do not vary.
    """
    return 1.0 - _variance(returns - values, weights) / _variance(returns, weights)


def effective_sample_size(weights: Any) -> tf.Tensor:
    """Return (Σ w)² / Σ w²: the number of equally weighted samples that a weighted mean is as certain as.

    Args:
        weights: w ≥ 0, float (M,), such as importance weights.

    Returns:
        float (), between 1 and M; 0 if all weights are 0.

    Source: Kish (1965), "Survey sampling".
    """
    weights = tf.convert_to_tensor(weights)
    return tf.math.divide_no_nan(tf.square(tf.reduce_sum(weights)), tf.reduce_sum(tf.square(weights)))


def quantile_slope(errors: Any, clip: float | None = 1.0) -> tf.Tensor:
    """By how much each of K quantiles is to rise: mean_j |τ_i − 1(u_ij < 0)| ψ(u_ij / κ), with τ_i = (i + ½) / K.

    Args:
        errors: u, float (…, K, J): target j less quantile i, in units of return.
        clip: κ, in units of return: ψ is linear up to it, and 1 beyond. `None`: ψ is a sign.

    Returns:
        float (…, K): minus the derivative of the quantile Huber loss.

    Source: Dabney et al. (2018), "Distributional reinforcement learning with quantile regression", equation 10.
    """
    errors = tf.convert_to_tensor(errors)
    quantiles = errors.shape[-2]
    tau = (tf.range(quantiles, dtype=errors.dtype) + 0.5) / quantiles
    side = tf.abs(tau[:, None] - tf.cast(errors < 0.0, errors.dtype))
    slope = tf.sign(errors) if clip is None else tf.clip_by_value(errors / clip, -1.0, 1.0)
    return tf.reduce_mean(side * slope, axis=-1)


def _variance(x: Any, weights: Any) -> tf.Tensor:
    weights = weights / tf.reduce_sum(weights)
    return tf.reduce_sum(weights * tf.square(x - tf.reduce_sum(weights * x)))


def _continues(ends: Any, dtype: Any) -> tf.Tensor:
    return 1.0 - tf.cast(ends, dtype)


def _shift(x: tf.Tensor, by: int) -> tf.Tensor:
    """Row t of the result is row t + by of x, and 0 past the end."""
    return tf.concat([x[by:], tf.zeros_like(x[:by])], axis=0)
