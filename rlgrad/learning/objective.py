"""What an update climbs: a batch, the policy that is to move, and the agent that says how much each step counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from rlgrad import gradients
from rlgrad.agent import Agent
from rlgrad.data import Batch, Metrics, Outputs
from rlgrad.gradients import Entropy, LogProb
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.contract import checked_credit
from rlgrad.policies.policy import Policy

_KL = "KL(π ‖ π′)"  # beside the agent's outputs, whose names are identifiers


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
        measured: names of what the agent measures.
        first: what `linearize` gives before anything has moved, where somebody had to look at the outputs for the batch to be
            made; none: it is made when asked for. An objective of other rows, outputs or weights has none.
    """

    agent: Agent
    policy: Policy
    batch: Batch
    outputs: tuple[str, ...]
    credited: tuple[str, ...]
    variables: Sequence[keras.Variable]
    measured: tuple[str, ...] = ()
    first: gradients.Linearization | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of `metrics`: how the policy moves, and what the agent measures; nothing where only a value moves."""
        return ("entropy", "approx_kl", *self.measured) if "log_prob" in self.credited else ()

    def on(self, rows: Any, share: float) -> "Objective":
        """The same objective on some rows.

        Args:
            rows: int (m,), which.
            share: what the weights are multiplied by: M / m keeps the objective's expectation.
        """
        batch = self.batch
        part = tf.nest.map_structure(lambda x: tf.gather(x, rows), batch._replace(progress=batch.weights))
        return replace(self, batch=part._replace(progress=batch.progress, weights=part.weights * share), first=None)

    def moved(self) -> "Objective":
        """The same objective where weights may have moved since it was made."""
        return replace(self, first=None)

    def of(self, credited: tuple[str, ...], variables: Sequence[keras.Variable]) -> "Objective":
        """The same objective, of some outputs and their variables alone."""
        return replace(self, credited=credited, variables=variables, first=None)

    def linearize(self) -> gradients.Linearization:
        """The outputs at the current weights, and their gradients: one forward pass, one backward pass."""
        if self.first is not None:
            return self.first
        batch = self.batch
        return linearized(self.agent, self.policy, batch.observations, batch.actions, self.outputs, self.variables)

    def scores(self) -> gradients.Linearization:
        """The log-probabilities of the actions alone, whose gradients are the scores."""
        batch = self.batch
        return gradients.linearize(
            self.policy, batch.observations, output=LogProb(batch.actions), weights=list(self.variables)
        )

    def credited_outputs(self) -> tuple[gradients.Linearization, Outputs, dict[str, tf.Tensor]]:
        """The outputs at the current weights, as gradients and as numbers, and w c of the credited ones, (M,) by output."""
        at_theta = self.linearize()
        now = Outputs(**at_theta.outputs)
        weights = self.batch.weights
        given = checked_credit(self.agent, self.agent.credit(self.batch, now), weights)
        # Where w is 0 the product is, whatever the credit of padding may be.
        credits = {
            name: tf.where(weights > 0.0, weights * c, 0.0) for name, c in given.items() if name in self.credited
        }
        return at_theta, now, credits

    def gradient(self) -> tuple[dict[str, tf.Tensor], Metrics]:
        """Σ_k Σ_t w_t c_k,t ∇f_k by variable path, and metrics of the outputs."""
        at_theta, now, credits = self.credited_outputs()
        return at_theta.gradient(credits), self.metrics(now)

    def metrics(self, now: Outputs) -> Metrics:
        """Weighted means of what `metric_names` names."""
        if not self.metric_names:
            return {}
        log_ratio = now.log_prob - self.batch.log_probs
        # r − 1 − log r: never negative, and its mean estimates the divergence with less noise than −log r does.
        rows = {"entropy": now.entropy, "approx_kl": tf.exp(log_ratio) - 1.0 - log_ratio}
        return self.means({**rows, **self.agent.measure(self.batch, now)})

    def means(self, rows: Mapping[str, Any]) -> Metrics:
        """Means of numbers, or of one for each row, under the batch's weights; 0 if none of them counts."""
        weights = tf.reshape(self.batch.weights, [-1])
        shape, count = self.batch.weights.shape, tf.reduce_sum(weights)
        numbers = [tf.broadcast_to(tf.cast(x, weights.dtype), shape) for x in rows.values()]
        counted = tf.where(weights > 0.0, tf.stack([tf.reshape(x, [-1]) for x in numbers]), 0.0)
        # One product for all of them is one kernel; sums one by one are three each.
        sums = tf.linalg.matvec(counted, weights)
        return dict(zip(rows, tf.unstack(tf.math.divide_no_nan(sums, count)), strict=True))

    def at(self, values: Sequence[tf.Tensor]) -> tuple[Outputs, tf.Tensor]:
        """The outputs where `variables` have other values, and the mean divergence KL(π ‖ π′), in nats, from here to there.

        Args:
            values: one for each of `variables`, which keep their own.
        """
        here = self.policy(self.batch.observations)["policy"]
        specs = output_specs(self.agent, self.batch.actions, self.outputs)
        specs[_KL] = lambda heads: self.policy.distribution.kl_divergence(here, heads["policy"])
        mine = {id(variable): value for variable, value in zip(self.variables, values, strict=True)}
        placed = {key: mine[id(variable)] for variable, key in keys_of(self.policy) if id(variable) in mine}
        there = gradients.linearize(self.policy, self.batch.observations, output=specs).at(placed).outputs
        kl = self.means({_KL: there.pop(_KL)})[_KL]
        return Outputs(**there), kl


def linearized(
    agent: Agent,
    policy: Policy,
    observations: Any,
    actions: Any,
    names: Sequence[str],
    variables: Sequence[keras.Variable],
) -> gradients.Linearization:
    """The outputs of these names at the current weights, with their gradients.

    Args:
        agent: says what its own outputs are.
        policy: gives them.
        observations: what the policy is called with, M rows.
        actions: M rows.
        names: of the outputs.
        variables: what may move, in order.
    """
    specs = output_specs(agent, actions, names)
    return gradients.linearize(policy, observations, output=specs, weights=list(variables))


def output_specs(agent: Agent, actions: Any, names: Sequence[str]) -> dict[str, Any]:
    """What `output=` of `rlgrad.gradients` takes for each name: the policy's own outputs, and those of the agent."""
    known = {"log_prob": LogProb(actions), "entropy": Entropy(), "value": "value", **agent.outputs}
    return {name: known[name] for name in names}
