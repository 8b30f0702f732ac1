"""The trust region: the natural gradient, as far as the policy may go and the surrogate improves.

    x   = (F + λ I)⁻¹ g                              F exact, by conjugate gradients
    θ_i = θ + αⁱ √(2 δ / xᵀ (F + λ I) x) x            i = 0, 1, …: the first that satisfies both
    KL(π_θ ‖ π_θi) ≤ δ    and    Σ_t w_t c_t (r_t − 1) > 0,  r_t = π_θi(a_t|s_t) / π_θ(a_t|s_t)

The divergence is exact in the actions, and a mean over the states of the rollout. If no θ_i satisfies both, the weights do not
move. Credits on other outputs f of the policy, such as its entropy, join the surrogate as Σ_t w_t c_t (f(θ_i) − f(θ)).

Source: Schulman et al. (2015), "Trust region policy optimization", appendix C.
"""

from collections.abc import Mapping, Sequence
from typing import Any

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


class TrustRegion(Update):
    """One step of the policy, within `target_kl`, that improves the surrogate. A value needs its own update: see `PerHead`."""

    target_kl: float = 0.01
    """δ: the furthest that a step may move the policy, in nats."""
    target_kl_schedule: Schedule = "constant"
    """`linear` lowers target_kl to 0 at the end of training. A constant one takes full steps even when only noise is left."""
    damping: float = 0.1
    """λ, added to the diagonal of the Fisher matrix."""
    cg_iterations: int = 15
    """The most products with the Fisher matrix in conjugate gradients."""
    backtrack_factor: float = 0.8
    """α: factor on a step that fails either condition, before it is tried again."""
    max_backtracks: int = 10
    """How often a step may be shortened. If it still fails then, the policy does not move."""

    def __post_init__(self) -> None:
        """Check the fields."""
        require(self.target_kl > 0, "target_kl", "above 0", self.target_kl)
        require(self.damping > 0, "damping", "above 0", self.damping)
        require(self.cg_iterations >= 1, "cg_iterations", "at least 1", self.cg_iterations)
        require(0 < self.backtrack_factor < 1, "backtrack_factor", "between 0 and 1", self.backtrack_factor)
        require(self.max_backtracks >= 0, "max_backtracks", "at least 0", self.max_backtracks)
        require_at_most(self, cg_iterations=2**20, max_backtracks=2**20)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of what `apply` reports besides the objective's own metrics."""
        return ("gradient_norm", "step_size", "cg_residual", "kl", "surrogate_improvement")

    @property
    def steps_per_rollout(self) -> int:
        """Return 1."""
        return 1

    @property
    def moves_only_the_policy(self) -> bool:
        """Return True."""
        return True

    def search_space(self) -> Space:
        """Return a range for `target_kl`."""
        return {"target_kl": Range(1e-3, 1e-1, log=True)}

    def build(
        self, variables: Sequence[keras.Variable], num_envs: int, by_output: Mapping[str, Sequence[keras.Variable]]
    ) -> NoSlots:
        """Return a state that holds the variables alone.

        Args:
            variables: what is to move.
            num_envs: not used.
            by_output: for each credited output, the variables that it depends on.

        Raises:
            ValueError: a variable does not move the policy.
        """
        del num_envs
        return policy_state(type(self).__name__, variables, by_output)

    def apply(self, objective: Objective, state: NoSlots, seed: Any) -> Metrics:
        """Move the weights once, on all rows, or not at all.

        Args:
            objective: what is climbed.
            state: from `build`.
            seed: not used.

        Returns:
            The objective's metrics, those that `metrics` names (0 if no step was taken), and `nonfinite_step`: 0 if the
            direction was not finite, else −1.
        """
        del seed
        direction = directions.exact(objective, self.damping, self.cg_iterations)
        limit = anneal(self.target_kl, self.target_kl_schedule, objective.batch.progress)
        full, steps = direction.length(limit), direction.natural.values()

        def search(i: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            scale = full * tf.pow(self.backtrack_factor, tf.cast(i, full.dtype))
            there, kl = objective.at(values_after(state.variables, steps, scale))
            gain = _surrogate(direction, there)
            good = (kl <= tf.cast(limit, kl.dtype)) & (gain > 0.0)  # both false if the numbers are not finite
            return i + 1, good, *(tf.where(good, x, tf.zeros_like(x)) for x in (scale, kl, gain))

        zero = tf.zeros_like(full)
        start = (tf.constant(0), tf.constant(False), zero, zero, zero)
        _, improves, scale, kl, gain = tf.while_loop(
            lambda i, good, *_: ~good, search, start, maximum_iterations=self.max_backtracks + 1
        )
        assign_if(improves, state.variables, values_after(state.variables, steps, scale))
        finite = all_finite([*direction.gradient.values(), *steps])
        return objective.metrics(direction.now) | {
            "gradient_norm": gradients.norm(direction.gradient),
            "step_size": scale,
            "cg_residual": direction.residual,
            "kl": kl,
            "surrogate_improvement": gain,
            "nonfinite_step": tf.where(finite, -1, 0),
        }


def _surrogate(direction: directions.Direction, there: Any) -> tf.Tensor:
    """Return Σ_t w_t c_t (r_t − 1), and for other outputs Σ_t w_t c_t (f(θ_i) − f(θ))."""
    parts = []
    for name, credit in direction.credits.items():
        change = getattr(there, name) - getattr(direction.now, name)
        change = tf.exp(change) - 1.0 if name == "log_prob" else change
        parts.append(tf.reduce_sum(tf.where(credit == 0.0, 0.0, credit * change)))
    return tf.add_n(parts)
