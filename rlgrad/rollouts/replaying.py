"""Going on in the middle of episodes: they begin again with their seeds, and are played the actions that they have seen.

This brings back every environment that is deterministic under a seed. Whether one is, the observations and rewards tell that
the same actions lead to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rlgrad.rollouts.slots import Slots
from rlgrad.rollouts.trees import arrays

Array = np.ndarray[Any, Any]


class Running(NamedTuple):
    """The episodes that are not over yet, of N slots.

    Attributes:
        actions: (rows, N, …), as the distribution gave them: the last ones, as far back as is needed.
        observations: (N, …), what to act on next; the arrays of the tree.
        returns: float64 (N,), what each has earned.
        lengths: int64 (N,), how many steps each has taken.
        resets_first: bool (N,), whether the next step only resets.
        memories: (N, …), what the policy remembers; the arrays of the tree.
    """

    actions: Array
    observations: list[Array]
    returns: Array
    lengths: Array
    resets_first: Array
    memories: list[Array]


class History:
    """The actions of the last rollouts, (T, N, …) each, as far back as the running episodes go.

    Attributes:
        rows: how many steps of each slot that is.
    """

    def __init__(self) -> None:
        self._tapes: list[Array] = []
        self.rows = 0

    def add(self, actions: Array) -> None:
        """Take in a rollout's actions, which nobody may change."""
        self._tapes.append(actions)
        self.rows += len(actions)

    def keep(self, rows: int) -> None:
        """Forget what is older than so many rows, but for the last rollout."""
        while len(self._tapes) > 1 and self.rows - len(self._tapes[0]) >= rows:
            self.rows -= len(self._tapes.pop(0))

    def last(self, rows: int | None = None) -> Array:
        """The last rows, or all of them."""
        whole = np.concatenate(self._tapes)
        return whole if rows is None else whole[len(whole) - rows :]


def replay(slots: Slots, running: Running, to_environment: Callable[[Array], Any]) -> Any:
    """Bring the environments of fresh slots to where the running episodes stand.

    Args:
        slots: with the counters that they had there.
        running: the episodes.
        to_environment: from the distribution's actions to those of the environment.

    Returns:
        What to act on next (N, …), or none where the environments did not do again what they had done.
    """
    play = _each if slots.seeds_each_episode else _together
    observations, returns = play(slots, running, to_environment)
    again = [array for _, array in arrays(observations, "")]
    pairs = zip(again, running.observations, strict=True)
    same = all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)
    return observations if same and np.allclose(returns, running.returns, rtol=1e-6, atol=1e-6) else None


def _together(slots: Slots, running: Running, to_environment: Callable[[Array], Any]) -> tuple[Any, Array]:
    """All that happened since the one seed that the slots were given."""
    observations, returns = slots.restart_again(), np.zeros(len(running.lengths))
    ended = np.zeros(len(returns), np.bool_)
    for actions in running.actions:
        observations, rewards, terminations, truncations, infos = slots.step(to_environment(actions))
        # What a step pays that only resets belongs to no episode.
        returns = np.where(ended, 0.0, returns) + np.where(ended & slots.resets_late, 0.0, rewards)
        ended = terminations | truncations
        if ended.any():
            observations = slots.renew(ended, observations, infos, idle=False)
    return observations, np.where(ended, 0.0, returns)


def _each(slots: Slots, running: Running, to_environment: Callable[[Array], Any]) -> tuple[Any, Array]:
    """Each slot's own episode.

    All slots can only be stepped together. So one with fewer steps than another plays them several times over, first as many
    as are left over, and ends its last time with the others. One without any is reset after each step.
    """
    rows, lengths = len(running.actions), running.lengths
    columns, period = np.arange(len(lengths)), np.maximum(lengths, 1)
    observations, returns = slots.restart_again(), np.zeros(len(lengths))
    for row in range(rows):
        at = np.where(row < rows % period, row, (row - rows % period) % period)
        begins = (at == 0) & (row > 0)
        if begins.any():
            slots.restart_again(begins)
        actions = running.actions[np.minimum(rows - lengths + at, rows - 1), columns]
        observations, rewards, *_ = slots.step(to_environment(actions))
        returns = np.where(at == 0, 0.0, returns) + rewards
    fresh = lengths == 0
    if rows and fresh.any():
        observations = slots.restart_again(fresh)
    return observations, np.where(fresh, 0.0, returns)
