"""REDQ: SAC with many critics and many updates a step, made possible by targets from random pairs of critics.

As SAC, with E = 10 critics, of which each row's target takes a random subset of M = 2,

    y = R + d (min_{i of the subset} q̄_i(s′, a′) − α log π(a′|s′)),    a′ ~ π(·|s′)

20 updates of the critics for each environment step, and an actor that climbs the mean of all critics once in 20 of them. As
credits, positive raising the output:

    on ∇ q_i(s, a)              y − q_i(s, a)
    on ∇ a(s; ε), a vector      ∇ₐ mean_i q_i(s, a) at a = a(s; ε)
    on ∇ log π(a(s; ε)|s)       −α
    on ∇ log α                  log π(a(s; ε)|s) + H̄

Where it fails: it buys steps of the environment with computing, 100 times SAC's for a step; and as SAC.

Source: Chen et al. (2021), "Randomized ensembled double Q-learning: learning fast without a model".
"""

import tensorflow as tf

from rlgrad import Outputs
from rlgrad.agents.sac import SAC
from rlgrad.core.checks import require
from rlgrad.replay import Replay
from rlgrad.updates import Ascent, PerHead, Update


class REDQ(SAC):
    """Randomized ensembled double Q-learning."""

    num_critics: int = 10
    """Critics."""
    subset: int = 2
    """Critics, drawn at random for each row, of whose values the smallest is the target."""
    replay: Replay | None = Replay(capacity=1_000_000, batch_size=256, warmup=5_000, updates_per_step=20.0)
    """Steps played earlier, from which batches are drawn."""
    update: Update = PerHead(policy=Ascent(learning_rate=3e-4), value=Ascent(learning_rate=3e-4), policy_every=20)
    """How the weights move."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        super().__post_init__()
        require(1 <= self.subset <= self.num_critics, "subset", f"1 to num_critics, {self.num_critics}", self.subset)

    def following(self, q: tf.Tensor, now: Outputs) -> tf.Tensor:
        """Return the smallest value of a random subset of the critics, float (M,)."""
        _, drawn = tf.math.top_k(now.noise(self.num_critics), self.subset)
        return tf.reduce_min(tf.gather(q, drawn, batch_dims=1), axis=-1)

    def value(self, q: tf.Tensor) -> tf.Tensor:
        """Return the mean of all critics, which the actor climbs, float (M,)."""
        return tf.reduce_mean(q, axis=-1)
