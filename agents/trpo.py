"""TRPO: NPG's direction, followed as far as the policy may move and the rollout still says that it improves.

Over the M steps of a rollout, with the advantage Â_t (generalized advantage estimate) and the exact Fisher matrix F:

    1  g = 1/M Σ_t Â_t ∇θ log π(a_t|s_t)
    2  x = (F + damping · I)⁻¹ g                              conjugate gradients, cg_iterations products
    3  s = √(2 target_kl / xᵀ (F + damping · I) x) · x        the step that the quadratic model allows
    4  for i = 0, 1, …, max_backtracks: θ′ = θ + backtrack_factorⁱ · s, taken if both
           1/M Σ_t KL(π_θ(·|s_t) ‖ π_θ′(·|s_t)) ≤ target_kl
           1/M Σ_t Â_t (π_θ′(a_t|s_t) / π_θ(a_t|s_t) − 1) > 0
    5  if none is taken, θ stays

As credits, positive raising the output:

    on ∇ log π(a_t|s_t)    Â_t, standardized over the rollout if asked; then lines 2 to 5
    on ∇ v(s_t)            G^λ_t − v(s_t), by gradient ascent of its own, several times over the rollout

Where it fails: each rollout allows one step of a bounded length, so tasks that need a large change of the policy take many
rollouts; the policy cannot share weights with the value.

Source: Schulman et al. (2015), "Trust region policy optimization", section 6 and appendix C.
"""

from rlgrad import Agent, Batch, Credit, Outputs, estimators, search
from rlgrad.updates import Ascent, PerHead, TrustRegion, Update


class TRPO(Agent):
    """Trust-region policy optimization."""

    num_steps: int | None = 128
    """Steps per environment per rollout. `None`: whole episodes."""
    standardize_advantages: bool = True
    """Give the advantages of each rollout mean 0 and deviation 1."""
    value_coefficient: float = 1.0
    """Credit on the value's error."""
    update: Update = PerHead(policy=TrustRegion(), value=Ascent(learning_rate=1e-3, num_epochs=10, num_minibatches=16))
    """How the weights move."""

    def credit(self, batch: Batch, now: Outputs) -> Credit:
        """Return the credits in the table at the top of this file."""
        advantages = batch.advantages
        if self.standardize_advantages:
            advantages = estimators.standardize(advantages, batch.weights)
        return {"log_prob": advantages, "value": self.value_coefficient * (batch.returns - now.value)}

    def search_space(self) -> search.Space:
        """Return the ranges of every agent, and choices for the length of rollouts."""
        lengths = {} if self.num_steps is None else {"num_steps": [64, 128, 256, 512]}
        return {**super().search_space(), **lengths}
