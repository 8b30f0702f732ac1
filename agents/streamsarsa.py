"""Stream SARSA(λ): the value of the policy that explores, from each step as it comes, with an eligibility trace.

At every environment step, with q at the weights before the update:

    a′ ~ the exploring policy at s′                    drawn before the update, and taken next
    δ = r + γ q(s′)[a′] − q(s)[a]                      q(s′) is 0 where the task ended, not where time ran out
    z ← γλ z + ∇q(s)[a]
    θ ← θ + α δ z                                      α bounded by ObGD: no step overshoots
    z ← 0                                              where the episode ended

As credits, positive raising the output:

    on ∇ q(s)[a]    1

Where it fails: as stream Q(λ) does, and its values include the cost of exploring: near a cliff it keeps away from the edge.

Source: Elsayed, Vasan & Mahmood (2024), "Streaming deep reinforcement learning finally works"; SARSA(λ), Sutton & Barto (2018),
section 12.7.
"""

from typing import Any, ClassVar

from rlgrad import Batch, Credit, Exploration, Linear, Outputs, StreamAgent


class StreamSARSA(StreamAgent):
    """Streaming SARSA with an eligibility trace."""

    decides_ahead: ClassVar[bool] = True

    exploration: Exploration = Exploration(random=Linear(start=1.0, end=0.01, over=0.05))
    """How acting for training differs from the policy."""

    def credit(self, batch: Batch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        return {"q": 1.0}

    def td_error(self, batch: Batch, now: Outputs) -> Any:
        """Return r + γ q(s′)[a′] − q(s)[a]."""
        discounts = batch.discounts * (1.0 - batch.ends) if self.truncation_ends_task else batch.discounts
        return batch.rewards + discounts * now.at(batch.next_observations, batch.next_actions).q - now.q
