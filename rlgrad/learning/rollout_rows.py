"""From a rollout to the rows that an update learns from."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from rlgrad import gradients, random
from rlgrad.agent import Agent
from rlgrad.data import Batch, Rollout
from rlgrad.learning.asking import Now
from rlgrad.learning.contract import check_estimates
from rlgrad.learning.objective import Linearizer
from rlgrad.learning.reward_scale import RewardScale
from rlgrad.learning.spreading import UNKNOWN, linearize_rows, rows_of
from rlgrad.learning.target_weights import TargetWeights
from rlgrad.policies.policy import Policy
from rlgrad.policies.recurrent import RecurrentPolicy

_OF_ROWS = 2**30  # a number that no epoch has: the seeds of a batch's rows


@dataclass(frozen=True)
class RolloutRows:
    """Make batches of rollouts: values, estimates, weights and discounts of each row.

    Attributes:
        agent: estimates.
        policy: gives the values.
        uses_value: an output estimates the value.
        reward_scale: of the rewards, `None` if the agent asks for none.
        target: the target weights, `None` if there are none.
        spread: several learners, which share the rows; `None` if there are none.
    """

    agent: Agent
    policy: Policy
    uses_value: bool
    reward_scale: RewardScale | None = None
    target: TargetWeights | None = None
    spread: Linearizer | None = None

    def linearization(
        self, rollout: Rollout, names: Sequence[str], variables: Sequence[Any]
    ) -> gradients.Linearization:
        """Return the forward pass that an update of one step begins with. Its value output is v of the rollout's states.

        Args:
            rollout: the rollout.
            names: of the outputs.
            variables: what may move.
        """
        policy = self.policy
        actions = tf.nest.map_structure(policy.rows, rollout.actions)
        batch = UNKNOWN._replace(observations=policy.inputs(rollout), actions=actions)
        if self.spread is not None:
            shared: gradients.Linearization = self.spread.linearize(batch, names, variables)
            return shared
        return linearize_rows(self.agent, policy, rows_of(batch, names), names, variables)

    def of(self, rollout: Rollout, progress: tf.Tensor, seed: Any = (0, 0), value: tf.Tensor | None = None) -> Batch:
        """Return a rollout in rows, with its estimates.

        Args:
            rollout: T steps in N columns.
            progress: share of the run already done, 0 … 1.
            seed: int32 (2,), of the rows' random numbers.
            value: v of its states, if it is known already.
        """
        policy = self.policy
        values, next_values = policy.values(rollout, value) if self.uses_value else (None, None)
        rollout = rollout._replace(values=values, next_values=next_values)
        if self.reward_scale is not None:
            rollout = rollout._replace(rewards=self.reward_scale.scale(rollout.rewards))
        mask = tf.convert_to_tensor(rollout.mask)
        seeds = random.split(random.fold_in(tf.convert_to_tensor(seed, tf.int32), _OF_ROWS), math.prod(mask.shape))
        estimates = check_estimates(self.agent, self._estimate(rollout, tf.reshape(seeds, (*mask.shape, 2))), mask)
        whole = tf.cast(tf.shape(mask)[1], mask.dtype)
        by_step = Batch(
            observations=(),
            actions=rollout.actions,
            log_probs=rollout.log_probs,
            values=tf.zeros_like(mask) if values is None else values,
            weights=mask / (whole if self.agent.num_steps is None else tf.maximum(tf.reduce_sum(mask), 1.0)),
            progress=mask,
            rewards=tf.convert_to_tensor(rollout.rewards),
            discounts=self.agent.gamma * (1.0 - tf.cast(rollout.terminations, mask.dtype)),
            ends=tf.cast(rollout.terminations | rollout.truncations, mask.dtype),
            **estimates._asdict(),
        )
        batch: Batch = tf.nest.map_structure(policy.rows, by_step)
        batch = batch._replace(observations=policy.inputs(rollout), progress=progress)
        if isinstance(policy, RecurrentPolicy):
            return batch
        successors = tf.nest.map_structure(policy.rows, rollout.final_observations)
        return batch._replace(next_observations=successors, seeds=seeds)

    def _estimate(self, rollout: Rollout, seeds: tf.Tensor) -> Any:
        """Return the agent's estimates; its method may take the networks too, to ask them."""
        estimate: Any = self.agent.estimate
        if len(inspect.signature(estimate).parameters) == 1:
            return estimate(rollout)
        return estimate(rollout, Now({}, self.policy, seeds, None if self.target is None else self.target.placed))
