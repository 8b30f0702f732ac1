"""The collector of a run that learns from recorded episodes: it plays nothing, and counts gradient steps."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rlgrad.data import Rollout
from rlgrad.rollouts.base import ActingPolicy, Collector
from rlgrad.spaces.trees import storage


class Unplayed(Collector):
    """An environment that is known and not played. Its rollouts are one row that does not count.

    Args:
        of: a collector of the environment, for its spaces. It is never asked to play.
        steps: that a call of the learner counts.
    """

    def __init__(self, of: Collector, steps: int) -> None:
        self._of, self._steps = of, steps
        self.observation_space, self.action_space = of.observation_space, of.action_space
        self.num_envs, self.shape = of.num_envs, (1, 1)
        self.reward_threshold, self.vectorization_mode = of.reward_threshold, of.vectorization_mode

    @property
    def max_rollout_steps(self) -> int:
        """The gradient steps of a call of the learner."""
        return self._steps

    def collect(
        self, policy: ActingPolicy, greedy: bool = False, *, actor: Callable[..., Any] | None = None
    ) -> Rollout:
        """Return a row of zeros whose mask is 0."""
        del greedy, actor
        known: Any = policy
        none, flags = np.zeros((1, 1), np.float32), np.zeros((1, 1), np.bool_)
        actions = known.zero_actions(1)[None]
        seen, after = (storage(self.observation_space, (1, 1)) for _ in range(2))
        return Rollout(seen, actions, none, flags, flags, after, none, none)

    def close(self) -> None:
        """Release the environment."""
        self._of.close()
