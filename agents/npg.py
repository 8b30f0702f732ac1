"""NPG: A2C's gradient, turned into the direction that gains most for how far it moves the policy's distributions.

A step of the weights is measured by the divergence between the policies before and after it, whose curvature is the Fisher
matrix F of the policy. Over the M steps of a rollout, with the advantage Â_t (generalized advantage estimate):

    g = 1/M Σ_t Â_t ∇θ log π(a_t|s_t)
    x = (F + damping · I)⁻¹ g
    θ ← θ + √(2 target_kl / xᵀ (F + damping · I) x) · x

    fisher=exact        F = 1/M Σ_t E_{a~π(·|s_t)}[∇ log π(a|s_t) ∇ log π(a|s_t)ᵀ], by products and conjugate gradients
    fisher=empirical    the actions that were taken in place of the expectation; solved through the M × M Gram matrix of the
                        scores: x is one ordinary backward pass with other credits, Sᵀ c̃

As credits, positive raising the output:

    on ∇ log π(a_t|s_t)    Â_t, standardized over the rollout if asked; then the natural gradient
    on ∇ v(s_t)            G^λ_t − v(s_t), by gradient ascent of its own, several times over the rollout

Because the step has a fixed length in divergence, the scale of the rewards does not matter to the policy.

Where it fails: nothing checks that the step improves anything (TRPO does), and where the policy is nearly deterministic F is
nearly singular, so that damping decides the direction.

Source: Kakade (2001), "A natural policy gradient"; the normalized step follows Rajeswaran et al. (2017), "Towards
generalization and simplicity in continuous control".
"""

from rlgrad import Agent, Batch, Credit, Outputs, estimators, search
from rlgrad.updates import Ascent, NaturalGradient, PerHead, Update


class NPG(Agent):
    """Natural policy gradient."""

    num_steps: int | None = 128
    """Steps per environment per rollout. `None`: whole episodes."""
    standardize_advantages: bool = True
    """Give the advantages of each rollout mean 0 and deviation 1."""
    value_coefficient: float = 1.0
    """Credit on the value's error."""
    update: Update = PerHead(
        policy=NaturalGradient(), value=Ascent(learning_rate=1e-3, num_epochs=10, num_minibatches=16)
    )
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
