"""One update for the policy and another for the value: other step sizes, or more steps, for each.

A value estimate is a regression and gains from going over a rollout several times; the policy's gradient holds for one step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from rlgrad.core.checks import require
from rlgrad.data import Metrics
from rlgrad.hyperparameters import Record
from rlgrad.updates.ascent import Ascent, AscentState
from rlgrad.updates.moves import NoSlots
from rlgrad.updates.natural_gradient import NaturalGradient
from rlgrad.updates.trust_region import TrustRegion

if TYPE_CHECKING:
    from rlgrad.learning.objective import Objective

_VALUE = "value"


class PerHead(Record):
    """The outputs of the policy move by one update, then the value by another. The two must not share weights."""

    policy: Ascent | NaturalGradient | TrustRegion = Ascent()
    """For every credited output but the value."""
    value: Ascent = Ascent()
    """For the value, after the policy."""

    def __post_init__(self) -> None:
        """Check that each head has an update of its own kind."""
        require(
            isinstance(self.policy, Ascent | NaturalGradient | TrustRegion),
            "policy",
            "Ascent, NaturalGradient or TrustRegion",
            self.policy,
        )
        require(isinstance(self.value, Ascent), "value", "Ascent", self.value)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what `apply` reports besides the objective's own: those of the policy's update."""
        return self.policy.metrics

    def build(
        self, variables: Sequence[keras.Variable], num_envs: int, by_output: Mapping[str, Sequence[keras.Variable]]
    ) -> "PerHeadState":
        """Slots for both.

        Args:
            variables: what is to move.
            num_envs: columns of a rollout.
            by_output: for each credited output, the variables that it depends on.

        Returns:
            The state that `apply` takes.

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
        return PerHeadState(
            policy=self.policy.build([v for v in variables if id(v) in others], num_envs, of_policy),
            value=self.value.build([v for v in variables if id(v) in mine], num_envs, {_VALUE: by_output[_VALUE]}),
        )

    def apply(self, objective: "Objective", state: "PerHeadState", seed: Any) -> Metrics:
        """Move the policy, then the value.

        Args:
            objective: what is climbed.
            state: from `build`.
            seed: int32 (2,), for the shuffles.

        Returns:
            The policy's metrics, and `nonfinite_step` of the first that met one.
        """
        names = tuple(name for name in objective.credited if name != _VALUE)
        policy: Any = self.policy  # its state is its own
        metrics: Metrics = policy.apply(objective.of(names, state.policy.variables), state.policy, seed)
        value = self.value.apply(objective.of((_VALUE,), state.value.variables), state.value, tf.add(seed, [0, 1]))
        bad = metrics["nonfinite_step"]
        return metrics | {"nonfinite_step": tf.where(bad >= 0, bad, value["nonfinite_step"])}


@dataclass(frozen=True)
class PerHeadState:
    """The two updates' states."""

    policy: AscentState | NoSlots
    value: AscentState

    @property
    def slots(self) -> list[keras.Variable]:
        """What a checkpoint keeps."""
        return self.policy.slots + self.value.slots
