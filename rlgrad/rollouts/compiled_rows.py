"""The state that a compiled rollout carries from step to step, and the rows that it records: trees of tensors."""

from typing import Any, NamedTuple

import tensorflow as tf

from rlgrad.data import Rollout


class SlotStates(NamedTuple):
    """The state of every slot between two steps: trees of tensors (N, …).

    Attributes:
        states: of the environments.
        observations: to act on next, as they are stored.
        returns: float32 (N,), of the running episode so far.
        lengths: int32 (N,), steps of the running episode so far.
        memories: states of a policy with memory.
    """

    states: Any
    observations: Any
    returns: Any
    lengths: Any
    memories: Any


class Ends(NamedTuple):
    """The episodes that ended at each step of a rollout, (T, N).

    Attributes:
        ended: bool.
        returns: float32, in the environment's units; valid where `ended`.
        lengths: int32, likewise.
        terminated: bool.
    """

    ended: Any
    returns: Any
    lengths: Any
    terminated: Any


class RolloutRow(NamedTuple):
    """One step of all slots: a rollout without its leading axis, and the episodes that ended."""

    rollout: Rollout
    ends: Ends


def row_specs(policy: Any, columns: int) -> RolloutRow:
    """Return a tree of `tf.TensorSpec` like a row.

    Args:
        policy: has `observation_spec` and `action_spec`.
        columns: of a rollout.
    """

    def of(dtype: Any) -> tf.TensorSpec:
        return tf.TensorSpec((columns,), dtype)

    def batch(spec: tf.TensorSpec) -> tf.TensorSpec:
        return tf.TensorSpec((columns, *spec.shape[1:]), spec.dtype)

    seen = tf.nest.map_structure(batch, policy.observation_spec)
    return RolloutRow(
        Rollout(
            observations=seen,
            actions=batch(policy.action_spec),
            rewards=of(tf.float32),
            terminations=of(tf.bool),
            truncations=of(tf.bool),
            final_observations=seen,
            log_probs=of(tf.float32),
            mask=of(tf.float32),
        ),
        Ends(of(tf.bool), of(tf.float32), of(tf.int32), of(tf.bool)),
    )
