"""The natural gradient: steepest ascent, with distance measured by how far the policy's distributions move.

    g = Σ_t w_t c_t ∇ log π(a_t|s_t)
    x = (F + λ I)⁻¹ g                    F: see `rlgrad.updates.directions`
    θ ← θ + η x                          η = √(2 δ / xᵀ (F + λ I) x), or a fixed learning rate

Source: Kakade (2001), "A natural policy gradient"; the step length is that of Rajeswaran et al. (2017), eq. 5.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from rlgrad import gradients
from rlgrad.core.checks import require, require_at_most
from rlgrad.data import Metrics
from rlgrad.hyperparameters import Schedule, anneal
from rlgrad.search import Range, Space
from rlgrad.updates import directions
from rlgrad.updates.base import NoSlots, Objective, Update
from rlgrad.updates.moves import all_finite, assign_if, policy_state, values_after


class NaturalGradient(Update):
    """One step along the policy's natural gradient. A value needs an update of its own: see `PerHead`."""

    fisher: Literal["exact", "empirical"] = "exact"
    """The Fisher matrix: `exact`, over all actions, or `empirical`, over the actions that were taken."""
    target_kl: float | None = 0.01
    """Step length: the divergence that its quadratic model allows, in nats. `None`: learning_rate decides."""
    target_kl_schedule: Schedule = "constant"
    """`linear` lowers target_kl to 0 at the end of training. A constant one takes full steps even when only noise is left."""
    learning_rate: float | None = None
    """Factor on the natural gradient, instead of target_kl."""
    learning_rate_schedule: Schedule = "constant"
    """`linear` lowers the learning rate to 0 at the end of training."""
    damping: float = 0.1
    """λ, added to the diagonal of the Fisher matrix."""
    cg_iterations: int = 15
    """The most products with the Fisher matrix in conjugate gradients."""

    def __post_init__(self) -> None:
        """Check the fields, and those that contradict each other."""
        require(self.damping > 0, "damping", "above 0", self.damping)
        require(self.cg_iterations >= 1, "cg_iterations", "at least 1", self.cg_iterations)
        require_at_most(self, cg_iterations=2**20)
        require(self.target_kl is None or self.target_kl > 0, "target_kl", "above 0", self.target_kl)
        require(self.learning_rate is None or self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        if (self.target_kl is None) == (self.learning_rate is None):
            raise ValueError(
                "Either target_kl or learning_rate says how long a step is: set one of them, and the other to None."
            )
        for length, schedule in (
            ("learning_rate", self.learning_rate_schedule),
            ("target_kl", self.target_kl_schedule),
        ):
            if getattr(self, length) is None and schedule != "constant":
                other = "target_kl" if length == "learning_rate" else "learning_rate"
                raise ValueError(f"{length}_schedule needs a {length}, and here {other} decides how long a step is.")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of what `apply` reports besides the objective's own metrics."""
        return ("gradient_norm", "step_size", "cg_residual", "kl")

    @property
    def steps_per_rollout(self) -> int:
        """Return 1."""
        return 1

    @property
    def moves_only_the_policy(self) -> bool:
        """Return True."""
        return True

    def search_space(self) -> Space:
        """Return a range for what says how long a step is."""
        if self.target_kl is not None:
            return {"target_kl": Range(1e-3, 1e-1, log=True)}
        return {"learning_rate": Range(1e-5, 1e-1, log=True)}

    def build(
        self, variables: Sequence[keras.Variable], num_envs: int, by_output: Mapping[str, Sequence[keras.Variable]]
    ) -> NoSlots:
        """Return a state that holds the variables alone.

        Args:
            variables: what is to move.
            num_envs: not used.
            by_output: for each credited output, the variables that it depends on.

        Raises:
            ValueError: a variable does not move the policy; or, with the empirical Fisher matrix, an output other than log π is
                credited.
        """
        del num_envs
        state = policy_state(type(self).__name__, variables, by_output)
        others = [name for name in by_output if name != "log_prob"]
        if self.fisher == "empirical" and others:
            raise ValueError(
                f"fisher='empirical' solves in the span of the scores ∇ log π, where the gradient of {others[0]} need not lie: "
                "credit log_prob alone, or use fisher='exact'."
            )
        return state

    def apply(self, objective: Objective, state: NoSlots, seed: Any) -> Metrics:
        """Move the weights once, on all rows.

        Args:
            objective: what is climbed.
            state: from `build`.
            seed: not used.

        Returns:
            The objective's metrics, those that `metrics` names, and `nonfinite_step`: 0 if the step was left out because it
            was not finite, else −1.
        """
        del seed
        solve = directions.exact if self.fisher == "exact" else directions.empirical
        direction = solve(objective, self.damping, self.cg_iterations)
        if self.target_kl is None:
            scale = anneal(self.learning_rate, self.learning_rate_schedule, objective.batch.progress)
        else:
            scale = direction.length(anneal(self.target_kl, self.target_kl_schedule, objective.batch.progress))
        values = values_after(state.variables, direction.natural.values(), scale)
        _, kl = objective.at(values)
        finite = all_finite([*direction.gradient.values(), *values])
        assign_if(finite, state.variables, values)
        return objective.metrics(direction.now) | {
            "gradient_norm": gradients.norm(direction.gradient),
            "step_size": tf.cast(scale, tf.float32),
            "cg_residual": direction.residual,
            "kl": kl,
            "nonfinite_step": tf.where(finite, -1, 0),
        }
