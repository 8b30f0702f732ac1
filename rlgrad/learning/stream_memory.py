"""The memory of a stream from one step to the next, besides its traces."""

import math
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad import random
from rlgrad.data import Rollout
from rlgrad.distributions import Exploring
from rlgrad.mirrors.chains import places
from rlgrad.policies import actors
from rlgrad.policies.actors import Actor
from rlgrad.policies.observations import like
from rlgrad.policies.policy import Policy
from rlgrad.policies.recurrent import RecurrentPolicy
from rlgrad.streams import StreamAgent

_ROUNDING = 1e-4  # of one computation of parameters beside another
_TO_DECIDE = 2**30 + 1  # a number that no other use of a batch's seed has


class StreamMemory:
    """Which environments begin an episode, and which actions are decided already.

    Each observation is counted in a normalizer's statistics before it is standardized, once, and stays as it was then: v(s′) in
    δ sees statistics that include s′. Where nobody counts the first observation of an episode before it is acted on (`actor`,
    `count_first`), it counts when it is learned from.

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
        self._name, self._num_envs = name, num_envs
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
        self._parameters = policy(policy.zeros(num_envs))["policy"]
        size = sum(math.prod(x.shape) for x in tf.nest.flatten(self._parameters))
        nothing_said = tf.fill([size], tf.constant(math.nan))
        self._said = keras.Variable(nothing_said, dtype="float32", trainable=False, name="said")
        self.variables = [self._begins, self._said, *([] if self.decided is None else [self.decided])]

    @property
    def awaits_first(self) -> bool:
        """True if an environment begins an episode whose first observation was not counted yet."""
        return bool(self._begins.numpy().any())

    def require_single_steps(self, rollout: Rollout) -> None:
        """Raise a ValueError if a rollout is not one step of each environment."""
        if tuple(rollout.mask.shape) != (1, self._num_envs):
            raise ValueError(
                f"{self._name} learns from one step of each of {self._num_envs} environments at a time, and the rollout has "
                f"the shape {tuple(rollout.mask.shape)}: set num_steps to 1."
            )

    def standardized(self, rollout: Rollout) -> Rollout:
        """Count the observations of a step, each before it is standardized, and return the step with standardized ones.

        So s is what acting saw, and s′ what it will see.

        Args:
            rollout: one step of each environment.
        """
        policy = self._policy
        mask = policy.rows(tf.convert_to_tensor(rollout.mask))
        begins, ends = tf.convert_to_tensor(self._begins), policy.rows(rollout.terminations | rollout.truncations)
        uncounted = begins * mask
        tf.cond(tf.reduce_any(uncounted > 0.0), lambda: self._count(policy.inputs(rollout), uncounted), lambda: False)
        before = policy.standardize(policy.inputs(rollout))
        after = tf.nest.map_structure(policy.rows, rollout.final_observations)
        policy.normalize(after, mask)
        after = policy.standardize(after)
        self._begins.assign(tf.where(mask > 0.0, tf.cast(ends, mask.dtype), begins))
        before, after = (tf.nest.map_structure(lambda x: x[None], tree) for tree in (before, after))
        return rollout._replace(observations=before, final_observations=after)

    def count_first(self, observations: Any) -> None:
        """Count the first observations of episodes before they are acted on, as part of a program.

        Args:
            observations: (N, …), to act on next; of those that begin no episode nothing is counted.
        """
        begins = tf.convert_to_tensor(self._begins)
        tf.cond(tf.reduce_any(begins > 0.0), lambda: self._count(observations, begins), lambda: False)
        self._begins.assign(tf.zeros_like(begins))

    def say(self, observations: Any) -> tf.Tensor:
        """Return the distribution's parameters for the observations to act on next, as one vector, at the end of a program.

        Args:
            observations: (N, …). The first ones of episodes are counted before.
        """
        self.count_first(observations)
        parameters = tf.nest.flatten(self._policy(observations)["policy"])
        said = tf.concat([tf.reshape(tf.cast(x, tf.float32), [-1]) for x in parameters], axis=0)
        self._said.assign(said)
        return said

    def heard(self, said: np.ndarray[Any, Any]) -> Any:
        """Return the parameters in a vector of `say`, as a tree of NumPy arrays."""
        parts = [said[begin:end].reshape(shape) for begin, end, shape in self._places]
        if self._keys is not None:
            return dict(zip(self._keys, parts, strict=True))
        return parts[0] if self._is_one_array else tf.nest.pack_sequence_as(self._parameters, parts)

    def actor(self) -> Actor:
        """Return an actor for the observations to act on next, at weights that may have changed since they were learned.

        It counts the first observations of episodes. Where the program that learned last said the same, to rounding, it takes
        those numbers: so a run that is resumed acts on the same bits as one that went on.
        """

        def act(observations: Any) -> Any:
            if self.awaits_first:
                self._count_first_compiled(like(self._policy.observation_spec, observations))
            now, said = self._policy.actor()(observations), self.heard(self._said.numpy())
            pairs = zip(tf.nest.flatten(now), tf.nest.flatten(said), strict=True)
            same = all(np.allclose(x, y, rtol=_ROUNDING, atol=_ROUNDING) for x, y in pairs)
            return said if same else now

        return act

    @cached_property
    def _places(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """Where each array begins and ends in the vector, with its shape."""
        return places(tuple(tuple(x.shape) for x in tf.nest.flatten(self._parameters)))

    @cached_property
    def _keys(self) -> list[str] | None:
        """The names of the arrays, in TensorFlow's order, if they are a plain dict."""
        parameters = self._parameters
        flat = isinstance(parameters, dict) and not any(isinstance(x, dict | list | tuple) for x in parameters.values())
        return sorted(parameters) if flat else None

    @cached_property
    def _is_one_array(self) -> bool:
        return not isinstance(self._parameters, dict | list | tuple)

    @cached_property
    def _count_first_compiled(self) -> Any:
        def count(observations: Any) -> tf.Tensor:
            self.count_first(observations)
            return tf.zeros(())

        return actors.compiled(count, self._policy.observation_spec, xla=False)

    def _count(self, observations: Any, counts: tf.Tensor) -> bool:
        self._policy.normalize(observations, counts)
        return True

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
