"""Moving weights by hand, without an optimizer: constraints are honoured, and nothing moves that is not finite."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf


@dataclass(frozen=True)
class NoSlots:
    """The state of an update that remembers nothing from one rollout to the next: the variables that it moves."""

    variables: list[keras.Variable]

    @property
    def slots(self) -> list[keras.Variable]:
        """What a checkpoint keeps: nothing."""
        return []


def of_the_policy(
    update: str, variables: Sequence[keras.Variable], by_output: Mapping[str, Sequence[keras.Variable]]
) -> NoSlots:
    """The state of an update whose distance is one between policies, so that every variable must be the policy's.

    Raises:
        ValueError: another output's weights are to move too.
    """
    if "value" in by_output:
        raise ValueError(
            f"{update} measures a step by how far the policy moves, which says nothing about a value: give the value an "
            f"update and weights of its own, PerHead(policy={update}(), value=Ascent())."
        )
    mine = {id(v) for v in by_output.get("log_prob", ())}
    others = [v.path for v in variables if id(v) not in mine]
    if others or not mine:
        raise ValueError(
            f"{update} moves the weights that log π depends on, and is asked to move {', '.join(others) or 'none of them'}: "
            "credit log_prob, and leave outputs with weights of their own to another update."
        )
    return NoSlots(list(variables))


def stepped(variables: Sequence[keras.Variable], steps: Iterable[tf.Tensor], scale: Any) -> list[tf.Tensor]:
    """The values that the variables have after a step, their constraints honoured; the variables keep their own."""
    values = []
    for variable, step in zip(variables, steps, strict=True):
        value = tf.convert_to_tensor(variable.value) + tf.cast(scale, step.dtype) * step
        constraint = getattr(variable, "constraint", None)
        values.append(value if constraint is None else constraint(value))
    return values


def assign_if(condition: Any, variables: Sequence[keras.Variable], values: Sequence[tf.Tensor]) -> None:
    """Give the variables these values where the condition holds."""

    def take() -> tf.Tensor:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return tf.constant(True)

    tf.cond(condition, take, lambda: tf.constant(False))


def all_finite(tensors: Iterable[tf.Tensor]) -> tf.Tensor:
    """Whether every number is finite, ()."""
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(x)) for x in tensors])
