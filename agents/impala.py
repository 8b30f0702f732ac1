"""IMPALA: an actor-critic whose rollouts may be of somewhat older weights, corrected by V-trace.

Workers play while the learner learns, so a rollout is of a policy μ that the learner has since left behind (its lag). With the
ratios ρ_t = min(ρ̄, π(a_t|s_t)/μ(a_t|s_t)) and c_t = λ min(c̄, π(a_t|s_t)/μ(a_t|s_t)), π being the current policy:

    δ_t = ρ_t (r_t + γ v(s_t+1) − v(s_t))              v(s_t+1) = 0 where the task ended, not where time ran out
    V_t = v(s_t) + δ_t + γ c_t (V_t+1 − v(s_t+1))      up to the end of the episode or of the rollout
    Â_t = ρ_t (r_t + γ V_t+1 − v(s_t))

As credits, positive raising the output:

    on ∇ log π(a_t|s_t)    Â_t, standardized over the rollout if asked
    on ∇ H(π(·|s_t))       entropy_coefficient
    on ∇ v(s_t)            value_coefficient (V_t − v(s_t))

Without lag all ratios are 1, and this is A2C with n-step returns.

Where it fails: with a long lag ρ̄ cuts most ratios, V_t is then the value of a policy between μ and π, and learning is slow.

Source: Espeholt et al. (2018), "IMPALA: Scalable distributed deep-RL with importance weighted actor-learner architectures".
"""

from typing import Any

import tensorflow as tf

from rlgrad import Agent, Batch, Credit, Estimates, Outputs, estimators, search
from rlgrad.core.checks import require
from rlgrad.data import Rollout
from rlgrad.hyperparameters import Schedule, anneal
from rlgrad.updates import Ascent, Update


class IMPALA(Agent):
    """Importance-weighted actor-learner."""

    tolerates_lag = True
    gae_lambda: float = 1.0
    """λ: shortens the traces c."""
    num_steps: int | None = 20
    """Steps per environment per rollout. `None`: whole episodes."""
    rho_limit: float = 1.0
    """ρ̄: the largest ratio that weighs a step. It decides which policy's value is learned."""
    trace_limit: float = 1.0
    """c̄: the largest ratio that a trace passes on. It decides how fast, and with how much noise."""
    standardize_advantages: bool = False
    """Give the advantages of each rollout mean 0 and deviation 1."""
    entropy_coefficient: float = 0.01
    """Credit on the entropy. A positive one keeps the policy exploring."""
    entropy_schedule: Schedule = "constant"
    """`linear` lowers the entropy coefficient to 0 at the end of training."""
    value_coefficient: float = 1.0
    """Credit on the value's error."""
    update: Update = Ascent(
        optimizer="rmsprop",
        optimizer_options={"rho": 0.99, "epsilon": 1e-10},  # the paper's decay; ε as in A2C
        learning_rate=7e-4,
        max_grad_norm=0.5,
    )
    """How the weights move."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        super().__post_init__()
        require(self.trace_limit > 0.0, "trace_limit", "above 0", self.trace_limit)
        require(self.rho_limit >= self.trace_limit, "rho_limit", "at least trace_limit", self.rho_limit)

    def estimate(self, rollout: Rollout, now: Any) -> Estimates:  # type: ignore[override]  # it asks the networks, too
        """Return V, Â and δ of the table at the top of this file."""
        current = now.at(rollout.observations, rollout.actions).log_prob
        return Estimates(
            *estimators.v_trace(
                *(rollout.rewards, rollout.values, rollout.next_values, rollout.terminations),
                boundaries=rollout.terminations | rollout.truncations,
                ratios=tf.exp(current - rollout.log_probs),
                gamma=self.gamma,
                gae_lambda=self.gae_lambda,
                rho_limit=self.rho_limit,
                trace_limit=self.trace_limit,
            )
        )

    def credit(self, batch: Batch, now: Outputs) -> Credit:
        """Return the credits in the table at the top of this file."""
        advantages = batch.advantages
        if self.standardize_advantages:
            advantages = estimators.standardize(advantages, batch.weights)
        return {
            "log_prob": advantages,
            "entropy": anneal(self.entropy_coefficient, self.entropy_schedule, batch.progress),
            "value": self.value_coefficient * (batch.returns - now.value),
        }

    def search_space(self) -> search.Space:
        """Return the ranges of every agent, choices for the length of rollouts, and a range for the entropy."""
        lengths = {} if self.num_steps is None else {"num_steps": [10, 20, 40]}
        return {**super().search_space(), **lengths, "entropy_coefficient": search.Range(1e-5, 1e-1, log=True)}
