"""What an update climbs: a batch, the policy that is to move, and the agent that says how much each step counts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from rlgrad import gradients
from rlgrad.agent import Agent, Batch, Outputs
from rlgrad.policies.policy import Policy


@dataclass(frozen=True)
class Objective:
    """Σ_k Σ_t w_t c_k,t f_k(s_t, a_t), whose gradient is taken with the credits c as plain numbers.

    Attributes:
        agent: gives the credit.
        policy: gives the outputs f and their gradients.
        batch: M rows.
        outputs: names of the outputs f_k that are computed, credited or not.
        credited: names of those whose gradients count.
        variables: what may move, in order.
    """

    agent: Agent
    policy: Policy
    batch: Batch
    outputs: tuple[str, ...]
    credited: tuple[str, ...]
    variables: Sequence[keras.Variable]

    @property
    def metric_names(self) -> set[str]:
        """The names that `gradient` reports."""
        return {"entropy"}

    def on(self, rows: Any, share: float) -> "Objective":
        """The same objective on some rows.

        Args:
            rows: int (m,), which.
            share: what the weights are multiplied by: M / m keeps the objective's expectation.
        """
        batch = self.batch
        part = tf.nest.map_structure(lambda x: tf.gather(x, rows), batch._replace(progress=batch.weights))
        return replace(self, batch=part._replace(progress=batch.progress, weights=part.weights * share))

    def of(self, credited: tuple[str, ...], variables: Sequence[keras.Variable]) -> "Objective":
        """The same objective, of some outputs and their variables alone."""
        return replace(self, credited=credited, variables=variables)

    def linearize(self) -> gradients.Linearization:
        """The outputs at the current weights, and their gradients: one forward pass, one backward pass."""
        return self.policy.linearize(self.batch.observations, self.batch.actions, self.outputs, self.variables)

    def gradient(self) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """Σ_k Σ_t w_t c_k,t ∇f_k by variable path, and metrics of the outputs."""
        at_theta = self.linearize()
        credit = self.agent.credit(self.batch, Outputs(**at_theta.outputs))
        weights = self.batch.weights
        counted = {
            name: tf.where(weights > 0.0, weights * c, 0.0) for name, c in credit.items() if name in self.credited
        }
        gradient = at_theta.gradient(counted)
        mean_entropy = tf.reduce_sum(weights * at_theta.outputs["entropy"]) / tf.reduce_sum(weights)
        return gradient, {"entropy": mean_entropy}
