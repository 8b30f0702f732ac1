"""The natural gradient: steepest ascent where distance is measured by how far the policy's distributions move.

    g = Σ_t w_t c_t ∇ log π(a_t|s_t)
    x = (F + λ I)⁻¹ g                    F: see `rlgrad.updates.directions`
    θ ← θ + η x                          η = √(2 δ / xᵀ (F + λ I) x), or a fixed learning rate

Source: Kakade (2001), "A natural policy gradient"; the step length is that of Rajeswaran et al. (2017), eq. 5.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
import tensorflow as tf

from rlgrad import gradients
from rlgrad.core.checks import require
from rlgrad.data import Metrics
from rlgrad.hyperparameters import Record, Schedule, scheduled
from rlgrad.updates import directions
from rlgrad.updates.moves import NoSlots, all_finite, assign_if, of_the_policy, stepped

if TYPE_CHECKING:
    from rlgrad.learning.objective import Objective


class NaturalGradient(Record):
    """One step along the natural gradient of the policy. A value needs an update of its own: see `PerHead`."""

    fisher: Literal["exact", "empirical"] = "exact"
    """Fisher matrix over all actions, or over those that were taken."""
    target_kl: float | None = 0.01
    """Step length: the divergence in nats that its quadratic model allows; none: learning_rate decides."""
    target_kl_schedule: Schedule = "constant"
    """Linear falls to 0 at the end of training: full steps never stop, also where only the noise of the advantages is left."""
    learning_rate: float | None = None
    """Factor on the natural gradient, in place of target_kl."""
    learning_rate_schedule: Schedule = "constant"
    """Linear falls to 0 at the end of training."""
    damping: float = 0.1
    """λ, added to the diagonal of the Fisher matrix."""
    cg_iterations: int = 15
    """Products with the Fisher matrix that conjugate gradients may take."""

    def __post_init__(self) -> None:
        """Check the fields, and those that contradict each other."""
        require(self.damping > 0, "damping", "above 0", self.damping)
        require(self.cg_iterations >= 1, "cg_iterations", "at least 1", self.cg_iterations)
        require(self.target_kl is None or self.target_kl > 0, "target_kl", "above 0", self.target_kl)
        require(self.learning_rate is None or self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        if (self.target_kl is None) == (self.learning_rate is None):
            raise ValueError("The step is as long as target_kl or learning_rate says: set one, and the other to none.")
        for length, schedule in (
            ("learning_rate", self.learning_rate_schedule),
            ("target_kl", self.target_kl_schedule),
        ):
            if getattr(self, length) is None and schedule != "constant":
                other = "target_kl" if length == "learning_rate" else "learning_rate"
                raise ValueError(f"{length}_schedule needs a {length}, and here {other} decides how long a step is.")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what `apply` reports besides the objective's own."""
        return ("gradient_norm", "step_size", "cg_residual", "kl")

    def build(
        self, variables: Sequence[keras.Variable], num_envs: int, by_output: Mapping[str, Sequence[keras.Variable]]
    ) -> NoSlots:
        """Nothing but the variables.

        Args:
            variables: what is to move.
            num_envs: not used.
            by_output: for each credited output, the variables that it depends on.

        Returns:
            The state that `apply` takes.

        Raises:
            ValueError: weights that the policy's distribution does not depend on are to move; or, with the empirical Fisher
                matrix, another gradient than that of log π.
        """
        del num_envs
        state = of_the_policy(type(self).__name__, variables, by_output)
        others = [name for name in by_output if name != "log_prob"]
        if self.fisher == "empirical" and others:
            raise ValueError(
                f"fisher='empirical' solves among the scores ∇ log π, where the gradient of {others[0]} need not lie: credit "
                "log_prob alone, or use fisher='exact'."
            )
        return state

    def apply(self, objective: "Objective", state: NoSlots, seed: Any) -> Metrics:
        """Move the weights once, on all rows.

        Args:
            objective: what is climbed.
            state: from `build`.
            seed: not used.

        Returns:
            The objective's metrics, those that `metrics` names, and `nonfinite_step`: 0 where the step was not finite and
            therefore not taken, else −1.
        """
        del seed
        direction = directions.exact if self.fisher == "exact" else directions.empirical
        found = direction(objective, self.damping, self.cg_iterations)
        if self.target_kl is None:
            scale = scheduled(self.learning_rate, self.learning_rate_schedule, objective.batch.progress)
        else:
            scale = found.length(scheduled(self.target_kl, self.target_kl_schedule, objective.batch.progress))
        values = stepped(state.variables, found.natural.values(), scale)
        _, kl = objective.at(values)
        finite = all_finite([*found.gradient.values(), *values])
        assign_if(finite, state.variables, values)
        return objective.metrics(found.now) | {
            "gradient_norm": gradients.norm(found.gradient),
            "step_size": tf.cast(scale, tf.float32),
            "cg_residual": found.residual,
            "kl": kl,
            "nonfinite_step": tf.where(finite, -1, 0),
        }
