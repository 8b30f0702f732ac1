"""Steps without an optimizer: constraints are honoured, and nothing moves that is not finite."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from rlgrad.updates.base import NoSlots


def policy_state(
    update: str, variables: Sequence[keras.Variable], by_output: Mapping[str, Sequence[keras.Variable]]
) -> NoSlots:
    """Return the state of an update that measures a step by how far the policy moves.

    Args:
        update: the name of its class, for messages.
        variables: what is to move.
        by_output: for each credited output, the variables that it depends on.

    Raises:
        ValueError: a variable does not move the policy, or is not float32.
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
            f"{update} moves the weights that log π depends on, and is to move {', '.join(others) or 'none of them'}: "
            "credit log_prob, and leave outputs with weights of their own to another update."
        )
    wide = next((v for v in variables if v.dtype != "float32"), None)
    if wide is not None:
        raise ValueError(
            f"{update} solves for its step in float32, and {wide.path} is {wide.dtype}: give a model with weights in float32, "
            "mixed_float16 included, or train it with Ascent."
        )
    return NoSlots(list(variables))


def values_after(variables: Sequence[keras.Variable], steps: Iterable[tf.Tensor], scale: Any) -> list[tf.Tensor]:
    """Return the variables' values after a step θ + scale · step, constraints honoured. The variables keep their own."""
    values = []
    for variable, step in zip(variables, steps, strict=True):
        value = tf.convert_to_tensor(variable.value) + tf.cast(scale, step.dtype) * step
        constraint = getattr(variable, "constraint", None)
        values.append(value if constraint is None else constraint(value))
    return values


def assign_if(condition: Any, variables: Sequence[keras.Variable], values: Sequence[tf.Tensor]) -> None:
    """Assign the values to the variables if the condition, bool (), holds."""

    def take() -> tf.Tensor:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return tf.constant(True)

    tf.cond(condition, take, lambda: tf.constant(False))


def all_finite(tensors: Iterable[tf.Tensor]) -> tf.Tensor:
    """Return True, bool (), if every number of every tensor is finite."""
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(x)) for x in tensors])
