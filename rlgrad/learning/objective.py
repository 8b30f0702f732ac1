"""The objective that updates climb: a batch, the policy that is to move, and the agent that says how much each step counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import keras
import tensorflow as tf

from rlgrad import gradients, random
from rlgrad.agent import Agent
from rlgrad.core.tensorflow_internals import computed_once
from rlgrad.data import Metrics, Outputs
from rlgrad.distributions import Deterministic
from rlgrad.gradients import Action, ActionLogProb, Chosen, Each, Entropy, LogProb
from rlgrad.gradients.questions.selection import keys_of
from rlgrad.learning.asking import Now, Placed, training_mode
from rlgrad.learning.contract import check_credit, outputs_of
from rlgrad.policies.critics import ACTIONS, BESIDE_ACTIONS, BESIDE_OBSERVATIONS, OBSERVATIONS, Q_BESIDE
from rlgrad.policies.policy import Policy

_OF_ACTION = 0  # a number that no call of `now.noise` has: the seeds of a(s; ε)
_OF_BESIDE = -2  # likewise: those of samples at the rows beside the batch's
_KL, _BESIDE = "KL(π ‖ π′)", "q beside"  # beside the agent's outputs, whose names are identifiers


class Linearizer(Protocol):
    """Several learners, which share the rows of a step."""

    def linearize(self, batch: Any, names: Sequence[str], variables: Sequence[Any]) -> Any:
        """Return what has the outputs of a batch, by name, as `outputs`, and their gradients as `gradient(credit)`."""


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
        spread: several learners, which share the rows. `None`: this one computes all of them.
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
    spread: Linearizer | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Return the names of `metrics`: of the policy, of critics, and of what the agent measures; none for a mere value."""
        names: tuple[str, ...] = ()
        if "log_prob" in self.credited:
            names = ("entropy", "approx_kl") if self.agent.replay is None else ("entropy",)
        elif "logits" in self.credited or ("action_log_prob" in self.outputs and "action" in self.credited):
            names = ("entropy",)
        if "q" in self.credited:
            names += ("q_mean",)
        return (*names, *self.measured) if names else ()

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
        if self.spread is not None:
            shared: gradients.Linearization = self.spread.linearize(self.batch, self.outputs, self.variables)
            return shared
        model, inputs = question(self.policy, self.batch, self.outputs)
        specs, beside = output_specs(self.agent, self.policy, self.batch, self.outputs), self._beside()
        if beside is not None:
            inputs |= {BESIDE_OBSERVATIONS: beside.observations, BESIDE_ACTIONS: beside.action}
            specs[_BESIDE] = Each(Q_BESIDE)
        mode = training_mode(self.batch.seeds, _OF_ACTION) if self._trains_critics else {}
        return gradients.linearize(model, inputs, output=specs, weights=list(self.variables), **mode)

    def statistics(self) -> list[tuple[Any, tf.Tensor]]:
        """Return variables that are not trained and that a pass in training mode moves, each with the value it gets."""
        found = self.linearize().statistics if self._trains_critics else {}
        return [(variable, found[key]) for variable, key in keys_of(self.policy) if key in found]

    def scores(self) -> gradients.Linearization:
        """Return the log-probabilities of the actions alone, whose gradients are the scores."""
        batch = self.batch
        return gradients.linearize(
            self.policy, batch.observations, output=LogProb(batch.actions), weights=list(self.variables)
        )

    def now(self, outputs: Mapping[str, tf.Tensor]) -> Now:
        """Return outputs at the current weights as what `Agent.credit` is given."""
        outputs = dict(outputs)
        q = outputs.pop(_BESIDE, None)
        now = self._asked(outputs, self.batch.seeds)
        if q is not None:
            now.beside = self._beside().with_q(q)
        return now

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
        if self.agent.replay is None:  # runs of before go on to the last bit
            return products
        return {name: computed_once(product) for name, product in products.items()}

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
        model, inputs = question(self.policy, batch, tuple(credit))
        specs = output_specs(self.agent, self.policy, batch, tuple(credit))
        by_output = gradients.linearize(model, inputs, output=specs).per_sample()
        keys, results = {id(variable): key for variable, key in keys_of(self.policy)}, []
        for variable in self.variables:
            key, total = keys[id(variable)], tf.zeros((rows, *variable.shape), variable.dtype)
            for name, gradient in by_output.items():
                if key in gradient:
                    c = tf.reshape(credit[name], (-1, *[1] * len(variable.shape)))
                    total += tf.cast(c, gradient[key].dtype) * gradient[key]
            results.append(total)
        return results

    @property
    def _trains_critics(self) -> bool:
        return self.agent.training_mode and "q" in self.outputs and bool(self.policy.critics)

    def _asked(self, outputs: dict[str, Any], seeds: Any) -> Now:
        return Now(outputs, self.policy, seeds, self.target, self.agent.training_mode)

    def _beside(self) -> Any:
        """Return the agent's rows beside the batch's, the same at each call; `None` if it has none, or no critics."""
        if "q" not in self.outputs or not self.policy.critics:
            return None
        return self.agent.beside(self.batch, self._asked({}, random.fold_in(self.batch.seeds, _OF_BESIDE)))

    def metrics(self, now: Outputs) -> Metrics:
        """Return weighted means of what `metric_names` names, of these outputs."""
        names, rows = self.metric_names, {}
        if "entropy" in names:
            rows["entropy"] = now.entropy if {"log_prob", "logits"} & {*self.credited} else -now.action_log_prob
        if "approx_kl" in names:
            log_ratio = now.log_prob - self.batch.log_probs
            # r − 1 − log r: never negative, and its mean estimates the divergence with less noise than −log r does.
            rows["approx_kl"] = tf.exp(log_ratio) - 1.0 - log_ratio
        if "q_mean" in names:
            rows["q_mean"] = expected_return(self.policy, now.q)
        return self.means({**rows, **self.agent.measure(self.batch, now)}) if names else {}

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
        specs = output_specs(self.agent, self.policy, self.batch, self.outputs)
        specs[_KL] = lambda heads: self.policy.distribution.kl_divergence(here, heads["policy"])
        mine = {id(variable): value for variable, value in zip(self.variables, values, strict=True)}
        placed = {key: mine[id(variable)] for variable, key in keys_of(self.policy) if id(variable) in mine}
        model, inputs = question(self.policy, self.batch, self.outputs)
        there = gradients.linearize(model, inputs, output=specs).at(placed).outputs
        kl = self.means({_KL: there.pop(_KL)})[_KL]
        return self.now(there), kl


