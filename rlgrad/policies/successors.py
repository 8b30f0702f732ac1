"""Values of the true successors of a rollout's states. Most are observations of the next row and need no evaluation."""

from typing import Any

import tensorflow as tf

from rlgrad.data import Rollout
from rlgrad.policies.actors import convolves

_FEW_ROWS = 8  # of a rollout: below, evaluating all successors costs little
_FEW_ROWS_OF_PICTURES = 3  # below, the other way evaluates no fewer


def successor_values(policy: Any, rollout: Rollout, value: tf.Tensor) -> tf.Tensor:
    """Return v(s') of the true successors, float (T, N).

    Args:
        policy: whose `value` estimates them.
        rollout: T steps in N columns.
        value: v(s) of its states, (T, N).
    """
    rows = value.shape[0]
    if rows is None or rows < (_FEW_ROWS_OF_PICTURES if convolves(policy) else _FEW_ROWS):
        return policy.value(rollout.final_observations)
    # The network evaluates at most two more observations of each column: the last one, and the one of a cut.
    cut = tf.convert_to_tensor(rollout.truncations)[:-1] & ~tf.convert_to_tensor(rollout.terminations)[:-1]
    most = tf.reduce_max(tf.reduce_sum(tf.cast(cut, tf.int32), axis=0))
    ways = [
        lambda: _shifted_values(policy, rollout, value),
        lambda: _shifted_values(policy, rollout, value, cut),
        lambda: policy.value(rollout.final_observations),
    ]
    if convolves(policy):
        return tf.switch_case(tf.minimum(most, 2), ways)
    return tf.cond(most > 1, ways[2], ways[1])  # without pictures, evaluating costs less than compiling ways[0]


def _shifted_values(policy: Any, rollout: Rollout, value: tf.Tensor, cut: tf.Tensor | None = None) -> tf.Tensor:
    """Return the values of the next row, (T, N), but for the last row and at most one step of each column that is cut.

    Args:
        policy: estimates the rest.
        rollout: T steps in N columns.
        value: of its states, (T, N).
        cut: bool (T − 1, N), the steps that are cut; `None`: no step is.
    """
    at_end = tf.nest.map_structure(lambda x: tf.convert_to_tensor(x)[-1], rollout.final_observations)
    if cut is None:
        return tf.concat([value[1:], policy.value(at_end)[None]], axis=0)
    row = tf.argmax(cut, axis=0, output_type=tf.int32)
    places = tf.stack([row, tf.range(tf.shape(row)[0])], axis=-1)
    successors = tf.nest.map_structure(
        lambda x, last: tf.stack([tf.gather_nd(x, places), last]), rollout.final_observations, at_end
    )
    at_cut, at_end = tf.unstack(policy.value(successors), num=2)
    return tf.concat([tf.where(cut, at_cut, value[1:]), at_end[None]], axis=0)
