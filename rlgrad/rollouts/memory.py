"""What a policy with memory remembers while it plays, slot by slot."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rlgrad.spaces.trees import arrays, map_arrays


class Memory:
    """The state of a policy in each of N slots, from one observation to the next; nothing for a policy without memory.

    Args:
        num_envs: N.
    """

    def __init__(self, num_envs: int) -> None:
        self._num_envs = num_envs
        self._policy: Any = None
        self._states: Any = ()

    def begin(self, policy: Any) -> None:
        """Every slot begins an episode."""
        self._policy = policy
        self._states = policy.initial_state(self._num_envs) if hasattr(policy, "initial_state") else ()

    def of(self, policy: Any) -> Any:
        """The states (N, …): those of this policy, which begins anew if another one has played before."""
        if policy is not self._policy:
            self.begin(policy)
        return self._states

    def state(self) -> list[np.ndarray[Any, Any]]:
        """The arrays (N, …) that the states consist of."""
        return [array.copy() for _, array in arrays(self._states, "")]

    def restore(self, policy: Any, state: list[np.ndarray[Any, Any]]) -> None:
        """Goes on with the states that `state` gave."""
        self.begin(policy)
        saved = iter(state)
        self._states = map_arrays(lambda _: next(saved), self._states)

    def forget(self, slots: np.ndarray[Any, Any]) -> None:
        """Some slots, bool (N,), begin an episode."""
        self._states = map_arrays(
            lambda state: np.where(slots.reshape(-1, *[1] * (state.ndim - 1)), np.zeros_like(state), state),
            self._states,
        )

    def actor(self, policy: Any, act: Callable[..., Any] | None) -> Callable[[Any], Any]:
        """A function from observations (N, …) to the distribution's parameters, which remembers them."""
        act = policy.actor() if act is None else act
        if not self.of(policy):
            return act

        def remembering(observations: Any) -> Any:
            parameters, self._states = act(observations, self._states)
            return parameters

        return remembering
