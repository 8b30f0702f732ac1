"""Recorded episodes as rollouts of one slot, which a replay is filled with."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.data import Rollout
from rlgrad.policies.policy import Policy
from rlgrad.policies.recorded_actions import as_stored_actions
from rlgrad.replay.recorded import Episodes
from rlgrad.spaces.trees import map_arrays

CHUNK = 4_096
"""Steps of a rollout, at most."""


def rows_for(episodes: Episodes, stacks: Any) -> int:
    """Return the rows of a ring that holds all of these episodes, written by rollouts of at most `CHUNK` steps.

    Args:
        episodes: the episodes.
        stacks: as for `Ring`.
    """
    before = max((k for k in tf.nest.flatten(stacks) if k is not None), default=1) - 1
    return max(episodes.steps + (1 + before) * len(episodes.lengths) + 1, (2 + before) * (CHUNK + 1))


def rollouts(episodes: Episodes, policy: Policy) -> Iterator[Rollout]:
    """Yield the steps of recorded episodes in their order, (T, 1, …).

    An episode that did not terminate was cut: the value of its last observation counts. With which probability an action was
    taken is not known, so `log_probs` are NaN.

    Args:
        episodes: the episodes.
        policy: says how actions are stored.
    """
    ends = np.zeros(episodes.steps, np.bool_)
    ends[np.cumsum(episodes.lengths) - 1] = True
    terminations = np.zeros_like(ends)
    terminations[ends] = episodes.terminated
    row = np.arange(episodes.steps) + np.repeat(np.arange(len(episodes.lengths)), episodes.lengths)
    actions = as_stored_actions(policy.distribution, episodes.actions)
    for first in range(0, episodes.steps, CHUNK):
        part = slice(first, first + CHUNK)
        seen = [map_arrays(lambda x, at=at: x[at, None], episodes.observations) for at in (row[part], row[part] + 1)]
        shape = (len(row[part]), 1)
        yield Rollout(
            observations=seen[0],
            actions=actions[part, None],
            rewards=episodes.rewards[part, None],
            terminations=terminations[part, None],
            truncations=(ends & ~terminations)[part, None],
            final_observations=seen[1],
            log_probs=np.full(shape, np.nan, np.float32),
            mask=np.ones(shape, np.float32),
        )
