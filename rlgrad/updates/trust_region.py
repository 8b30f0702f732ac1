"""The trust region: the natural gradient, as far as the policy may go and the surrogate improves.

    x   = (F + λ I)⁻¹ g                              F exact, by conjugate gradients
    θ_i = θ + αⁱ √(2 δ / xᵀ (F + λ I) x) x            i = 0, 1, …: the first that satisfies both
    KL(π_θ ‖ π_θi) ≤ δ    and    Σ_t w_t c_t (r_t − 1) > 0,  r_t = π_θi(a_t|s_t) / π_θ(a_t|s_t)

The divergence is exact in the actions, a mean over the states of the rollout. If no θ_i satisfies both, the weights stay where
they are. Credits on other outputs f of the policy, such as its entropy, join the surrogate as Σ_t w_t c_t (f(θ_i) − f(θ)).

Source: Schulman et al. (2015), "Trust region policy optimization", appendix C.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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


class TrustRegion(Record):
    """One step of the policy that stays within `target_kl` and improves the surrogate. A value has its own: see `PerHead`."""

    target_kl: float = 0.01
    """δ: how far a step may move the policy, in nats."""
    target_kl_schedule: Schedule = "constant"
    """Linear falls to 0 at the end of training: full steps never stop, also where only the noise of the advantages is left."""
    damping: float = 0.1
    """λ, added to the diagonal of the Fisher matrix."""
    cg_iterations: int = 15
    """Products with the Fisher matrix that conjugate gradients may take."""
    backtrack_factor: float = 0.8
    """α: by how much a step that fails is shortened."""
    max_backtracks: int = 10
    """How often it is shortened, before the policy stays where it is."""

    def __post_init__(self) -> None:
        """Check the fields."""
        require(self.target_kl > 0, "target_kl", "above 0", self.target_kl)
        require(self.damping > 0, "damping", "above 0", self.damping)
        require(self.cg_iterations >= 1, "cg_iterations", "at least 1", self.cg_iterations)
        require(0 < self.backtrack_factor < 1, "backtrack_factor", "between 0 and 1", self.backtrack_factor)
        require(self.max_backtracks >= 0, "max_backtracks", "at least 0", self.max_backtracks)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what `apply` reports besides the objective's own."""
        return ("gradient_norm", "step_size", "cg_residual", "kl", "surrogate_improvement")

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
            ValueError: weights that the policy's distribution does not depend on are to move.
        """
        del num_envs
        return of_the_policy(type(self).__name__, variables, by_output)

    def apply(self, objective: "Objective", state: NoSlots, seed: Any) -> Metrics:
        """Move the weights once, on all rows, or leave them.

        Args:
            objective: what is climbed.
            state: from `build`.
            seed: not used.

        Returns:
            The objective's metrics, those that `metrics` names (0 for a step that was not taken), and `nonfinite_step`: 0
            where the direction was not finite, else −1.
        """
        del seed
        found = directions.exact(objective, self.damping, self.cg_iterations)
        limit = scheduled(self.target_kl, self.target_kl_schedule, objective.batch.progress)
        full, steps = found.length(limit), found.natural.values()

        def search(i: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            scale = full * tf.pow(self.backtrack_factor, tf.cast(i, full.dtype))
            there, kl = objective.at(stepped(state.variables, steps, scale))
            gain = _surrogate(found, there)
            good = (kl <= tf.cast(limit, kl.dtype)) & (gain > 0.0)  # both false where the numbers are not finite
            return i + 1, good, *(tf.where(good, x, tf.zeros_like(x)) for x in (scale, kl, gain))

        zero = tf.zeros_like(full)
        start = (tf.constant(0), tf.constant(False), zero, zero, zero)
        _, found_one, scale, kl, gain = tf.while_loop(
            lambda i, good, *_: ~good, search, start, maximum_iterations=self.max_backtracks + 1
        )
        assign_if(found_one, state.variables, stepped(state.variables, steps, scale))
        finite = all_finite([*found.gradient.values(), *steps])
        return objective.metrics(found.now) | {
            "gradient_norm": gradients.norm(found.gradient),
            "step_size": scale,
            "cg_residual": found.residual,
            "kl": kl,
            "surrogate_improvement": gain,
            "nonfinite_step": tf.where(finite, -1, 0),
        }


def _surrogate(found: directions.Direction, there: Any) -> tf.Tensor:
    """Σ_t w_t c_t (r_t − 1), and for other outputs Σ_t w_t c_t (f − f at the start)."""
    parts = []
    for name, credit in found.credits.items():
        change = getattr(there, name) - getattr(found.now, name)
        change = tf.exp(change) - 1.0 if name == "log_prob" else change
        parts.append(tf.reduce_sum(tf.where(credit == 0.0, 0.0, credit * change)))
    return tf.add_n(parts)
