"""Action masks: which actions are allowed, part of what the policy observes.

Where an environment gives its mask in `info["action_mask"]`, as Taxi does, it joins the observation here, so that acting,
score, entropy, divergence and evaluation all meet it at the same place: `{"observation": …, "action_mask": …}`.
"""

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces

from rlgrad.core.faults import OutputFault

MASK = "action_mask"
OBSERVATION = "observation"


def has_mask(space: spaces.Space[Any]) -> TypeGuard[spaces.Dict]:
    """Whether an observation space brings an action mask."""
    return isinstance(space, spaces.Dict) and MASK in space.spaces


def observed(masked: bool, observation: Any, info: Mapping[str, Any]) -> Any:
    """What a policy observes of one environment: its observation, with the mask of `info` where it has one.

    Args:
        masked: whether the policy takes a mask.
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
    """The error for a mask that forbids every action."""
    return OutputFault(
        f"The environment in slot {slot} forbids every action before step {row}: its {MASK!r} is all 0. Let it end the "
        "episode there, or allow an action that does nothing."
    )
