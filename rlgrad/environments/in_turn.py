"""Environments of this process, stepped one after the other."""

from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv
from gymnasium.vector.utils import concatenate, iterate


class InTurn(SyncVectorEnv):
    """Gymnasium's `SyncVectorEnv` that resets nothing by itself, without the work whose results nobody reads.

    To merge the infos of one environment takes longer than a step of a small one, so they are merged on demand.

    Attributes:
        merges_infos: merge the infos of a step. False: a step returns none.
    """

    merges_infos: bool = False

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step each environment.

        Raises:
            AssertionError: the episode of an environment has ended, and it was not reset.
            TypeError: an info is no dict.
        """
        assert not self._autoreset_envs.any(), (
            "reset the environments whose episodes have ended, before they are stepped"
        )
        infos: dict[str, Any] = {}
        for i, action in enumerate(iterate(self.action_space, actions)):
            gave = self.envs[i].step(action)
            self._env_obs[i], self._rewards[i], self._terminations[i], self._truncations[i], info = gave
            if self.merges_infos:
                infos = self._add_info(infos, info, i)
            elif not isinstance(info, dict):
                raise TypeError(f"An info is a dict, and environment {i} gave {info!r}.")
        self._observations = self._gathered()
        self._autoreset_envs = np.logical_or(self._terminations, self._truncations)
        return self._observations, self._rewards.copy(), self._terminations.copy(), self._truncations.copy(), infos

    def _gathered(self) -> Any:
        """Return the observations (N, …) of all environments."""
        rows, seen = self._observations, self._env_obs
        if isinstance(rows, np.ndarray) and len(seen) == 1:  # nothing to join
            only = seen[0]
            if isinstance(only, np.ndarray) and only.shape == rows.shape[1:] and only.dtype == rows.dtype:
                rows[0] = only
                return rows
        return concatenate(self.single_observation_space, seen, rows)
