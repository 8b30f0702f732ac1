"""REINFORCE: raise the log-probability of each action by the return that followed it, less a baseline.

The estimator, with E whole episodes of lengths T_e and reward-to-go G_t = Σ_{k≥t} γ^(k−t) r_k:

    ∇J ≈ 1/E Σ_e Σ_{t<T_e} γᵗ (G_t − b_t) ∇θ log π(a_t|s_t)

It is unbiased for any baseline b_t that does not depend on a_t. Dividing by E, a number fixed before anything is sampled,
matters: dividing by the number of steps, which is random, biases it. γᵗ is part of the gradient of the discounted objective;
most implementations leave it out and so follow no gradient of any objective (Nota & Thomas 2020). It is a named option here,
`discount_from_start`, off by default because it gives late steps hardly any say.

Three baselines:

    none            b_t = 0
    leave_one_out   b_t = mean of G_t over the other episodes still running at t   (Kool et al. 2019, per time step)
    value           b_t = v(s_t), a second output trained on the same data

As credits, positive raising the output:

    on ∇ log π(a_t|s_t)    G_t − b_t, times γᵗ if asked
    on ∇ H(π(·|s_t))       entropy_coefficient
    on ∇ v(s_t)            value_coefficient (G_t − v(s_t)), with the value baseline

With the value baseline, rollouts of a fixed number of steps can be used instead of whole episodes (`num_steps`): a return cut
by the end of the rollout, or by a time limit, then continues with v of the state that followed, at the price of its bias.

Where it fails: one step per rollout and Monte-Carlo returns mean high variance; long episodes with late rewards learn slowly.

Source: Williams (1992), "Simple statistical gradient-following algorithms"; Sutton & Barto (2018), sections 13.3 and 13.4.
"""

from typing import Literal

import tensorflow as tf

from rlgrad import Agent, Batch, Credit, Estimates, Outputs, Rollout, estimators, search
from rlgrad.core.checks import require
from rlgrad.hyperparameters import Schedule, anneal
from rlgrad.updates import Ascent, Update


class Reinforce(Agent):
    """REINFORCE with reward-to-go and a baseline."""

    gae_lambda: float = 1.0
    """Always 1: the return is Monte-Carlo."""
    num_steps: int | None = None
    """Steps per environment per rollout, with baseline=value. `None`: whole episodes."""
    baseline: Literal["none", "leave_one_out", "value"] = "value"
    """The baseline that is taken off each return."""
    standardize_advantages: bool = False
    """Give the advantages of each rollout mean 0 and deviation 1."""
    discount_from_start: bool = False
    """Weigh step t by γᵗ: the gradient of the discounted objective from the first state."""
    entropy_coefficient: float = 0.0
    """Credit on the entropy. A positive one keeps the policy exploring."""
    entropy_schedule: Schedule = "constant"
    """`linear` lowers the entropy coefficient to 0 at the end of training."""
    value_coefficient: float = 1.0
    """Credit on the value's error, with baseline=value."""
    update: Update = Ascent(learning_rate=3e-3)
    """How the weights move."""

    def __post_init__(self) -> None:
        """Check the fields, and those that contradict each other."""
        super().__post_init__()
        if self.gae_lambda != 1.0:
            raise ValueError(f"REINFORCE's return is Monte-Carlo, gae_lambda=1; got {self.gae_lambda}.")
        if self.num_steps is not None and self.baseline != "value":
            raise ValueError(f"baseline={self.baseline!r} needs whole episodes: set num_steps to None.")
        if self.num_steps is not None and self.discount_from_start:
            raise ValueError("discount_from_start counts from the first step of an episode: set num_steps to None.")
        if self.baseline == "leave_one_out":
            episodes = self.num_envs * self.episodes_per_env
            require(episodes >= 2, "num_envs × episodes_per_env", "at least 2 with baseline='leave_one_out'", episodes)
        if self.update.part("log_prob").steps_per_rollout not in (None, 1):
            raise ValueError(
                "REINFORCE's gradient holds for the policy that collected the rollout, so the policy takes one step: "
                "num_epochs and num_minibatches are 1. More steps are what PPO's clipping is for; the value may take more "
                "with update=PerHead(value=Ascent(num_epochs=…))."
            )

    def estimate(self, rollout: Rollout) -> Estimates:
        """Return G_t, and G_t − b_t, times γᵗ with `discount_from_start`."""
        returns, _, deltas = super().estimate(rollout)
        advantages = returns
        if self.baseline == "value":
            advantages = returns - rollout.values
        elif self.baseline == "leave_one_out":
            advantages = returns - leave_one_out(returns, rollout.mask)
        if self.discount_from_start:
            steps = tf.range(returns.shape[0], dtype=returns.dtype)
            advantages *= tf.pow(tf.constant(self.gamma, returns.dtype), steps)[:, None]
        return Estimates(returns, advantages, deltas)

    def credit(self, batch: Batch, now: Outputs) -> Credit:
        """Return the credits in the table at the top of this file."""
        advantages = batch.advantages
        if self.standardize_advantages:
            advantages = estimators.standardize(advantages, batch.weights)
        credit = {"log_prob": advantages}
        if self.entropy_coefficient:
            credit["entropy"] = anneal(self.entropy_coefficient, self.entropy_schedule, batch.progress)
        if self.baseline == "value":
            credit["value"] = self.value_coefficient * (batch.returns - now.value)
        return credit

    def search_space(self) -> search.Space:
        """Return the ranges of every agent but λ, which is 1 here, and those of standardization and the entropy."""
        common = {name: values for name, values in super().search_space().items() if name != "gae_lambda"}
        entropy = {"entropy_coefficient": search.Range(1e-5, 1e-1, log=True)}
        return {**common, **entropy, "standardize_advantages": [False, True]}


def leave_one_out(returns: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return, at each time step, the mean return of the other episodes that are still running; 0 if there is none.

    Args:
        returns: float (T, E), one whole episode a column.
        mask: float (T, E), 1 while the episode runs.

    Returns:
        float (T, E), in units of reward.
    """
    mask = tf.cast(mask, returns.dtype)
    others = tf.reduce_sum(mask, axis=1, keepdims=True) - mask
    return tf.math.divide_no_nan(tf.reduce_sum(mask * returns, axis=1, keepdims=True) - mask * returns, others)
