"""PPO: go over each rollout several times, and let a step stop counting once it has moved the policy far enough.

With r = π(a_t|s_t) / π_old(a_t|s_t) and the advantage Â_t (generalized advantage estimate), the clipped surrogate is

    L = 1/M Σ_t min( r Â_t, clip(r, 1 − ε, 1 + ε) Â_t )

Its gradient is Â_t ∇r = Â_t r ∇ log π where the minimum is r Â_t, and 0 where it is the clipped term, which is constant: where
Â_t > 0 and r > 1 + ε, or Â_t < 0 and r < 1 − ε. So clipping is a credit:

    on ∇ log π(a_t|s_t)    Â_t r (1 − [Â_t > 0 ∧ r > 1 + ε] − [Â_t < 0 ∧ r < 1 − ε])
    on ∇ H(π(·|s_t))       entropy_coefficient
    on ∇ v(s_t)            value_coefficient (G^λ_t − v(s_t)), times 0 where a clipped value loss is flat

r is taken at the current weights, so it is 1 on the first minibatch and the credit there is A2C's.

Value clipping, off by default, keeps v within c of v_old, what it was when the rollout was collected. Two versions are common:

    cleanrl    max( (v − G)², (v_clipped − G)² ): flat where v is outside of v_old ± c and the clipped error is larger
    sb3        (v_clipped − G)²: flat wherever v is outside of v_old ± c

value_coefficient = 1 is Stable-Baselines3's vf_coef = 0.5 on a mean squared error, and CleanRL's vf_coef = 1 on half of one.

Where it fails: with too many epochs or too high a learning rate the policy leaves the region in which the rollout tells
something, since clipping stops a step's gradient but does not bring the policy back; `update.target_kl` ends the epochs early.

Source: Schulman et al. (2017), "Proximal policy optimization algorithms"; which implementation details matter, Engstrom et al.
(2020) and Andrychowicz et al. (2021).
"""

from collections.abc import Mapping
from typing import Any, Literal

import tensorflow as tf

from rlgrad import Agent, Batch, Credit, Outputs, estimators, search
from rlgrad.core.checks import require
from rlgrad.hyperparameters import Schedule, anneal
from rlgrad.updates import Ascent, Update


class PPO(Agent):
    """Proximal policy optimization with a clipped ratio."""

    tolerates_lag = True  # its ratio is to the policy that played
    num_steps: int | None = 256
    """Steps per environment per rollout. `None`: whole episodes."""
    clip_range: float = 0.2
    """ε: a step stops counting once its probability has changed by this share in the direction of its advantage."""
    clip_schedule: Schedule = "constant"
    """`linear` lowers clip_range to 0 at the end of training."""
    standardize_advantages: bool = True
    """Give the advantages of each minibatch mean 0 and deviation 1."""
    value_clip: Literal["none", "cleanrl", "sb3"] = "none"
    """Which clipped value loss, if any; see the top of the file."""
    value_clip_range: float = 0.2
    """c, in units of return; only with value_clip."""
    entropy_coefficient: float = 0.0
    """Credit on the entropy. A positive one keeps the policy exploring."""
    entropy_schedule: Schedule = "constant"
    """`linear` lowers the entropy coefficient to 0 at the end of training."""
    value_coefficient: float = 1.0
    """Credit on the value's error."""
    update: Update = Ascent(learning_rate=3e-4, max_grad_norm=0.5, num_epochs=10, num_minibatches=32)
    """How the weights move."""

    def __post_init__(self) -> None:
        """Check the fields, and those that contradict each other."""
        super().__post_init__()
        require(self.clip_range > 0, "clip_range", "above 0", self.clip_range)
        require(self.value_clip_range > 0, "value_clip_range", "above 0", self.value_clip_range)
        of_policy = self.update.part("log_prob")
        if of_policy.moves_only_the_policy:
            raise ValueError(
                f"PPO's clipping and {type(of_policy).__name__} both limit how far the policy moves: use Ascent here, or the "
                "agents npg and trpo."
            )

    def credit(self, batch: Batch, now: Outputs) -> Credit:
        """Return the credits in the table at the top of this file."""
        advantages = batch.advantages
        if self.standardize_advantages:
            advantages = estimators.standardize(advantages, batch.weights)
        ratio = tf.exp(now.log_prob - batch.log_probs)
        counts = tf.where(self._clipped(advantages, ratio, batch.progress), 0.0, advantages * ratio)
        credit = {"log_prob": counts, "value": self._of_value(batch, now)}
        if self.entropy_coefficient:
            credit["entropy"] = anneal(self.entropy_coefficient, self.entropy_schedule, batch.progress)
        return credit

    def measure(self, batch: Batch, now: Outputs) -> Mapping[str, Any]:
        """Return `clip_fraction`: the share of steps whose ratio is outside 1 ± ε, whatever their advantage."""
        outside = tf.abs(tf.exp(now.log_prob - batch.log_probs) - 1.0) > self._range(batch.progress)
        return {"clip_fraction": tf.cast(outside, tf.float32)}

    def search_space(self) -> search.Space:
        """Return the ranges of every agent, and choices for the length of rollouts, the passes over each and the clip."""
        lengths = {} if self.num_steps is None else {"num_steps": [64, 128, 256, 512, 1024]}
        field = self.update.field_of("log_prob")
        name = "update.num_epochs" if field is None else f"update.{field}.num_epochs"
        passes = {name: [2, 5, 10, 20]} if hasattr(self.update.part("log_prob"), "num_epochs") else {}
        return {
            **super().search_space(),
            **lengths,
            **passes,
            "clip_range": [0.1, 0.2, 0.3],
            "entropy_coefficient": search.Range(1e-5, 1e-1, log=True),
        }

    def _range(self, progress: Any) -> Any:
        return anneal(self.clip_range, self.clip_schedule, progress)

    def _clipped(self, advantages: Any, ratio: Any, progress: Any) -> Any:
        limit = self._range(progress)
        return ((advantages > 0) & (ratio > 1 + limit)) | ((advantages < 0) & (ratio < 1 - limit))

    def _of_value(self, batch: Batch, now: Outputs) -> Any:
        error = batch.returns - now.value
        if self.value_clip == "none":
            return self.value_coefficient * error
        moved = now.value - batch.values
        flat = tf.abs(moved) > self.value_clip_range
        if self.value_clip == "cleanrl":
            held = batch.values + tf.clip_by_value(moved, -self.value_clip_range, self.value_clip_range)
            flat &= tf.square(batch.returns - held) > tf.square(error)
        return self.value_coefficient * tf.where(flat, 0.0, error)
