"""The per-sample gradients behind an agent's updates, measured: how much each step, or episode, would move by itself."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad import diagnostics, random
from rlgrad.agent import Agent
from rlgrad.core.nested import map_leaves
from rlgrad.core.tensorflow_internals import trace
from rlgrad.data import Rollout
from rlgrad.diagnostics import measuring
from rlgrad.diagnostics.diagnosis import HEADS, Diagnosis
from rlgrad.gradients import Weighted
from rlgrad.learning.objective import PolicyObjective, output_specs, question
from rlgrad.learning.rehearsal import Rehearsal
from rlgrad.policies.critics import have_batch_statistics
from rlgrad.policies.policy import Policy
from rlgrad.policies.recurrent import RecurrentPolicy

_SEED = np.array([0, 0x0D1A6], np.int32)  # of the rows that are looked at; a run's own streams are left alone


class Microscope:
    """Measures signal and noise of an agent's credited gradients. No weight moves.

    Args:
        agent: says how much each gradient counts.
        policy: at the weights of the moment.
        credited: names of the outputs that the agent trains.
        rehearsal: holds the steps that an agent with a replay learns from; `None`: it has none.
    """

    def __init__(
        self,
        agent: Agent,
        policy: Policy,
        credited: tuple[str, ...],
        rehearsal: Rehearsal | None,
    ) -> None:
        self._agent, self._policy, self._credited, self._rehearsal = agent, policy, credited, rehearsal
        self._programs: dict[int, Any] = {}  # by the rows of a rollout of whole episodes; 0 for all others

    @property
    def has_samples(self) -> bool:
        """False as long as a replay holds fewer steps than a batch."""
        return self._rehearsal is None or self._rehearsal.num_steps >= self._rehearsal.batch_size

    def require_gradients_of_steps(self, *, stream: bool) -> None:
        """Raise a NotImplementedError if the steps that an agent learns from have no gradients of their own.

        Args:
            stream: the agent's credits enter traces.
        """
        name = type(self._agent).__name__
        if isinstance(self._policy, RecurrentPolicy):
            raise NotImplementedError(
                "A policy with memory has gradients of sequences, not of steps, so they cannot be measured step by step."
            )
        if stream:
            raise NotImplementedError(
                f"A diagnosis is of credits that are the whole factor of a gradient, and those of {name} say what enters a "
                "trace."
            )
        if self._agent.training_mode and have_batch_statistics(self._policy.critics):
            raise NotImplementedError(
                f"The critics of {name} are normalized over the batch, so a step has no gradient of its own: there is nothing "
                "to measure step by step."
            )
        if not {name for names in HEADS.values() for name in names} & {*self._credited}:
            raise NotImplementedError(
                f"A diagnosis is of policies, values and action values, and {name} credits {', '.join(self._credited)}."
            )

    def of_rollout(
        self,
        rollout: Rollout,
        progress: Any,
        timesteps: int,
        batch_of: Callable[[Rollout, Any], Any],
        objective_of: Callable[[Any], PolicyObjective],
    ) -> Diagnosis:
        """Diagnose a rollout of the policy at its current weights.

        Args:
            rollout: of the policy.
            progress: share of the run already done.
            timesteps: environment steps trained so far.
            batch_of: returns the batch of a rollout at some progress.
            objective_of: returns the objective of a batch.
        """
        by_episode = self._agent.num_steps is None
        columns = rollout.mask.shape[1] if by_episode else None

        def measure(rollout: Rollout, progress: Any) -> dict[str, Any]:
            batch = batch_of(rollout, progress)
            objective = objective_of(batch)
            credit = self._agent.credit(batch, objective.now(objective.linearize().outputs))
            measured = measuring.measure(self._policy, batch, credit, columns)
            return measured | self._heads(objective, {"q": HEADS["q"]})

        arguments = map_leaves(tf.constant, rollout), tf.constant(progress, tf.float32)
        results = self._run(len(rollout.mask) if by_episode else 0, measure, arguments)
        return measuring.diagnosis_of(results, rollout, by_episode, timesteps)

    def of_replay(self, progress: Any, timesteps: int, objective_of: Callable[[Any], PolicyObjective]) -> Diagnosis:
        """Diagnose a batch that is drawn from the replay, the same one for the same content and number of steps.

        Args:
            progress: share of the run already done.
            timesteps: environment steps trained so far.
            objective_of: returns the objective of a batch.

        Raises:
            ValueError: the replay holds fewer steps than a batch.
        """
        rehearsal = self._rehearsal
        assert rehearsal is not None
        if not self.has_samples:
            raise ValueError(
                f"The replay holds {rehearsal.num_steps} steps, fewer than a batch of {rehearsal.batch_size}: train further "
                "first."
            )

        def measure(progress: Any, seed: Any) -> dict[str, Any]:
            batch, _ = rehearsal.draw(seed, progress)
            return self._heads(objective_of(batch), HEADS)

        seed = random.fold_in(_SEED, timesteps % 2**31)
        arguments = tf.constant(progress, tf.float32), tf.constant(seed)
        return measuring.diagnosis_of_steps(self._run(0, measure, arguments), rehearsal.batch_size, timesteps)

    def _run(self, key: int, measure: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
        if key not in self._programs:
            self._programs[key] = trace(measure, *arguments)
        found: dict[str, Any] = self._programs[key](*arguments)
        return found

    def _heads(self, objective: PolicyObjective, heads: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
        """Return the moments of each head's gradient w Σ_k c_k ∇f_k, and of the policy's the inner products with its mean."""
        batch, results = objective.batch, {}
        if not {name for names in heads.values() for name in names} & {*objective.credited}:
            return {}
        _, _, credits = objective.credited_outputs()
        for head, names in heads.items():
            chosen = [name for name in names if name in credits]
            if not chosen:
                continue
            model, inputs = question(self._policy, batch, chosen)
            specs = output_specs(self._agent, self._policy, batch, chosen)
            output = sum(Weighted(specs[name], credits[name]) for name in chosen)
            samples = diagnostics.Samples(model, inputs, output=output, mask=batch.weights > 0.0)
            results[head] = samples.moments()
            if head == "policy":
                results["inner"] = samples.inner_products(results[head].mean)
        return results
