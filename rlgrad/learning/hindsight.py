"""Hindsight: drawn steps get a goal that their episode reached later, and the reward that they would have had for it.

Source: Andrychowicz et al. (2017), "Hindsight experience replay", the strategy "future".
"""

from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad import random
from rlgrad.data import ReplayBatch, Rollout
from rlgrad.environments.goals import ACHIEVED, DESIRED, GoalRewards
from rlgrad.replay.ring import Ring

_OF_GOALS = 2**29  # a number that no other question of a seed has


def relabelled(
    batch: ReplayBatch, rows: Any, ring: Ring, goals: GoalRewards, *, share: float, gamma: float, seed: Any
) -> ReplayBatch:
    """Return a batch in which a share of the steps has other goals. Part of a program that XLA does not compile.

    The environment's own functions say rewards and ends, so they run in Python. Where it does not say whether the task ends, it
    ends where it did.

    Args:
        batch: single steps.
        rows: where they are in the ring.
        ring: remembers their episodes.
        goals: of the environment.
        share: of the steps.
        gamma: discount per step.
        seed: int32 (2,), of the draw.
    """
    of_coins, of_rows = tf.unstack(random.split(random.fold_in(seed, _OF_GOALS), 2))
    chosen = random.uniform(of_coins, tuple(rows.shape)) < share
    reached = ring.observed(ring.later(rows, of_rows))[ACHIEVED]
    goal = _where(chosen, tf.cast(reached, batch.observations[DESIRED].dtype), batch.observations[DESIRED])
    achieved = batch.next_observations[ACHIEVED]
    rewards = tf.where(chosen, _asked(goals.rewards, achieved, goal, tf.float32), batch.rewards)
    discounts = batch.discounts
    if goals.knows_ends:
        over = _asked(goals.terminated, achieved, goal, tf.bool)
        discounts = tf.where(chosen, tf.where(over, 0.0, tf.constant(gamma, tf.float32)), discounts)
    return batch._replace(
        observations={**batch.observations, DESIRED: goal},
        next_observations={**batch.next_observations, DESIRED: goal},
        rewards=rewards,
        discounts=discounts,
    )


def check_paid(goals: GoalRewards, rollout: Rollout) -> None:
    """Compare the rewards of a rollout that was played with those that the environment says of its goals.

    Raises:
        ValueError: they are others.
    """
    counts = np.asarray(rollout.mask) > 0
    achieved = np.asarray(rollout.final_observations[ACHIEVED])[counts]
    desired = np.asarray(rollout.observations[DESIRED])[counts]
    goals.check(achieved, desired, np.asarray(rollout.rewards)[counts])


def _asked(function: Any, achieved: Any, desired: Any, dtype: Any) -> tf.Tensor:
    """Return what a function of NumPy arrays says of each row, (M,)."""
    found = tf.numpy_function(function, [achieved, desired], dtype)
    return tf.ensure_shape(found, achieved.shape[:1])


def _where(chosen: Any, x: Any, y: Any) -> Any:
    return tf.where(tf.reshape(chosen, (-1, *[1] * (x.shape.rank - 1))), x, y)
