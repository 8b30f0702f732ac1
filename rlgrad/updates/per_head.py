"""One update for the policy and another for what estimates values: other step sizes, or more steps, for each.

A value estimate is a regression and gains from several passes over a rollout; the policy's gradient holds for one step. With a
replay, critics move before the policy that follows them, which may wait for several of their steps.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from rlgrad.core.checks import require, require_at_most
from rlgrad.data import Metrics
from rlgrad.search import Space, under
from rlgrad.updates.ascent import Ascent
from rlgrad.updates.base import Objective, State, Update, slots_in

_OF_VALUE = ("value", "q")


class PerHead(Update):
    """Move the policy by one update and the value, or the critics, by another. The two must not share weights.

    On a rollout the policy moves first, then the value. From a replay the critics (`q`) move first, and the policy climbs what
    they have become. What an agent learns beside them, such as a temperature, moves with the policy.
    """

    policy: Update = Ascent()
    """For every credited output but the value and the critics."""
    value: Update = Ascent()
    """For the value and for critics."""
    policy_every: int = 1
    """Updates of the value from one of the policy to the next. A credit of 0 would be no such delay: Adam moves on by its
    moments."""

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
        require(self.policy_every >= 1, "policy_every", "at least 1", self.policy_every)
        require_at_most(self, policy_every=2**20)

    @property
    def needs_only_gradients(self) -> bool:
        """Return True if both updates ask for nothing else."""
        return self.policy.needs_only_gradients and self.value.needs_only_gradients

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of what `apply` reports besides the objective's own metrics: those of the policy's update."""
        return self.policy.metrics

    def field_of(self, output: str) -> str:
        """Return `value` for the value and critics, and `policy` for every other output."""
        return "value" if output in _OF_VALUE else "policy"

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
        of_value = {name: vs for name, vs in by_output.items() if name in _OF_VALUE}
        of_policy = {name: vs for name, vs in by_output.items() if name not in _OF_VALUE}
        if not of_value or not of_policy:
            lacking = "policy" if of_value else "value"
            raise ValueError(f"PerHead moves the policy and the value apart, and no {lacking} is trained: use Ascent.")
        mine, others = ({id(v) for vs in head.values() for v in vs} for head in (of_value, of_policy))
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
            value=self.value.build(value, num_envs, of_value),
            value_variables=value,
            turn=None
            if self.policy_every == 1
            else keras.Variable(0, dtype="int32", trainable=False, name="policy_turn"),
        )

    def apply(self, objective: Objective, state: "PerHeadState", seed: Any) -> Metrics:
        """Move the policy, then the value; or the critics, then the policy if it is its turn.

        Args:
            objective: what is climbed.
            state: from `build`.
            seed: int32 (2,), for the shuffles.

        Returns:
            The metrics of both, the policy's NaN where it was not its turn; and `nonfinite_step` of the policy, or else of the
            value.
        """
        is_value = {name: name in _OF_VALUE for name in objective.credited}
        value = objective.of(tuple(n for n in is_value if is_value[n]), state.value_variables)
        policy = objective.of(tuple(n for n in is_value if not is_value[n]), state.policy_variables)

        def move_value() -> Metrics:
            return self.value.apply(value, state.value, tf.add(seed, [0, 1]))

        def move_policy() -> Metrics:
            return self.policy.apply(policy, state.policy, seed)

        names = (*policy.metric_names, *self.metrics)
        if "q" in is_value:
            of_value = move_value()
            of_policy = self._in_turn(move_policy, names, state.turn)
        else:
            of_policy = self._in_turn(move_policy, names, state.turn)
            of_value = move_value()
        bad = of_policy["nonfinite_step"]
        bad = tf.where(bad >= 0, bad, of_value["nonfinite_step"])
        return {name: of_value[name] for name in value.metric_names} | of_policy | {"nonfinite_step": bad}

    def _in_turn(self, move: Callable[[], Metrics], names: Sequence[str], turn: keras.Variable | None) -> Metrics:
        """Move the policy if it is its turn. Return its metrics, NaN if it is not."""
        if turn is None:
            return move()
        turn.assign((turn.value + 1) % self.policy_every)

        def moved() -> Metrics:
            metrics = move()
            return {n: tf.cast(metrics[n], tf.float32) for n in names} | {"nonfinite_step": _step(metrics)}

        def waited() -> Metrics:
            return dict.fromkeys(names, tf.constant(math.nan)) | {"nonfinite_step": tf.constant(-1)}

        found: Metrics = tf.cond(tf.equal(turn.value, 0), moved, waited)
        return found


def _step(metrics: Metrics) -> tf.Tensor:
    return tf.cast(metrics["nonfinite_step"], tf.int32)


def _is_of_one_head(update: Any) -> bool:
    return isinstance(update, Update) and update.field_of("log_prob") is None


@dataclass(frozen=True)
class PerHeadState:
    """The states of both updates, what each of them moves, and how long the policy has waited for its turn."""

    policy: State
    policy_variables: list[keras.Variable]
    value: State
    value_variables: list[keras.Variable]
    turn: keras.Variable | None = None

    @property
    def slots(self) -> list[keras.Variable]:
        """Return what a checkpoint keeps: the slots of the policy, then of the value, then the turn."""
        turn = [] if self.turn is None else [self.turn]
        return [*self.policy.slots, *self.value.slots, *turn]

    def slots_from(self, arrays: Sequence[Any]) -> list[Any] | None:
        """Return the slots in a checkpoint of an earlier version, in the order of `slots`; `None` if it has others."""
        of_both, turn = (arrays, []) if self.turn is None else (arrays[:-1], [*arrays[-1:]])
        for count in range(len(of_both) + 1):
            of_policy = slots_in(self.policy, of_both[:count])
            of_value = slots_in(self.value, of_both[count:])
            if of_policy is not None and of_value is not None:
                return [*of_policy, *of_value, *turn]
        return None

    def renew(self) -> None:
        """Take the learning rates of the settings, in place of those that a checkpoint kept."""
        for state in (self.policy, self.value):
            if hasattr(state, "renew"):
                state.renew()
