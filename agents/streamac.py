"""Stream AC(λ): actor-critic that learns from each step as it comes, with eligibility traces and bounded steps.

At every environment step, with v at the weights before the update:

    δ = r + γ v(s′) − v(s)                             v(s′) = 0 where the task ended, not where time ran out
    z_w ← γλ z_w + ∇v(s)
    z_θ ← γλ z_θ + ∇[log π(a|s) + τ sgn(δ) H(π(·|s))]
    w ← w + α_w δ z_w        θ ← θ + α_θ δ z_θ         each α bounded by ObGD: no step overshoots
    z_w, z_θ ← 0                                       where the episode ended, either way

The sign of δ in the entropy's credit is there because the whole trace is multiplied by δ: what is added to θ is τ |δ| ∇H.
As credits, positive raising the output:

    on ∇ log π(a|s)    1
    on ∇ H(π(·|s))     entropy_coefficient · sgn δ
    on ∇ v(s)          1

With `update=PerHead(policy=Traces(step="constant", …), value=Traces(step="constant", …))`, without normalization, it is the
classic actor-critic with eligibility traces.

Where it fails: it forgets, since nothing is replayed; and it needs normalized observations, rewards and hidden layers, because
no step is corrected by others of a batch. Use `layer_norm: true`, `fixed_layer_norm: true` and `sparsity: 0.9`.

Source: Elsayed, Vasan & Mahmood (2024), "Streaming deep reinforcement learning finally works", algorithm 3; the classic form,
Sutton & Barto (2018), section 13.5.
"""

import tensorflow as tf

from rlgrad import Batch, Credit, Outputs, StreamAgent, search
from rlgrad.core.checks import require
from rlgrad.updates import PerHead, Traces, Update


class StreamAC(StreamAgent):
    """Streaming actor-critic with eligibility traces."""

    entropy_coefficient: float = 0.01
    """Credit on the entropy, times the sign of the error. A positive one keeps the policy exploring."""
    update: Update = PerHead(policy=Traces(kappa=3.0), value=Traces(kappa=2.0))
    """How the weights move."""

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        require(self.entropy_coefficient >= 0.0, "entropy_coefficient", "at least 0", self.entropy_coefficient)

    def credit(self, batch: Batch, now: Outputs) -> Credit:
        """Return the credits in the table at the top of this file."""
        credit = {"log_prob": 1.0, "value": 1.0}
        if self.entropy_coefficient:
            credit["entropy"] = self.entropy_coefficient * tf.sign(self.td_error(batch, now))
        return credit

    def search_space(self) -> search.Space:
        """Return the ranges of every streaming agent, and one for the entropy."""
        return {**super().search_space(), "entropy_coefficient": search.Range(1e-4, 1e-1, log=True)}
