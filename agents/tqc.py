"""TQC: SAC whose critics say quantiles of the return, of which the highest are left out of the target.

With d = γⁿ where the task goes on and 0 where it ended, E critics of K quantiles z each, and a(s; ε) a sample of the policy,
let y₁ ≤ … be the quantiles of all slow copies at (s′, a′), pooled and sorted, without the `dropped` highest of each:

    target_j = R + d (y_j − α log π(a′|s′)),    a′ ~ π(·|s′),    u_ij = target_j − z_i(s, a)

As credits, positive raising the output:

    on ∇ z_i(s, a)              mean_j |τ_i − [u_ij < 0]| clip(u_ij, ±1),   τ_i = (i − ½) / K
    on ∇ a(s; ε), a vector      ∇ₐ mean z(s, a) at a = a(s; ε)
    on ∇ log π(a(s; ε)|s)       −α
    on ∇ log α                  log π(a(s; ε)|s) + H̄

Leaving out the highest quantiles corrects for critics that promise too much, and by how much is set in small steps: DQN's and
TD3's smallest of two is all or nothing.

Where it fails: where the return is certain, its quantiles are one number, and leaving some out does nothing; and as SAC.

Source: Kuznetsov et al. (2020), "Controlling overestimation bias with truncated mixture of continuous distributional quantile
critics".
"""

import tensorflow as tf

from rlgrad import Outputs, ReplayBatch
from rlgrad.agents.sac import SAC
from rlgrad.core.checks import require
from rlgrad.estimators import quantile_slope


class TQC(SAC):
    """Truncated quantile critics."""

    quantiles: int = 25
    """Quantiles of the return that each critic says."""
    dropped: int = 2
    """Highest quantiles of each critic that the target leaves out."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        super().__post_init__()
        require(self.quantiles >= 2, "quantiles", "at least 2", self.quantiles)
        require(0 <= self.dropped < self.quantiles, "dropped", f"0 to {self.quantiles - 1}", self.dropped)

    def critic_credit(self, batch: ReplayBatch, now: Outputs) -> tf.Tensor:
        """Return the slope of the quantile Huber loss, float (M, E, K)."""
        there = now.at(batch.next_observations)
        pooled = tf.reshape(
            now.target(batch.next_observations, there.action).q, (-1, self.num_critics * self.quantiles)
        )
        kept = tf.sort(pooled, axis=-1)[:, : self.num_critics * (self.quantiles - self.dropped)]
        following = kept - (tf.exp(now.log_alpha) * there.action_log_prob)[:, None]
        target = batch.rewards[:, None] + batch.discounts[:, None] * following
        return quantile_slope(target[:, None, None, :] - now.q[..., None])

    def value(self, q: tf.Tensor) -> tf.Tensor:
        """Return the mean of all quantiles of all critics, which the actor climbs, float (M,)."""
        return tf.reduce_mean(q, axis=[1, 2])
