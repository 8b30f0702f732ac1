"""Action masks in `info`: they become a part of the observations here."""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorWrapper
from gymnasium.vector.utils import batch_space

from rlgrad.spaces.masks import MASK, OBSERVATION, has_mask


class MaskInObservation(VectorWrapper):
    """A vector environment whose `info["action_mask"]` becomes part of its observations.

    Args:
        vector: has a mask in its infos after each reset and step.
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


def can_be_masked(env: Any) -> bool:
    """Return True if an environment's actions are of a kind that can be masked, and its observations have no mask yet."""
    choices = isinstance(env.action_space, spaces.Discrete | spaces.MultiDiscrete)
    return choices and not has_mask(env.observation_space)


def mask_width(env: Any) -> int | None:
    """Return the number of entries of the mask in an environment's `info`; `None` if there is no such mask.

    Args:
        env: is reset if it can be masked.

    Raises:
        ValueError: the mask is no array of one number for each action.
    """
    if not can_be_masked(env):
        return None
    try:
        begun = env.reset(seed=0)
    except OSError:
        raise
    except Exception:  # the first reset that counts reports it, with its slot
        return None
    info = begun[1] if isinstance(begun, tuple) and len(begun) == 2 else None
    if not isinstance(info, dict) or MASK not in info:
        return None
    mask = np.asarray(info[MASK])
    if mask.ndim != 1:
        raise ValueError(f"info[{MASK!r}] holds one number for each action; got shape {mask.shape}.")
    return len(mask)
