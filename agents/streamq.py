"""Stream Q(λ): Q-learning from each step as it comes, with an eligibility trace and bounded steps.

Neither a replay nor target weights. At every environment step, with q at the weights before the update:

    δ = r + γ max_a′ q(s′)[a′] − q(s)[a]               the maximum is 0 where the task ended, not where time ran out
    z ← γλ z + ∇q(s)[a]
    θ ← θ + α δ z                                      α bounded by ObGD: no step overshoots
    z ← 0                                              where the episode ended, or a was not greedy

The trace is cut after the update, so an exploring action's own error still reaches the steps before it, which is not Watkins's
rule to the letter. A random action that happens to be greedy cuts nothing. As credits, positive raising the output:

    on ∇ q(s)[a]    1

With `update=Traces(step="adam", learning_rate=…)` each weight moves at its own scale.

Where it fails: it forgets, since nothing is replayed. Use `layer_norm: true`, `fixed_layer_norm: true` and `sparsity: 0.9`.

Source: Elsayed, Vasan & Mahmood (2024), "Streaming deep reinforcement learning finally works".
"""

from typing import Any

import tensorflow as tf

from rlgrad import Batch, Credit, Exploration, Linear, Outputs, StreamAgent


class StreamQ(StreamAgent):
    """Streaming Q-learning with an eligibility trace."""

    exploration: Exploration = Exploration(random=Linear(start=1.0, end=0.01, over=0.05))
    """How acting for training differs from the policy."""

    def credit(self, batch: Batch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        return {"q": 1.0}

    def td_error(self, batch: Batch, now: Outputs) -> Any:
        """Return r + γ max q(s′) − q(s)[a]."""
        return batch.returns - now.q

    def cuts(self, batch: Batch, now: Outputs) -> Any:
        """Return 1 where the episode ended, or the action's value is below the greedy one's."""
        return tf.where(now.q < batch.values, 1.0, batch.ends)
