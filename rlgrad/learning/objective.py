"""The objective that updates climb: a batch, the policy that is to move, and the agent that says how much each step counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from rlgrad import gradients
from rlgrad.agent import Agent
from rlgrad.data import Metrics, Outputs
from rlgrad.gradients import Chosen, Entropy, LogProb
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.asking import Now, Placed
from rlgrad.learning.contract import check_credit
from rlgrad.policies.policy import Policy

_KL = "KL(π ‖ π′)"  # beside the agent's outputs, whose names are identifiers


@dataclass(frozen=True)
class PolicyObjective:
    """The `rlgrad.updates.Objective` of a policy: Σ_k Σ_t w_t c_k,t f_k(s_t, a_t), with the credits c as plain numbers.

    Attributes:
        agent: gives the credits.
        policy: gives the outputs f and their gradients.
        batch: M rows, a `Batch` or a `ReplayBatch`.
        outputs: names of the outputs f_k that are computed, credited or not.
        credited: names of those whose gradients count.
        variables: what may move, in order.
        measured: names of what the agent measures.
        target: the target weights; `None`: the agent has none.
        first: a linearization at the current weights, if one was already computed to build the batch. `None`: computed on
            demand. An objective of other rows, outputs or weights has none.
    """

    agent: Agent
    policy: Policy
    batch: Any
    outputs: tuple[str, ...]
    credited: tuple[str, ...]
    variables: Sequence[keras.Variable]
    measured: tuple[str, ...] = ()
    target: Placed | None = None
    first: gradients.Linearization | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Return the names of `metrics`: how the policy moves, and what the agent measures; none if only a value moves."""
        if "log_prob" in self.credited:
            return ("entropy", "approx_kl", *self.measured)
        return ("q_mean", *self.measured) if "q" in self.credited else ()

    def on(self, rows: Any, share: float) -> "PolicyObjective":
        """Return the same objective on some rows.

        Args:
            rows: int (m,), which.
            share: factor on the weights; M / m keeps the objective's expectation.
        """
        batch = self.batch
        part = tf.nest.map_structure(lambda x: tf.gather(x, rows), batch._replace(progress=batch.weights))
        return replace(self, batch=part._replace(progress=batch.progress, weights=part.weights * share), first=None)

    def moved(self) -> "PolicyObjective":
        """Return the same objective, to be read at weights that have moved since it was made."""
        return replace(self, first=None)

    def of(self, credited: tuple[str, ...], variables: Sequence[keras.Variable]) -> "PolicyObjective":
        """Return the same objective, of some outputs and their variables alone."""
        return replace(self, credited=credited, variables=variables, first=None)

    def linearize(self) -> gradients.Linearization:
        """Return the outputs at the current weights, with their gradients: one forward pass, one backward pass."""
        if self.first is not None:
            return self.first
        batch = self.batch
        return linearize_outputs(
            self.agent, self.policy, batch.observations, batch.actions, self.outputs, self.variables
        )

    def scores(self) -> gradients.Linearization:
        """Return the log-probabilities of the actions alone, whose gradients are the scores."""
        batch = self.batch
        return gradients.linearize(
            self.policy, batch.observations, output=LogProb(batch.actions), weights=list(self.variables)
        )

    def now(self, outputs: Mapping[str, tf.Tensor]) -> Now:
        """Return outputs at the current weights as what `Agent.credit` is given."""
        return Now(dict(outputs), self.policy, self.batch.seeds, self.target)

    def credited_outputs(self) -> tuple[gradients.Linearization, Outputs, dict[str, tf.Tensor]]:
        """Return the outputs at the current weights, as gradients and as numbers, and w c of each credited one."""
        at_theta = self.linearize()
        now = self.now(at_theta.outputs)
        credit = check_credit(self.agent, self.agent.credit(self.batch, now), at_theta.outputs)
        return at_theta, now, self.weighted(credit, at_theta.outputs)

    def weighted(self, credit: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return w c of each credited output, of its shape. Where w is 0 that is 0, whatever the credit of padding may be."""
        products = {}
        for name in (name for name in credit if name in self.credited):
            weights, c = self.batch.weights, credit[name]
            extra = outputs[name].shape.rank - weights.shape.rank
            if extra:
                weights = tf.reshape(weights, tf.concat([tf.shape(weights), [1] * extra], axis=0))
                c = tf.broadcast_to(c, tf.shape(outputs[name]))
            products[name] = tf.where(weights > 0.0, weights * c, 0.0)
        return products

    def gradient(self) -> tuple[dict[str, tf.Tensor], Metrics]:
        """Return Σ_k Σ_t w_t c_k,t ∇f_k by variable path, and the objective's metrics."""
        at_theta, now, credits = self.credited_outputs()
        return at_theta.gradient(credits), self.metrics(now)

    def row_gradients(self, credit: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
        """Return Σ_k c_k,t ∇f_k of each row by itself, (M, *shape) for each of `variables`, at the current weights.

        Args:
            credit: c, by output: float (M,).
        """
        batch, rows = self.batch, self.batch.weights.shape[0]
        specs = output_specs(self.agent, batch.actions, tuple(credit))
        by_output = gradients.linearize(self.policy, batch.observations, output=specs).per_sample()
        keys, results = {id(variable): key for variable, key in keys_of(self.policy)}, []
        for variable in self.variables:
            key, total = keys[id(variable)], tf.zeros((rows, *variable.shape), variable.dtype)
            for name, gradient in by_output.items():
                if key in gradient:
                    c = tf.reshape(credit[name], (-1, *[1] * len(variable.shape)))
                    total += tf.cast(c, gradient[key].dtype) * gradient[key]
            results.append(total)
        return results

    def metrics(self, now: Outputs) -> Metrics:
        """Return weighted means of what `metric_names` names, of these outputs."""
        if not self.metric_names:
            return {}
        if "log_prob" in self.credited:
            log_ratio = now.log_prob - self.batch.log_probs
            # r − 1 − log r: never negative, and its mean estimates the divergence with less noise than −log r does.
            rows = {"entropy": now.entropy, "approx_kl": tf.exp(log_ratio) - 1.0 - log_ratio}
        else:
            rows = {"q_mean": self._expected(now.q)}
        return self.means({**rows, **self.agent.measure(self.batch, now)})

    def _expected(self, q: tf.Tensor) -> tf.Tensor:
        """Return the expected return of the actions that were taken, of the batch's shape."""
        distribution: Any = self.policy.distribution
        if not distribution.width:
            return q
        if distribution.support is None:
            return distribution.expected(q)
        return tf.linalg.matvec(tf.nn.softmax(q), distribution.atoms)

    def means(self, rows: Mapping[str, Any]) -> Metrics:
        """Return means of numbers, or of one for each row, under the batch's weights; 0 if no row counts."""
        weights = tf.reshape(self.batch.weights, [-1])
        shape, count = self.batch.weights.shape, tf.reduce_sum(weights)
        numbers = [tf.broadcast_to(tf.cast(x, weights.dtype), shape) for x in rows.values()]
        counted = tf.where(weights > 0.0, tf.stack([tf.reshape(x, [-1]) for x in numbers]), 0.0)
        # One product for all of them is one kernel; sums one by one are three each.
        sums = tf.linalg.matvec(counted, weights)
        return dict(zip(rows, tf.unstack(tf.math.divide_no_nan(sums, count)), strict=True))

    def at(self, values: Sequence[tf.Tensor]) -> tuple[Outputs, tf.Tensor]:
        """Return the outputs at other weights, and the mean divergence KL(π ‖ π′) from the current weights to those, in nats.

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
        return self.now(there), kl


def linearize_outputs(
    agent: Agent,
    policy: Policy,
    observations: Any,
    actions: Any,
    names: Sequence[str],
    variables: Sequence[keras.Variable],
) -> gradients.Linearization:
    """Return some outputs of a policy at the current weights, with their gradients.

    Args:
        agent: has outputs of its own.
        policy: gives the outputs.
        observations: inputs of the policy, M rows.
        actions: M rows.
        names: of the outputs.
        variables: what may move, in order.
    """
    specs = output_specs(agent, actions, names)
    return gradients.linearize(policy, observations, output=specs, weights=list(variables))


def output_specs(agent: Agent, actions: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return what `output=` of `rlgrad.gradients` takes for each name of an output, the agent's own included."""
    known = {"log_prob": LogProb(actions), "entropy": Entropy(), "value": "value", **agent.outputs}
    if "q" in names:
        known["q"] = Chosen("policy", actions)
    return {name: known[name] for name in names}
