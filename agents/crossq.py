"""CrossQ: SAC without slow copies, whose critics are normalized by the batch.

Two critics q₁, q₂ with batch normalization run in training mode on the steps that were drawn and on their successors in one
pass, so that both halves are normalized by the statistics of both:

    [q_i(s, a), q_i(s′, a′)] = q_i([s, s′], [a, a′]),    a′ ~ π(·|s′)
    y = R + d (min_i q_i(s′, a′) − α log π(a′|s′))

As credits, positive raising the output; y is a number, and q_i(s′, a′) is not credited:

    on ∇ q_i(s, a)              y − q_i(s, a)
    on ∇ a(s; ε), a vector      ∇ₐ min_i q_i(s, a) at a = a(s; ε), at the moving statistics
    on ∇ log π(a(s; ε)|s)       −α
    on ∇ log α                  log π(a(s; ε)|s) + H̄

The gradient of q_i(s, a) is that of the batch: it passes its statistics, so each step's credit moves the others' values too.
Each gradient step moves the moving statistics, which the slope and all that is asked at inference use. The actor and the
temperature move at every third step of the critics.

Where it fails: with critics that are not normalized there is no slow copy to hold the targets; and as SAC.

Source: Bhatt et al. (2024), "CrossQ: batch normalization in deep reinforcement learning for greater sample efficiency and
simplicity".
"""

from typing import Any, ClassVar

import tensorflow as tf

from rlgrad import Outputs, ReplayBatch
from rlgrad.agents.sac import SAC
from rlgrad.policies import CriticNetwork
from rlgrad.replay import Replay
from rlgrad.updates import Ascent, PerHead, Update

_ADAM = Ascent(learning_rate=1e-3, optimizer_options={"beta_1": 0.5})


class CrossQ(SAC):
    """Batch-normalized critics without target networks."""

    target: ClassVar[None] = None  # type: ignore[misc]
    training_mode: ClassVar[bool] = True

    critic: CriticNetwork = CriticNetwork(batch_norm="batch")
    """Settings of the critics' networks."""
    replay: Replay | None = Replay(capacity=1_000_000, batch_size=256, warmup=5_000)
    """Steps played earlier, from which batches are drawn."""
    update: Update = PerHead(policy=_ADAM, value=_ADAM, policy_every=3)
    """How the weights move."""

    def beside(self, batch: ReplayBatch, now: Outputs) -> Any:
        """Return the successors, on which the critics run in one pass with the batch."""
        return now.at(batch.next_observations)

    def critic_credit(self, batch: ReplayBatch, now: Outputs) -> tf.Tensor:
        """Return y − q_i, float (M, E)."""
        following = self.following(now.beside.q, now) - tf.exp(now.log_alpha) * now.beside.action_log_prob
        return (batch.rewards + batch.discounts * following)[:, None] - now.q
