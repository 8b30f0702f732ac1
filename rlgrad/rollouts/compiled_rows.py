"""What a compiled rollout carries from step to step, and what it keeps of each: trees of tensors."""

from typing import Any, NamedTuple

import tensorflow as tf

from rlgrad.data import Rollout


class Slots(NamedTuple):
    """Where every slot stands between two steps: a tree of tensors (N, …).

    Attributes:
        states: of the environments.
        observations: what to act on next, as they are stored.
        returns: float32 (N,), what the running episode has earned so far.
        lengths: int32 (N,), how many steps it has taken.
        memories: what a policy with memory remembers.
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
        returns: float32, in the environment's units; meaningful where one ended.
        lengths: int32, likewise.
        terminated: bool.
    """

    ended: Any
    returns: Any
    lengths: Any
    terminated: Any


class Row(NamedTuple):
    """What happened in one step of all slots: a rollout without its leading axis, and the episodes that ended."""

    rollout: Rollout
    ends: Ends


def row_specs(policy: Any, columns: int) -> Row:
    """A tree of `tf.TensorSpec` like a row.

    Args:
        policy: has `observation_spec` and `action_spec`.
        columns: of a rollout.
    """

    def of(dtype: Any) -> tf.TensorSpec:
        return tf.TensorSpec((columns,), dtype)

    def batch(spec: tf.TensorSpec) -> tf.TensorSpec:
        return tf.TensorSpec((columns, *spec.shape[1:]), spec.dtype)

    seen = tf.nest.map_structure(batch, policy.observation_spec)
    return Row(
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
