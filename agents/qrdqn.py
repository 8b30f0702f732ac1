"""QR-DQN: learn quantiles of the return of each action, by the slopes of their quantile losses.

The network says K numbers z_i(s)[a], which become the quantiles τ_i = (i − ½) / K of the return. With R, d and s′ as in DQN,
and a* the action whose quantiles at s′ have the largest mean,

    u_ij = R + d z̄_j(s′)[a*] − z_i(s)[a]

As credits, positive raising the output:

    on ∇ z_i(s)[a]    mean_j |τ_i − [u_ij < 0]| ψ(u_ij),    ψ(u) = clip(u, ±κ) / κ,    κ = error_clip

ψ is Huber's slope; without κ it is the sign of u, which is the slope of the quantile loss itself.

Where it fails: as DQN does; and with many quantiles it begins slowly, since each of them learns from the few steps near it.

Source: Dabney et al. (2018), "Distributional reinforcement learning with quantile regression", equations 10 and 13.
"""

from typing import Any

import tensorflow as tf

from rlgrad import Credit, Outputs, ReplayBatch
from rlgrad.agents.dqn import DQN
from rlgrad.core.checks import require
from rlgrad.estimators import quantile_slope


class QRDQN(DQN):
    """Deep Q-network with quantiles of the return."""

    double: bool = False
    """Choose the next action by the current weights, and value it by the target weights."""
    quantiles: int = 50
    """Quantiles of the return that the network says of each action."""
    error_clip: float | None = 1.0
    """κ of the quantile Huber loss, in units of return. `None`: of the quantile loss, whose slope is a sign."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        super().__post_init__()
        require(self.quantiles >= 1, "quantiles", "at least 1", self.quantiles)

    def credit(self, batch: ReplayBatch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        return {"q": quantile_slope(self.errors(batch, now), self.error_clip)}

    def errors(self, batch: ReplayBatch, now: Outputs) -> Any:
        """Return u_ij, float (M, K, K), in units of return."""
        there = now.target(batch.next_observations)
        best = tf.argmax(now.at(batch.next_observations).expected if self.double else there.expected, axis=-1)
        after = tf.gather(there.q_values, best, batch_dims=1)
        target = batch.rewards[:, None] + batch.discounts[:, None] * after
        return target[:, None, :] - now.q[:, :, None]
