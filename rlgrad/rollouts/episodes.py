"""Finished episodes: their returns and lengths, computed from the arrays of a rollout after it was played."""

from typing import Any, NamedTuple

import numpy as np


class Episode(NamedTuple):
    """One finished episode.

    Attributes:
        return_: undiscounted sum of its rewards, in the environment's units.
        length: number of its steps.
        terminated: whether the task ended (else it was cut, by a time limit for instance).
    """

    return_: float
    length: int
    terminated: bool


class RunningEpisodes:
    """What the unfinished episode of each slot has earned so far, carried from one rollout by steps to the next."""

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)

    def advance(
        self,
        rewards: np.ndarray[Any, Any],
        terminations: np.ndarray[Any, Any],
        ends: np.ndarray[Any, Any],
        mask: np.ndarray[Any, Any],
    ) -> list[Episode]:
        """Takes in a rollout and returns the episodes that it finished, by time and then by slot.

        Args:
            rewards: float64 (T, N), 0 where `mask` is False.
            terminations: bool (T, N).
            ends: bool (T, N), `terminations | truncations`.
            mask: bool (T, N), True for real steps.
        """
        if not ends.any():
            self._returns += rewards.sum(axis=0)
            self._lengths += mask.sum(axis=0)
            return []
        finished = []
        starts = np.zeros(len(self._returns), np.int64)
        for row, slot in np.argwhere(ends).tolist():
            span = slice(starts[slot], row + 1)
            return_ = float(self._returns[slot] + rewards[span, slot].sum())
            length = int(self._lengths[slot] + mask[span, slot].sum())
            finished.append(Episode(return_, length, bool(terminations[row, slot])))
            self._returns[slot], self._lengths[slot], starts[slot] = 0.0, 0, row + 1
        unfinished = np.arange(len(rewards))[:, None] >= starts
        self._returns += (rewards * unfinished).sum(axis=0)
        self._lengths += (mask & unfinished).sum(axis=0)
        return finished


def whole_episodes(
    rewards: np.ndarray[Any, Any], terminations: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]
) -> list[Episode]:
    """One episode a column, in the order of the columns.

    Args:
        rewards: float64 (L, N), 0 where `mask` is False.
        terminations: bool (L, N), False where `mask` is False.
        mask: bool (L, N), True for real steps.
    """
    returns, lengths, terminated = rewards.sum(axis=0), mask.sum(axis=0), np.logical_or.reduce(terminations, axis=0)
    return list(map(Episode, returns.tolist(), lengths.tolist(), terminated.tolist()))
