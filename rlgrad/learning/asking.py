"""What `credit` may ask of the networks: their outputs at other observations and at the target weights, for numbers."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import tensorflow as tf

from rlgrad import gradients, random
from rlgrad.core.checks import close_names
from rlgrad.data import Outputs
from rlgrad.policies.policy import Policy
from rlgrad.policies.recurrent import RecurrentPolicy

Placed = Mapping[str, Any]
"""Values in the place of a policy's own, by the variables' keys, as `at=` of `rlgrad.gradients` takes them."""


class Now(Outputs):
    """The outputs at the current weights, as numbers, of a policy that can be asked.

    Args:
        outputs: by name.
        policy: gives the answers.
        seeds: int32 (M, 2), of each row.
        target: the target weights; `None`: the agent has none.
    """

    def __init__(self, outputs: dict[str, Any], policy: Policy, seeds: Any, target: Placed | None = None) -> None:
        super().__init__(**outputs)
        self._policy, self._seeds, self._target, self._calls = policy, seeds, target, 0

    def at(self, observations: Any, actions: Any = None) -> "Answers":
        """See `Outputs.at`."""
        return Answers(self._policy, observations, actions)

    def target(self, observations: Any, actions: Any = None) -> "Answers":
        """See `Outputs.target`."""
        if self._target is None:
            raise ValueError("This agent asks the target weights and has none: give it target=Target(rate=…, every=…).")
        return Answers(self._policy, observations, actions, self._target)

    def noise(self, size: int) -> tf.Tensor:
        """See `Outputs.noise`."""
        self._calls += 1
        return random.normal(random.fold_in(self._seeds, self._calls), (size,))


class Answers:
    """The outputs at some observations, as numbers: computed where they are read, in one pass.

    Args:
        policy: gives them.
        observations: (M, …).
        actions: (M, …), as stored; `None`: outputs of actions are not asked for.
        placed: weights in the place of the policy's own; `None`: none.
    """

    def __init__(self, policy: Policy, observations: Any, actions: Any = None, placed: Placed | None = None) -> None:
        if isinstance(policy, RecurrentPolicy):
            raise ValueError(
                "A policy with memory cannot be asked about single observations, since it remembers others: learn from "
                "batch.returns, or without a memory."
            )
        self._policy, self._observations, self._actions, self._placed = policy, observations, actions, placed

    @cached_property
    def _heads(self) -> dict[str, Any]:
        heads: dict[str, Any] = gradients.evaluate(self._policy, self._observations, at=self._placed)
        return heads

    @property
    def q_values(self) -> tf.Tensor:
        """What the network says of each action, float (M, A) or (M, A, K)."""
        self._require_action_values("q_values")
        return self._heads["policy"]

    @property
    def expected(self) -> tf.Tensor:
        """The expected return of each action, float (M, A)."""
        self._require_action_values("expected")
        greedy: Any = self._policy.distribution
        return greedy.expected(self._heads["policy"])

    @property
    def q(self) -> tf.Tensor:
        """What the network says of the actions that are asked about, float (M,) or (M, K)."""
        return tf.gather(self.q_values, self._require_actions("q"), batch_dims=1)

    @property
    def log_prob(self) -> tf.Tensor:
        """Log π(a|s) of the actions that are asked about, in nats, float (M,)."""
        actions = self._require_actions("log_prob")
        return self._policy.distribution.log_prob(self._heads["policy"], actions)

    @property
    def entropy(self) -> tf.Tensor:
        """H(π(·|s)), in nats, float (M,)."""
        return self._policy.distribution.entropy(self._heads["policy"])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._heads:
            known = [*(n for n in vars(type(self)) if not n.startswith("_")), *self._heads]
            raise AttributeError(f"There is no output {name!r}. {close_names(name, known)}")
        return self._heads[name]

    def _require_action_values(self, name: str) -> None:
        if not self._policy.says_action_values:
            raise AttributeError(
                f"There is no {name}: this agent credits no q, so its network says how likely actions are."
            )

    def _require_actions(self, name: str) -> Any:
        if self._actions is None:
            raise ValueError(f"{name} is of actions: pass them, as in now.at(observations, actions).{name}.")
        return self._actions
