"""A2C: raise the log-probability of each action by how much better it turned out than the value estimate had it.

The estimator, over the N·T steps of a rollout, with the generalized advantage estimate Â:

    δ_t = r_t + γ v(s_t+1) − v(s_t)                    v(s_t+1) = 0 where the task ended, not where time ran out
    Â_t = δ_t + γλ Â_t+1                               up to the end of the episode or of the rollout
    ∇J ≈ 1/(N·T) Σ_t Â_t ∇θ log π(a_t|s_t)

λ = 1 trusts the sampled rewards up to the cut, λ = 0 the value estimate alone. One gradient step per rollout, since the
gradient holds for the policy that collected it; so rollouts are short and frequent.

As credits, positive raising the output:

    on ∇ log π(a_t|s_t)    Â_t, standardized over the rollout if asked
    on ∇ H(π(·|s_t))       entropy_coefficient
    on ∇ v(s_t)            value_coefficient (G^λ_t − v(s_t)),  G^λ_t = Â_t + v(s_t)

value_coefficient = 1 is Stable-Baselines3's vf_coef = 0.5 on a mean squared error.

Where it fails: short rollouts make noisy gradients, and each is used once, so it needs more environment steps than PPO. A value
estimate that is wrong misleads it, the more the smaller λ is.

Source: Mnih et al. (2016), "Asynchronous methods for deep reinforcement learning", in its synchronous form; Schulman et al.
(2016), "High-dimensional continuous control using generalized advantage estimation".
"""

from rlgrad import Agent, Batch, Credit, Outputs, estimators, search
from rlgrad.hyperparameters import Schedule, anneal
from rlgrad.updates import Ascent, Update


class A2C(Agent):
    """Advantage actor-critic, synchronous."""

    gae_lambda: float = 1.0
    """λ of the advantages: 0 trusts the value estimate, 1 the sampled rewards."""
    num_steps: int | None = 5
    """Steps per environment per rollout. `None`: whole episodes."""
    standardize_advantages: bool = False
    """Give the advantages of each rollout mean 0 and deviation 1."""
    entropy_coefficient: float = 0.0
    """Credit on the entropy. A positive one keeps the policy exploring."""
    entropy_schedule: Schedule = "constant"
    """`linear` lowers the entropy coefficient to 0 at the end of training."""
    value_coefficient: float = 1.0
    """Credit on the value's error."""
    update: Update = Ascent(
        optimizer="rmsprop",
        # Stable-Baselines3 divides by √v + 1e-5. Keras divides by √(v + ε), which is that for ε = 1e-10.
        optimizer_options={"rho": 0.99, "epsilon": 1e-10},
        learning_rate=7e-4,
        max_grad_norm=0.5,
    )
    """How the weights move."""

    def __post_init__(self) -> None:
        """Check the fields, and those that contradict each other."""
        super().__post_init__()
        if self.update.part("log_prob").steps_per_rollout not in (None, 1):
            raise ValueError(
                "A2C's gradient holds for the policy that collected the rollout, so the policy takes one step: num_epochs and "
                "num_minibatches are 1. More steps are what PPO's clipping is for; the value may take more with "
                "update=PerHead(value=Ascent(num_epochs=…))."
            )

    def credit(self, batch: Batch, now: Outputs) -> Credit:
        """Return the credits in the table at the top of this file."""
        advantages = batch.advantages
        if self.standardize_advantages:
            advantages = estimators.standardize(advantages, batch.weights)
        credit = {"log_prob": advantages, "value": self.value_coefficient * (batch.returns - now.value)}
        if self.entropy_coefficient:
            credit["entropy"] = anneal(self.entropy_coefficient, self.entropy_schedule, batch.progress)
        return credit

    def search_space(self) -> search.Space:
        """Return the ranges of every agent, choices for the length of rollouts, and a range for the entropy."""
        lengths = {} if self.num_steps is None else {"num_steps": [5, 8, 16, 32, 64]}
        entropy = {"entropy_coefficient": search.Range(1e-5, 1e-1, log=True)}
        return {**super().search_space(), **lengths, **entropy}
