"""One update for the policy and another for the value: other step sizes, or more steps, for each.

A value estimate is a regression and gains from several passes over a rollout; the policy's gradient holds for one step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from rlgrad.core.checks import require
from rlgrad.data import Metrics
from rlgrad.search import Space, under
from rlgrad.updates.ascent import Ascent
from rlgrad.updates.base import Objective, State, Update

_VALUE = "value"


class PerHead(Update):
    """Move the outputs of the policy by one update, then the value by another. The two must not share weights."""

    policy: Update = Ascent()
    """For every credited output but the value."""
    value: Update = Ascent()
    """For the value, after the policy."""

    def __post_init__(self) -> None:
        """Check that each head has an update that can move it."""
        require(
            _is_of_one_head(self.policy),
            "policy",
            "an update such as Ascent, NaturalGradient or TrustRegion",
            self.policy,
        )
        can_move_a_value = _is_of_one_head(self.value) and not self.value.moves_only_the_policy
        require(can_move_a_value, "value", "an update that can move a value, such as Ascent", self.value)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of what `apply` reports besides the objective's own metrics: those of the policy's update."""
        return self.policy.metrics

    def field_of(self, output: str) -> str:
        """Return `value` for the value, and `policy` for every other output."""
        return "value" if output == _VALUE else "policy"

    def search_space(self) -> Space:
        """Return the ranges of both updates."""
        return under("policy", self.policy.search_space()) | under("value", self.value.search_space())

    @property
    def kind(self) -> str:
        """Return the kinds of both updates."""
        return f"{type(self).__name__} of {self.policy.kind} and {self.value.kind}"

    def build(
        self, variables: Sequence[keras.Variable], num_envs: int, by_output: Mapping[str, Sequence[keras.Variable]]
    ) -> "PerHeadState":
        """Return the states of both updates.

        Args:
            variables: what is to move.
            num_envs: columns of a rollout.
            by_output: for each credited output, the variables that it depends on.

        Raises:
            ValueError: no value is trained, or the heads share weights.
        """
        if _VALUE not in by_output:
            raise ValueError("PerHead moves the policy and the value apart, and no value is trained: use Ascent.")
        mine = {id(v) for v in by_output[_VALUE]}
        of_policy = {name: vs for name, vs in by_output.items() if name != _VALUE}
        others = {id(v) for vs in of_policy.values() for v in vs}
        shared = [v.path for v in variables if id(v) in mine & others]
        if shared:
            raise ValueError(
                f"PerHead moves the policy and the value apart, and they share {', '.join(shared)}: use Ascent, or give the "
                "value a model of its own with value_model=."
            )
        policy, value = ([v for v in variables if id(v) in head] for head in (others, mine))
        return PerHeadState(
            policy=self.policy.build(policy, num_envs, of_policy),
            policy_variables=policy,
            value=self.value.build(value, num_envs, {_VALUE: by_output[_VALUE]}),
            value_variables=value,
        )

    def apply(self, objective: Objective, state: "PerHeadState", seed: Any) -> Metrics:
        """Move the policy, then the value.

        Args:
            objective: what is climbed.
            state: from `build`.
            seed: int32 (2,), for the shuffles.

        Returns:
            The policy's metrics, and `nonfinite_step` of the policy, or else of the value.
        """
        names = tuple(name for name in objective.credited if name != _VALUE)
        metrics = self.policy.apply(objective.of(names, state.policy_variables), state.policy, seed)
        value = self.value.apply(objective.of((_VALUE,), state.value_variables), state.value, tf.add(seed, [0, 1]))
        bad = metrics["nonfinite_step"]
        return metrics | {"nonfinite_step": tf.where(bad >= 0, bad, value["nonfinite_step"])}


def _is_of_one_head(update: Any) -> bool:
    return isinstance(update, Update) and update.field_of("log_prob") is None


@dataclass(frozen=True)
class PerHeadState:
    """The states of both updates, and what each of them moves."""

    policy: State
    policy_variables: list[keras.Variable]
    value: State
    value_variables: list[keras.Variable]

    @property
    def slots(self) -> list[keras.Variable]:
        """Return what a checkpoint keeps: the slots of the policy, then of the value."""
        return [*self.policy.slots, *self.value.slots]

    def renew(self) -> None:
        """Take the learning rates of the settings, in place of those that a checkpoint kept."""
        for state in (self.policy, self.value):
            if hasattr(state, "renew"):
                state.renew()