def expected_return(policy: Policy, q: tf.Tensor) -> tf.Tensor:
    """Return the expected return, float (M,), of what the networks say of actions that were taken; of critics, their mean."""
    distribution: Any = policy.distribution
    if policy.critics:
        return tf.reduce_mean(tf.reshape(q, (tf.shape(q)[0], -1)), axis=-1)
    if not distribution.width:
        return q
    if distribution.support is None:
        return distribution.expected(q)
    return tf.linalg.matvec(tf.nn.softmax(q), distribution.atoms)


def question(policy: Policy, batch: Any, names: Sequence[str]) -> tuple[Any, Any]:
    """Return the model that gives some outputs, and its inputs: the policy alone, or with its critics for `q` of actions."""
    if "q" not in names or not policy.critics:
        return policy, batch.observations
    return policy.with_critics, {OBSERVATIONS: batch.observations, ACTIONS: batch.actions}


def output_specs(agent: Agent, policy: Policy, batch: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return what `output=` of `rlgrad.gradients` takes for each name of an output, the agent's own included."""
    known: dict[str, Any] = {"log_prob": LogProb(batch.actions), "entropy": Entropy(), "value": "value"}
    known |= {name: name for name in agent.scalars} | {"logits": Each("policy")} | dict(outputs_of(agent, batch))
    if "q" in names:
        known["q"] = Each("q") if policy.critics else Chosen("policy", batch.actions)
    if {"action", "action_log_prob"} & {*names}:
        noise = None
        if not isinstance(policy.distribution, Deterministic):
            noise = random.normal(random.fold_in(batch.seeds, _OF_ACTION), tuple(policy.action_spec.shape[1:]))
        known |= {"action": Action(noise), "action_log_prob": ActionLogProb(noise)}
    return {name: known[name] for name in names}
