"""Checks of what is given to a collector, and of the rollouts that it makes."""

import math
from typing import Any

import numpy as np
from gymnasium import Space

from rlgrad.core import capacity
from rlgrad.data import Rollout
from rlgrad.environments.guarding import require_allowed_somewhere, require_in_ranges
from rlgrad.environments.vector import Environment
from rlgrad.rollouts.lengths import lengths
from rlgrad.spaces.trees import arrays, map_arrays, ranges

Array = np.ndarray[Any, Any]
_SCALE = "Its largest number is 3.4e38: scale down, in the environment or in a wrapper."


def check_counts(**counts: int | None) -> None:
    """Raise a ValueError for a count that is no integer ≥ 1, or for both kinds of rollouts at once."""
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ValueError(f"{name} is an integer ≥ 1, got {count!r}.")
    if counts["num_steps"] is not None and counts["episodes_per_env"] is not None:
        raise ValueError("Rollouts are by steps (num_steps) or by whole episodes (episodes_per_env): give one of them.")


def require_room(shape: tuple[int, int], row_bytes: int) -> None:
    """Raise a ValueError for rollouts by steps whose observations and successors are more than the memory holds.

    Args:
        shape: of the rollouts, (T, N).
        row_bytes: of the N observations of a step.
    """
    what = f"Rollouts of {shape[0]:,} steps in {shape[1]:,} environments take"
    capacity.require_room(2 * shape[0] * (row_bytes + 16 * shape[1]), what, "lower num_steps or num_envs")


def lay_out(
    environment: Environment,
    num_steps: int | None,
    episodes_per_env: int | None,
    max_episode_steps: int | None,
    row_bytes: int,
) -> tuple[tuple[int, ...], int]:
    """Return the numbers of rows that a rollout may have, and of episodes of each slot in it: 0 for rollouts by steps.

    Raises:
        ValueError: a time limit cannot be imposed on a vector environment.
    """
    if num_steps is None:
        return lengths(environment.time_limit, row_bytes), episodes_per_env or 1
    if max_episode_steps is not None and not environment.limits_itself:
        raise ValueError(
            "In rollouts by steps max_episode_steps cannot cut the episodes of a vector environment, which resets its "
            "slots itself: give that environment a time limit of its own."
        )
    return (num_steps,), 0


def require_sound(rollout: Rollout, space: Space[Any], columns_per_slot: int) -> None:
    """Check all that a compiled environment returned; an error names slot and step.

    Args:
        rollout: of NumPy arrays.
        space: of one environment's observations.
        columns_per_slot: for messages.

    Raises:
        OutputFault: a mask forbade every action, or an observation is outside of its space.
        FloatingPointError: a reward or an observation is not finite.
    """
    require_allowed_somewhere(rollout, columns_per_slot)
    played = rollout.mask.any(axis=1)
    known = ranges(space)
    for tree, when in ((rollout.final_observations, "after"), (rollout.observations, "before")):
        require_in_ranges(map_arrays(lambda x: x[played], tree), known, when, columns_per_slot)
    require_finite(rollout, columns_per_slot)


def require_finite(rollout: Rollout, columns_per_slot: int, rewards: Array | None = None) -> None:
    """Raise a FloatingPointError that names slot and step if a reward or an observation is not finite.

    Args:
        rollout: of NumPy arrays.
        columns_per_slot: for messages.
        rewards: the rollout's as the environment gave them. `None`: unknown.
    """
    played = len(rollout.mask)
    if not rollout.mask[-1].any():  # whole episodes may end long before the limit
        played = int(np.flatnonzero(rollout.mask.any(axis=1)).max(initial=-1)) + 1
    # Successors come first, so that the message names the step that led to a number, not the one that began with it.
    with np.errstate(over="ignore"):
        require_finite_array(rollout.rewards[:played], "reward at", columns_per_slot, given=rewards)
        for when, tree in (("after", rollout.final_observations), ("before", rollout.observations)):
            for name, array in arrays(tree, "observation"):
                require_finite_array(array[:played], f"{name} {when}", columns_per_slot)


def require_finite_row(seen: Any, successors: Any, playing: Array, row: int) -> None:
    """Check one row (1, N, …) of observations as `require_finite` does, and set those of idle slots to 0.

    Args:
        seen: acted on in this row.
        successors: of them.
        playing: bool (N,), False for idle slots.
        row: for the message.
    """
    for when, tree in (("after", successors), ("before", seen)):
        for name, array in arrays(tree, "observation"):
            array[0, ~playing] = 0
            require_finite_array(array, f"{name} {when}", 1, row)


def require_finite_array(
    array: Array, what: str, columns_per_slot: int, first_row: int = 0, given: Array | None = None
) -> None:
    """Raise a FloatingPointError that names slot and step if a number is not finite.

    Args:
        array: (T, N, …).
        what: a noun and a preposition, such as `"reward at"`, for the message.
        columns_per_slot: for the message.
        first_row: the step of the first row.
        given: the numbers before they were stored as float32. `None`: unknown.
    """
    if array.dtype.kind != "f":
        return
    flat = array.reshape(-1)
    if math.isfinite(np.dot(flat, flat)):  # the cheapest pass over all numbers; an overflow is looked at again
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    row, column = np.argwhere(~finite)[0, :2].tolist()
    found = array[row, column]
    who, step = f"The environment in slot {column // columns_per_slot}", first_row + row
    if given is not None and np.isfinite(given[row, column]).all():
        raise FloatingPointError(
            f"{who} gave a {what} step {step} that is too large for float32, in which learning computes: {given[row, column]}. "
            f"{_SCALE}"
        )
    perhaps = f" Stored as float32, what is too large for it is infinite. {_SCALE}" if np.isinf(found).any() else ""
    raise FloatingPointError(f"{who} gave a non-finite {what} step {step}: {found}.{perhaps}")
