"""How many rows and columns rollouts have."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import Space

from rlgrad.data import Rollout
from rlgrad.environments.guarding import require_allowed_somewhere, require_in_ranges
from rlgrad.environments.vector import Environment
from rlgrad.spaces.trees import arrays, map_arrays, ranges

if TYPE_CHECKING:
    pass


def check_counts(**counts: int | None) -> None:
    """Raise a ValueError for a count that is no integer ≥ 1, or for two kinds of rollouts at once."""
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ValueError(f"{name} is an integer ≥ 1, got {count!r}.")
    if counts["num_steps"] is not None and counts["episodes_per_env"] is not None:
        raise ValueError("Rollouts are by steps (num_steps) or by whole episodes (episodes_per_env): give one of them.")


def layout(
    environment: Environment,
    num_steps: int | None,
    episodes_per_env: int | None,
    max_episode_steps: int | None,
) -> tuple[int, int]:
    """The rows of a rollout, and how many episodes each slot plays in it: 0 for a rollout by steps."""
    if num_steps is None:
        if environment.time_limit is None:
            raise ValueError(
                "Rollouts of whole episodes need a bound on their length, and this environment's specification has "
                "none: give max_episode_steps=."
            )
        return environment.time_limit, episodes_per_env or 1
    if max_episode_steps is not None and not environment.limits_itself:
        raise ValueError(
            "In rollouts by steps max_episode_steps cannot cut the episodes of a vector environment, which resets its "
            "slots itself: give that environment a time limit of its own."
        )
    return num_steps, 0


Array = np.ndarray[Any, Any]


def require_sound(rollout: Rollout, space: Space[Any], columns_per_slot: int) -> None:
    """Raise an error that names slot and step, where a compiled environment gave what it should not have given.

    Args:
        rollout: of NumPy arrays.
        space: one environment's observations.
        columns_per_slot: of its columns.

    Raises:
        OutputFault: a mask forbade every action, or an observation is none of the choices of its space.
        FloatingPointError: a reward or an observation is not finite.
    """
    require_allowed_somewhere(rollout, columns_per_slot)
    played = rollout.mask.any(axis=1)
    known = ranges(space)
    for tree, when in ((rollout.final_observations, "after"), (rollout.observations, "before")):
        require_in_ranges(map_arrays(lambda x: x[played], tree), known, when, columns_per_slot)
    require_finite(rollout, columns_per_slot)


def require_finite(rollout: Rollout, columns_per_slot: int) -> None:
    """Raise a FloatingPointError that names slot and step, where a reward or an observation is not finite.

    Args:
        rollout: of NumPy arrays.
        columns_per_slot: of its columns.
    """
    played = len(rollout.mask)
    if not rollout.mask[-1].any():  # whole episodes may end long before the limit
        played = int(np.flatnonzero(rollout.mask.any(axis=1)).max(initial=-1)) + 1
    # Successors come first: where one is not finite, the step that led to it is named, not the one that began there.
    for when, tree, what in [
        ("at", rollout.rewards, "reward"),
        ("after", rollout.final_observations, "observation"),
        ("before", rollout.observations, "observation"),
    ]:
        for name, array in arrays(tree, what):
            _check_finite(array[:played], f"{name} {when}", columns_per_slot)


def _require_finite_row(seen: Any, successors: Any, playing: Array, row: int) -> None:
    """`require_finite` for one row (1, N, …) of observations; those of slots that only idle are set to 0."""
    for when, tree in (("after", successors), ("before", seen)):
        for name, array in arrays(tree, "observation"):
            array[0, ~playing] = 0
            _check_finite(array, f"{name} {when}", 1, row)


def _check_finite(array: Array, what: str, columns_per_slot: int, first_row: int = 0) -> None:
    if array.dtype.kind != "f":
        return
    flat = array.reshape(-1)
    if math.isfinite(np.dot(flat, flat)):  # the cheapest pass over them all; what is large is looked at again
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    row, column = np.argwhere(~finite)[0, :2].tolist()
    slot = column // columns_per_slot
    raise FloatingPointError(
        f"The environment in slot {slot} gave a non-finite {what} step {first_row + row}: {array[row, column]}."
    )
