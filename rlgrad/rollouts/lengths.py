"""How many rows the arrays of whole episodes have: as many as the episodes are long, in a few fixed sizes.

A learner compiles one program for each size, so there are few: one where the time limit is short, else powers of two.
"""

import math
from typing import Any

from rlgrad.core.capacity import require_room
from rlgrad.core.faults import EndlessEpisode
from rlgrad.spaces.trees import arrays

MOST_STEPS = 20_000  # of an episode that no limit ends
LEAST = 64
_LONG = 1024


def lengths(limit: int | None, row_bytes: int, large: int = 16 * 2**20) -> tuple[int, ...]:
    """Return the numbers of rows that a rollout of whole episodes may have, the last of which holds every episode.

    Args:
        limit: the most steps of an episode. `None`: unknown, so that episodes longer than `MOST_STEPS` are refused.
        row_bytes: size of one row of observations.
        large: bytes of observations above which a short limit, too, has several lengths.
    """
    most = MOST_STEPS if limit is None else limit
    if limit is not None and limit <= _LONG and limit * row_bytes <= large:
        return (limit,)
    doubled = [LEAST]
    while doubled[-1] < most:
        doubled.append(2 * doubled[-1])
    return tuple(doubled)


def size_of_row(empty: Any, columns: int) -> int:
    """Return the bytes of one row of observations.

    Args:
        empty: storage (0, …) of one environment's observations.
        columns: of the row.
    """
    size: int = sum(array.itemsize * math.prod(array.shape[1:]) for _, array in arrays(empty, ""))
    return columns * size


def require_storage(rows: int, row_bytes: int) -> None:
    """Raise a ValueError for a rollout that does not fit into memory: its observations, and as many successors."""
    require_room(
        2 * rows * row_bytes,
        f"The observations of a rollout of {rows:,} rows take",
        "lower num_envs, num_steps, episodes_per_env or max_episode_steps",
    )


def endless(playing: int, slots: int) -> EndlessEpisode:
    """Return the error for episodes that do not end.

    Args:
        playing: slots whose episode has not ended.
        slots: all of them.
    """
    return EndlessEpisode(
        f"{playing} of {slots} episodes had not ended after {MOST_STEPS:,} steps, and this environment has no time limit: give "
        "max_episode_steps (--max-episode-steps)."
    )
