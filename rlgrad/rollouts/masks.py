"""Action masks: which actions are allowed, part of what the policy observes.

Where an environment gives its mask in `info["action_mask"]`, as Taxi does, it joins the observation here, so that acting,
score, entropy, divergence and evaluation all meet it at the same place: `{"observation": …, "action_mask": …}`.
"""

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorWrapper
from gymnasium.vector.utils import batch_space

from rlgrad.faults import OutputFault

MASK = "action_mask"
OBSERVATION = "observation"


class MaskInObservation(VectorWrapper):
    """A vector environment whose `info["action_mask"]` becomes part of its observations.

    Args:
        vector: gives a mask after each reset and step.
        width: numbers in one environment's mask.
    """

    def __init__(self, vector: Any, width: int) -> None:
        super().__init__(vector)
        single = vector.single_observation_space
        self.single_observation_space = spaces.Dict({OBSERVATION: single, MASK: spaces.MultiBinary(width)})
        self.observation_space = batch_space(self.single_observation_space, vector.num_envs)
        self._mask = np.zeros((vector.num_envs, width), np.int8)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Reset, and add the masks of the environments that were."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return self._joined(observations, infos), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step, and add the masks."""
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        if "final_obs" in infos:
            finals = infos["final_info"][MASK]
            infos["final_obs"] = [
                None if final is None else {OBSERVATION: final, MASK: finals[i]}
                for i, final in enumerate(infos["final_obs"])
            ]
        return self._joined(observations, infos), rewards, terminations, truncations, infos

    def _joined(self, observations: Any, infos: dict[str, Any]) -> dict[str, Any]:
        given = infos.get(f"_{MASK}", np.zeros(self.num_envs, bool))
        if np.any(given):
            self._mask = np.where(np.asarray(given)[:, None], np.stack(list(infos[MASK])), self._mask).astype(np.int8)
        return {OBSERVATION: observations, MASK: self._mask}


def has_mask(space: spaces.Space[Any]) -> TypeGuard[spaces.Dict]:
    """Whether an observation space brings an action mask."""
    return isinstance(space, spaces.Dict) and MASK in space.spaces


def can_be_masked(env: Any) -> bool:
    """Whether an environment's actions are of a kind that can be masked, and its observations bring no mask already."""
    choices = isinstance(env.action_space, spaces.Discrete | spaces.MultiDiscrete)
    return choices and not has_mask(env.observation_space)


def mask_width(env: Any) -> int | None:
    """How many numbers the mask in an environment's `info` has; none where there is no such mask.

    Args:
        env: is reset, if it can be masked.

    Raises:
        ValueError: the mask is no array of one number for each action.
    """
    if not can_be_masked(env):
        return None
    try:
        begun = env.reset(seed=0)
    except OSError:
        raise
    except Exception:  # the first reset that counts says so, with its slot
        return None
    info = begun[1] if isinstance(begun, tuple) and len(begun) == 2 else None
    if not isinstance(info, dict) or MASK not in info:
        return None
    mask = np.asarray(info[MASK])
    if mask.ndim != 1:
        raise ValueError(f"info[{MASK!r}] holds one number for each action; got shape {mask.shape}.")
    return len(mask)


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
