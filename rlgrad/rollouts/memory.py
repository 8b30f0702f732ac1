"""The memory of a policy while it plays, slot by slot."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rlgrad.spaces.trees import arrays, map_arrays


class Memory:
    """The state of a policy in each of N slots, from one observation to the next; `()` for a policy without memory.

    Args:
        num_envs: N.
    """

    def __init__(self, num_envs: int) -> None:
        self._num_envs = num_envs
        self._policy: Any = None
        self._states: Any = ()

    def begin(self, policy: Any) -> None:
        """Begin an episode in every slot."""
        self._policy = policy
        self._states = policy.initial_state(self._num_envs) if hasattr(policy, "initial_state") else ()

    def of(self, policy: Any) -> Any:
        """Return the states (N, …) of a policy, initial ones if another policy has played before."""
        if policy is not self._policy:
            self.begin(policy)
        return self._states

    def state(self) -> list[np.ndarray[Any, Any]]:
        """Return the arrays (N, …) of the states."""
        return [array.copy() for _, array in arrays(self._states, "")]

    def restore(self, policy: Any, state: list[np.ndarray[Any, Any]]) -> None:
        """Continue with the states that `state` returned."""
        self.begin(policy)
        saved = iter(state)
        self._states = map_arrays(lambda _: next(saved), self._states)

    def forget(self, slots: np.ndarray[Any, Any]) -> None:
        """Begin an episode in some slots, bool (N,)."""
        self._states = map_arrays(
            lambda state: np.where(slots.reshape(-1, *[1] * (state.ndim - 1)), np.zeros_like(state), state),
            self._states,
        )

    def actor(self, policy: Any, act: Callable[..., Any]) -> Callable[[Any], Any]:
        """Return a function from observations (N, …) to the distribution's parameters, which keeps the states here.

        Args:
            policy: whose states are kept.
            act: its actor, which takes states and returns the next ones if the policy has a memory.
        """
        if not self.of(policy):
            return act

        def remembering(observations: Any) -> Any:
            parameters, self._states = act(observations, self._states)
            return parameters

        return remembering
