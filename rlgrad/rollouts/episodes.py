"""Finished episodes: their returns and lengths, computed from the arrays of a rollout."""

from typing import Any

import numpy as np

from rlgrad.data import Episode


class RunningEpisodes:
    """The return and length so far of the unfinished episode of each slot, carried from one rollout by steps to the next.

    Attributes:
        returns: float64 (N,).
        lengths: int64 (N,), real steps.
    """

    def __init__(self, num_envs: int) -> None:
        self.returns = np.zeros(num_envs)
        self.lengths = np.zeros(num_envs, np.int64)

    def advance(
        self,
        rewards: np.ndarray[Any, Any],
        terminations: np.ndarray[Any, Any],
        ends: np.ndarray[Any, Any],
        mask: np.ndarray[Any, Any],
    ) -> list[Episode]:
        """Add a rollout, and return the episodes that it finished, by time and then by slot.

        Args:
            rewards: float64 (T, N), 0 where `mask` is False.
            terminations: bool (T, N).
            ends: bool (T, N), `terminations | truncations`.
            mask: bool (T, N), True for real steps.
        """
        # One row holds slot after slot, cut at the end of each episode and of each slot: a return does not depend, not even in
        # its last digits, on the slots beside it.
        rows, num_envs = rewards.shape
        if not ends.any():
            begins = np.arange(num_envs) * rows
            self.returns += rewards.sum(axis=0) if rows < 2 else np.add.reduceat(rewards.T.reshape(-1), begins)
            self.lengths += mask.sum(axis=0)
            return []
        slots, last = np.nonzero(ends.T)
        ends_at, slot_begins = slots * rows + last, np.arange(num_envs) * rows
        begins = np.union1d(slot_begins, ends_at + 1)
        begins = begins[begins < rows * num_envs]
        first, closed = np.searchsorted(begins, slot_begins), np.searchsorted(begins, ends_at, side="right") - 1
        left = np.append(first[1:], len(begins)) - 1
        returns, lengths = (
            np.add.reduceat(x.T.reshape(-1), begins, dtype=x.dtype) for x in (rewards, mask.astype(np.int64))
        )
        returns[first] += self.returns
        lengths[first] += self.lengths
        self.returns, self.lengths = np.where(ends[-1], 0.0, returns[left]), np.where(ends[-1], 0, lengths[left])
        in_time = np.lexsort((slots, last))
        parts = (returns[closed], lengths[closed], terminations[last, slots])
        return list(map(Episode, *(part[in_time].tolist() for part in parts)))


def whole_episodes(
    rewards: np.ndarray[Any, Any], terminations: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]
) -> list[Episode]:
    """Return one episode for each column, in the order of the columns.

    Args:
        rewards: float64 (L, N), 0 where `mask` is False.
        terminations: bool (L, N), False where `mask` is False.
        mask: bool (L, N), True for real steps.
    """
    # One row after the other, so that a return depends neither on the columns beside it nor on the rows that pad it.
    returns, lengths, terminated = (
        np.add.accumulate(rewards)[-1],
        mask.sum(axis=0),
        np.logical_or.reduce(terminations, axis=0),
    )
    return list(map(Episode, returns.tolist(), lengths.tolist(), terminated.tolist()))
