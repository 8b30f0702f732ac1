"""Acting for training: the policy, with the random actions that its agent's exploration asks for."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Explorer:
    """A policy to collectors, whose distribution explores. Everything else is the policy's own.

    Args:
        policy: the policy.
        share: of random actions, 0 … 1. It changes from rollout to rollout, so programs take it as an argument (`with_share`).
        decided: an int64 variable (N,), the actions that were decided ahead, −1 where there is none. `None`: none ever is.
    """

    policy: Any
    share: Any
    decided: Any = None

    @property
    def distribution(self) -> Any:
        """The policy's distribution, mixed with random actions."""
        from rlgrad.distributions import Decided, Exploring  # TensorFlow, which collecting does not need

        exploring = Exploring(self.policy.distribution, self.share)
        return exploring if self.decided is None else Decided(exploring, self.decided)

    def with_share(self, share: Any) -> "Explorer":
        """Return the same with another share, such as a tensor in a program."""
        return replace(self, share=share)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by libraries, before there is a policy
            raise AttributeError(name)
        return getattr(self.policy, name)
