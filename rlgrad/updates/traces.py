"""Eligibility traces: credit of an error to all steps that led to it, without storing them.

Each of N streams (environments) has its trace, which holds numbers of the shape of the weights. At every step, with the
eligibility e = Σ_k c_k ∇f_k, which is the credited gradient of that step, and its error δ:

    z ← γλ z + e
    θ ← θ + α δ z                       averaged or summed over the streams
    z ← 0                               where the episode ended, or the agent cuts the trace

The step size, by `step`:

    constant          α
    obgd              α / max(1, M),  M = α κ max(1, |δ|) ‖z‖₁: no step may overshoot its target
    adaptive_obgd     the same with z / √(v̂ + ε) in the place of z,  v ← β₂ v + (1 − β₂) (δ z)²
    adam              α, with z / (√v̂ + ε) in the place of z: Adam's second moment, without its first

v̂ = v / (1 − β₂ᵗ). ‖z‖₁ is over all weights that the update moves: `PerHead` bounds a policy and a value apart. Where M > 1, α
cancels, and the weights move by |δ| / (κ max(1, |δ|)) in all.

Source: Sutton & Barto (2018), chapters 12 and 13.5; ObGD, Elsayed, Vasan & Mahmood (2024), "Streaming deep reinforcement
learning finally works", algorithm 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from rlgrad.core.checks import require
from rlgrad.data import Metrics
from rlgrad.search import Range, Space
from rlgrad.updates.base import Objective, Update
from rlgrad.updates.trace_state import TraceState

_METHODS = ("td_error", "cuts")


class Traces(Update):
    """One step along δ z at every environment step; z is a trace of credited gradients.

    Example:
        >>> traces = Traces(step="constant", learning_rate=0.1).build(model.trainable_variables)
        >>> traces.apply_gradient(gradients.gradient(model, x), error=delta, decay=0.99 * 0.8, ends=False)
    """

    trace_decay: float = 0.8
    """λ, 0 to 1: the trace decays by γλ a step. 0: it is the gradient of the last step alone."""
    step: Literal["obgd", "adaptive_obgd", "constant", "adam"] = "obgd"
    """Rule of the step size. obgd: bounded, so that no step overshoots; adaptive_obgd: the same, each weight at its own scale;
    constant: learning_rate; adam: learning_rate over the root of the second moment."""
    learning_rate: float | None = None
    """α. `None`: 1, of which the bound leaves what is safe; the rules without a bound need a number."""
    kappa: float = 2.0
    """κ of the bound, above 1: larger for smaller steps."""
    beta_2: float = 0.999
    """Decay of the second moment, for adaptive_obgd and adam."""
    epsilon: float = 1e-8
    """ε of the second moment, for adaptive_obgd and adam."""
    error_clip: float | None = None
    """Cut δ to ± this before the step. `None`: never."""
    over_streams: Literal["mean", "sum"] = "mean"
    """The steps of several environments are averaged or added up."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        require(0.0 <= self.trace_decay <= 1.0, "trace_decay", "between 0 and 1", self.trace_decay)
        require(self.learning_rate is None or self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        require(self.kappa > 0.0, "kappa", "above 0", self.kappa)
        require(0.0 < self.beta_2 < 1.0, "beta_2", "between 0 and 1", self.beta_2)
        require(self.epsilon > 0.0, "epsilon", "above 0", self.epsilon)
        require(self.error_clip is None or self.error_clip > 0, "error_clip", "above 0", self.error_clip)
        if self.learning_rate is None and not self.is_bounded:
            raise ValueError(f"step={self.step} has no bound on a step, so it needs a learning_rate, such as 0.001.")

    @property
    def is_bounded(self) -> bool:
        """True if no step may overshoot."""
        return self.step in ("obgd", "adaptive_obgd")

    @property
    def is_adaptive(self) -> bool:
        """True if each weight moves at its own scale."""
        return self.step in ("adaptive_obgd", "adam")

    @property
    def steps_per_rollout(self) -> int:
        """Return 1: a rollout is one step of each environment."""
        return 1

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of what `apply` reports besides the objective's own metrics."""
        return ("td_error", "trace_norm", "effective_step", *(("bound_active",) if self.is_bounded else ()))

    def search_space(self) -> Space:
        """Return ranges for λ, and for κ or the step size."""
        size: Space = {"kappa": Range(1.0, 10.0, log=True)}
        if not self.is_bounded:
            size = {"learning_rate": Range(1e-5, 1e-1, log=True)}
        return {"trace_decay": [0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99], **size}

    def build(
        self,
        variables: Sequence[keras.Variable],
        num_envs: int = 1,
        by_output: Mapping[str, Sequence[keras.Variable]] | None = None,
    ) -> TraceState:
        """Return traces that are 0, one for each stream, and second moments if the rule has them.

        Args:
            variables: what is to move.
            num_envs: N, the number of streams.
            by_output: not used.
        """
        del by_output
        return TraceState(self, variables, num_envs)

    def apply(self, objective: Objective, state: TraceState, seed: Any) -> Metrics:
        """Move the weights by one step of each stream.

        Args:
            objective: of an agent that has `td_error` and `cuts`, such as a `StreamAgent`. Its batch has a row for each stream.
            state: from `build`.
            seed: not used.

        Returns:
            The objective's own metrics; means over the streams of |δ|, ‖z‖₁ and the step size; with a bound the share of
            streams whose step it shortened; and `nonfinite_step`: 0 if the step was not finite and was left out, else −1.
        """
        del seed
        batch, agent = objective.batch, objective.agent
        self._require_stream(agent, batch.weights.shape, state.num_envs)
        at_theta, now, credits = objective.credited_outputs()
        eligibility = {name: _without_weights(c, batch.weights) for name, c in credits.items()}
        if state.num_envs == 1:
            gradient = list(at_theta.gradient(eligibility).values())
        else:
            gradient = objective.row_gradients(eligibility)
        metrics = state.move(
            gradient,
            error=agent.td_error(batch, now),
            decay=agent.gamma * self.trace_decay,
            cuts=agent.cuts(batch, now) > 0.0,
            counts=batch.weights > 0.0,
        )
        return objective.metrics(now) | metrics

    def _require_stream(self, agent: Any, shape: tf.TensorShape, num_envs: int) -> None:
        """Raise a ValueError if the batch is not one step of each stream, or the agent has no errors."""
        name = type(agent).__name__
        if not all(hasattr(agent, method) for method in _METHODS):
            raise ValueError(
                f"Traces multiplies a trace by an error at every step, and {name} has no td_error(batch, now) and cuts(batch, "
                "now): make it a subclass of rlgrad.StreamAgent, or give it another update, such as Ascent."
            )
        if shape.rank != 1 or shape[0] != num_envs:
            raise ValueError(
                f"Traces learns from one step of each of {num_envs} environments at a time, and the batch has the shape "
                f"{tuple(shape)}: set num_steps to 1, and leave a memory out."
            )


def _without_weights(credit: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the credits of the rows that count, and 0 for the others: each stream has its own trace, whatever its weight."""
    inverse = tf.math.divide_no_nan(tf.ones_like(weights), weights)
    return credit * tf.reshape(inverse, (-1, *[1] * (credit.shape.rank - 1)))
