"""The arrays that a player fills. Those of whole episodes grow while the episodes last."""

from typing import Any

import numpy as np

from rlgrad.rollouts.lengths import require_storage, size_of_row
from rlgrad.rollouts.tape import Tape, lengthened
from rlgrad.spaces.trees import map_arrays


class Recording:
    """Arrays (T, N, …) for the steps of all slots, zeros where nothing was written.

    Args:
        empty: storage (0, …) of one environment's observations.
        num_envs: N.
        lengths: numbers of rows that the arrays may have, in ascending order.
        keep: keep observations. Else there is room for one row of them, which each step overwrites.

    Attributes:
        seen: observations acted on.
        successors: of them.
        rewards: float64 (T, N).
        terminations: bool (T, N).
        truncations: bool (T, N).
        actions: (T, N, …), made with the first of them.

    Raises:
        ValueError: the observations do not fit into memory.
    """

    def __init__(self, empty: Any, num_envs: int, lengths: tuple[int, ...], keep: bool) -> None:
        self._lengths, self._rows, self._keep = lengths, lengths[0], keep
        self._row_bytes = size_of_row(empty, num_envs)
        self._kept = self._rows if keep else 1
        require_storage(self._kept, self._row_bytes)
        self.seen, self.successors = (
            map_arrays(lambda x: np.zeros((self._kept, num_envs, *x.shape[1:]), x.dtype), empty) for _ in range(2)
        )
        shape = (self._rows, num_envs)
        self.rewards, self.actions = np.zeros(shape), np.zeros(0)
        self.terminations, self.truncations = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)

    def make_room(self, row: int) -> None:
        """Grow to the next length if there is no such row yet."""
        if row < self._rows:
            return
        self._rows = self._lengths[self._lengths.index(self._rows) + 1]
        arrays = self.actions, self.rewards, self.terminations, self.truncations
        self.actions, self.rewards, self.terminations, self.truncations = lengthened(arrays, self._rows)
        if self._keep:
            self._kept = self._rows
            require_storage(self._kept, self._row_bytes)
            self.seen, self.successors = lengthened(self.seen, self._kept), lengthened(self.successors, self._kept)

    def see(self, row: int, observations: Any) -> Any:
        """Write the observations (N, …) that are acted on, and return them in the storage's dtypes."""
        return _put(self.seen, row % self._kept, observations)

    def step(self, row: int, actions: Any, stepped: tuple[Any, ...]) -> int:
        """Write the actions (N, …) and what the step returned, and return the row of its observations in `successors`."""
        if row == 0:
            self.actions = np.zeros((self._rows, *actions.shape), actions.dtype)
        self.actions[row] = actions
        observations, self.rewards[row], self.terminations[row], self.truncations[row], _ = stepped
        at = row % self._kept
        _put(self.successors, at, observations)
        return at

    def tape(self) -> Tape:
        """Return what was written, without log-probabilities; with `()` for observations that were not kept."""
        seen, successors = (self.seen, self.successors) if self._keep else ((), ())
        return Tape(seen, self.actions, self.rewards, self.terminations, self.truncations, successors, ())


def stored(empty: Any, values: Any) -> Any:
    """Return copies of observations (N, …) in the dtypes of storage (0, …).

    Raises:
        ValueError: an array has another shape than the observation space says.
    """
    if isinstance(empty, np.ndarray):
        if values.shape[1:] != empty.shape[1:]:
            raise _wrong_shape(values, (len(values), *empty.shape[1:]))
        return values.astype(empty.dtype)
    if isinstance(empty, dict):
        return {key: stored(inner, values[key]) for key, inner in empty.items()}
    return tuple(stored(inner, value) for inner, value in zip(empty, values, strict=True))


def _wrong_shape(values: Any, expected: tuple[int, ...]) -> ValueError:
    return ValueError(f"An observation has the shape {values.shape} where the observation space says {expected}.")


def _put(store: Any, index: int, values: Any) -> Any:
    """Copy `values` into row `index` of a storage tree and return that row, a view in the storage's dtype.

    Raises:
        ValueError: an array has another shape than the row.
    """
    if isinstance(store, np.ndarray):
        row = store[index]
        if row.shape != values.shape:
            raise _wrong_shape(values, row.shape)
        row[...] = values
        return row
    if isinstance(store, dict):
        return {key: _put(inner, index, values[key]) for key, inner in store.items()}
    return tuple(_put(inner, index, value) for inner, value in zip(store, values, strict=True))
