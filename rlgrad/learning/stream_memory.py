"""The memory of a stream from one step to the next, besides its traces."""

from typing import Any

import keras
import tensorflow as tf

from rlgrad import random
from rlgrad.data import Rollout
from rlgrad.distributions import Exploring
from rlgrad.policies.policy import Policy
from rlgrad.policies.recurrent import RecurrentPolicy
from rlgrad.streams import StreamAgent

_TO_DECIDE = 2**30 + 1  # a number that no other use of a batch's seed has


class StreamMemory:
    """Which environments begin an episode, and which actions are decided already.

    Observations are counted in a normalizer's statistics before they are acted on, the first of an episode after that.

    Args:
        agent: the agent.
        policy: acts.
        num_envs: N.

    Attributes:
        decided: int64 (N,), the action that each environment takes next, −1 where none is decided; `None` if the agent decides
            when it acts.
        variables: for checkpoints.

    Raises:
        ValueError: the policy has a memory, or the agent decides ahead and its actions are not Discrete.
    """

    def __init__(self, agent: StreamAgent, policy: Policy, num_envs: int) -> None:
        name = type(agent).__name__
        if isinstance(policy, RecurrentPolicy):
            raise ValueError(
                f"{name} learns from single steps, and a memory needs sequences: leave the memory out, or stack frames."
            )
        self._policy, self._exploration = policy, agent.exploration
        ones = tf.ones([num_envs])
        self._begins = keras.Variable(ones, dtype="float32", trainable=False, name="begins")
        self.decided: keras.Variable | None = None
        if agent.decides_ahead:
            if not hasattr(policy.distribution, "allowed"):
                raise ValueError(
                    f"{name} decides its actions ahead, and they are not Discrete: set decides_ahead to False."
                )
            nothing = tf.fill([num_envs], tf.constant(-1, tf.int64))
            self.decided = keras.Variable(nothing, dtype="int64", trainable=False, name="decided")
        self.variables = [self._begins, *([] if self.decided is None else [self.decided])]

    def seen(self, rollout: Rollout) -> tuple[Any, tf.Tensor]:
        """Return the observations of a step that were not seen before, and 1 for each that counts; note which slots begin anew.

        Args:
            rollout: one step of each environment.

        Returns:
            The observations of (2N, …): of the first steps of episodes, and all successors; and float (2N,).
        """
        policy = self._policy
        before, after = policy.inputs(rollout), tf.nest.map_structure(policy.rows, rollout.final_observations)
        both = tf.nest.map_structure(lambda x, y: tf.concat([x, y], axis=0), before, after)
        mask = policy.rows(tf.convert_to_tensor(rollout.mask))
        ends = tf.cast(policy.rows(rollout.terminations | rollout.truncations), mask.dtype)
        begins = tf.convert_to_tensor(self._begins)
        counted = tf.concat([begins * mask, mask], axis=0)
        self._begins.assign(tf.where(mask > 0.0, ends, begins))
        return both, counted

    def decide(self, batch: Any) -> Any:
        """Draw the actions that are taken next, at the weights before the update.

        Args:
            batch: of one step of each environment.

        Returns:
            The batch with its `next_actions`.
        """
        if self.decided is None:
            return batch
        parameters = self._policy(batch.next_observations)["policy"]
        exploring = Exploring(self._policy.distribution, self._exploration.share(batch.progress))
        actions = tf.cast(exploring.draw(parameters, random.fold_in(batch.seeds, _TO_DECIDE)), tf.int64)
        goes_on = (batch.weights > 0.0) & (batch.ends == 0.0)
        self.decided.assign(tf.where(goes_on, actions, tf.constant(-1, tf.int64)))
        return batch._replace(next_actions=actions)
