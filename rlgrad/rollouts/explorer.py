"""Acting for training: the policy, with the random actions that its agent's exploration asks for."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Explorer:
    """A policy to collectors, whose distribution explores. Everything else is the policy's own.

    Args:
        policy: the policy.
        share: of random actions, 0 … 1.
        deviation: standard deviation of noise on the actions of a deterministic policy, in half-widths; `None`: there is none.
        decided: an int64 variable (N,), the actions that were decided ahead, −1 where there is none. `None`: none ever is.

    The share and the deviation change from rollout to rollout, so programs take them as an argument (`numbers`,
    `with_numbers`).
    """

    policy: Any
    share: Any
    deviation: Any = None
    decided: Any = None

    @property
    def distribution(self) -> Any:
        """The policy's distribution with noise, mixed with random actions, but where an action is decided already."""
        from rlgrad.distributions import Decided, Exploring  # TensorFlow, which collecting does not need

        own = self.policy.distribution
        exploring = Exploring(own if self.deviation is None else own.noisy(self.deviation), self.share)
        return exploring if self.decided is None else Decided(exploring, self.decided)

    @property
    def numbers(self) -> list[Any]:
        """The share, and the deviation if there is one."""
        return [self.share] if self.deviation is None else [self.share, self.deviation]

    def with_numbers(self, numbers: Any) -> "Explorer":
        """Return the same with other numbers, such as tensors in a program."""
        return replace(self, **dict(zip(("share", "deviation"), numbers, strict=False)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by libraries, before there is a policy
            raise AttributeError(name)
        return getattr(self.policy, name)
