"""DroQ: SAC with dropout in the critics and many updates a step, for the sample efficiency of REDQ with two critics.

As SAC, with critics whose hidden layers drop a share of their units and are normalized, and which run in training mode wherever
the agent asks them: for their own values, for those of the slow copies at the next action, and for the slope that the actor
climbs. Each of these passes has masks of its own.

    y = R + d (min_i q̄_i(s′, a′) − α log π(a′|s′)),    a′ ~ π(·|s′)

20 updates of the critics for each environment step, and one of the actor and of the temperature in 20 of them. As credits,
positive raising the output:

    on ∇ q_i(s, a), at its mask    y − q_i(s, a)
    on ∇ a(s; ε), a vector         ∇ₐ min_i q_i(s, a) at a = a(s; ε), at a mask
    on ∇ log π(a(s; ε)|s)          −α
    on ∇ log α                     log π(a(s; ε)|s) + H̄

A mask drawn anew for each pass makes of two critics an ensemble, so that targets are careful although there are many updates.
With `critic.dropout` 0 it is SAC with normalized critics. The actor climbs the smallest of the critics, as SAC's does and SBX's
DroQ; the paper's climbs their mean.

Where it fails: it buys steps of the environment with computing, twenty times SAC's for a step; and as SAC.

Source: Hiraoka et al. (2022), "Dropout Q-functions for doubly efficient reinforcement learning".
"""

from typing import ClassVar

from rlgrad.agents.sac import SAC
from rlgrad.policies import CriticNetwork
from rlgrad.replay import Replay
from rlgrad.updates import Ascent, PerHead, Update


class DroQ(SAC):
    """Dropout Q-functions."""

    training_mode: ClassVar[bool] = True

    critic: CriticNetwork = CriticNetwork(layer_norm=True, dropout=0.01)
    """Settings of the critics' networks."""
    replay: Replay | None = Replay(capacity=1_000_000, batch_size=256, warmup=5_000, updates_per_step=20.0)
    """Steps played earlier, from which batches are drawn."""
    update: Update = PerHead(policy=Ascent(learning_rate=3e-4), value=Ascent(learning_rate=3e-4), policy_every=20)
    """How the weights move."""
