"""Action masks: which actions are allowed, part of what the policy observes.

Where an environment gives its mask in `info["action_mask"]`, as Taxi does, the mask joins the observation here:
`{"observation": …, "action_mask": …}`. Acting, score, entropy, divergence and evaluation then all find it in the same place.
"""

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces

from rlgrad.core.faults import OutputFault

MASK = "action_mask"
OBSERVATION = "observation"


def has_mask(space: spaces.Space[Any]) -> TypeGuard[spaces.Dict]:
    """Return whether an observation space has an action mask among its parts."""
    return isinstance(space, spaces.Dict) and MASK in space.spaces


def unmasked_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return an observation space without its action mask: the part that networks see."""
    if not has_mask(space):
        return space
    rest = {key: part for key, part in space.items() if key != MASK}
    return rest[OBSERVATION] if set(rest) == {OBSERVATION} else spaces.Dict(rest)


def remove_mask(observations: Any) -> Any:
    """Return observations that have a mask without it, as values of `unmasked_space`."""
    rest = {key: part for key, part in observations.items() if key != MASK}
    return rest[OBSERVATION] if set(rest) == {OBSERVATION} else rest


def with_mask(rest: Any, observations: Any) -> Any:
    """Return what `remove_mask` made of observations, or something like it, with their mask again."""
    alone = set(observations) == {OBSERVATION, MASK}
    return {**({OBSERVATION: rest} if alone else rest), MASK: observations[MASK]}


def observed(masked: bool, observation: Any, info: Mapping[str, Any]) -> Any:
    """Return the input of a policy in one environment: the observation, joined by the mask of `info` where there is one.

    Args:
        masked: the policy takes a mask.
        observation: from `env.reset` or `env.step`.
        info: from the same call.
    """
    brings_its_own = isinstance(observation, dict) and MASK in observation
    return {OBSERVATION: observation, MASK: info[MASK]} if masked and not brings_its_own else observation


def require_allowed(observations: Any, just_ended: np.ndarray[Any, Any], row: int) -> None:
    """Raise an OutputFault for an environment that forbids every action, unless its episode has ended and it only resets.

    Args:
        observations: (N, …); without a mask nothing is checked.
        just_ended: bool (N,).
        row: the time step, for the message.
    """
    if not isinstance(observations, dict) or MASK not in observations:
        return
    forbidden = ~np.asarray(observations[MASK]).astype(bool).any(axis=-1) & ~just_ended
    if forbidden.any():
        raise nothing_allowed(int(np.flatnonzero(forbidden)[0]), row)


def nothing_allowed(slot: int, row: int) -> OutputFault:
    """Return the error for a mask that forbids every action."""
    return OutputFault(
        f"The environment in slot {slot} forbids every action before step {row}: its {MASK!r} is all 0. Let it end the "
        "episode there, or allow an action that does nothing."
    )
