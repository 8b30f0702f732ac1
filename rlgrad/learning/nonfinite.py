"""The report on a step that was not finite: which output, which variables, and where in the rollout. Computed without XLA."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from rlgrad.data import Rollout
from rlgrad.learning.objective import PolicyObjective

_ESTIMATES = ("returns", "advantages", "td_errors", "values", "log_probs")  # of a batch, that a credit is made of


class NonFiniteError(FloatingPointError):
    """A gradient was not a finite number. The step was not taken: the weights are the last good ones."""


def explain(
    objective: PolicyObjective,
    by_output: Mapping[str, Sequence[keras.Variable]],
    rollout: Rollout | None,
    num_envs: int,
    step: int,
) -> str:
    """Return the message of a `NonFiniteError`.

    Args:
        objective: of the whole rollout, at the weights before the step; its batch holds eager tensors.
        by_output: for each credited output, the variables that it depends on.
        rollout: that the batch was made of; `None`: a replay drew it.
        num_envs: slots that the rollout was played in.
        step: of the update, counted from 0.
    """
    _, now, credits = objective.credited_outputs()
    causes = {}
    for name, credit in credits.items():
        counts = objective.batch.weights > 0.0
        counts = tf.reshape(counts, [*counts.shape, *[1] * (credit.shape.rank - counts.shape.rank)])
        output = tf.where(counts, getattr(now, name), 0.0)
        suspects = {"the output itself": output, "its credit": credit}
        bad = [
            f"{noun}, {_place(x, objective, rollout, num_envs)}" for noun, x in suspects.items() if not _is_finite(x)
        ]
        paths = _bad_variables(objective.of((name,), by_output[name]), name, credit)
        if bad or paths:
            causes[name] = f"{name} ({'; '.join(filter(None, [*bad[:1], ', '.join(paths)]))})"
    where = "; ".join(causes.values()) or "no single output on the whole rollout: the step itself overflows"
    # If the value alone is not finite, the step was one of the value's own update, where it has one.
    output = "value" if list(causes) == ["value"] else "log_prob"
    place = objective.agent.update.part(output).locate(step, objective.batch.weights.shape[0])
    when = f"step {step} of this update" + (f" ({place})" if place else "")
    return (
        f"The gradient is not finite at {when}, through: {where}. The step was not taken; the weights are the last good "
        "ones. Look at the rewards' size, lower the learning rate, or set max_grad_norm."
    )


def _bad_variables(objective: PolicyObjective, name: str, credit: tf.Tensor) -> list[str]:
    """Return the paths of the objective's variables for which the gradient of one output is not finite."""
    if not objective.variables:
        return []
    gradient = objective.linearize().gradient({name: credit})
    return [path for path, g in gradient.items() if not _is_finite(g)]


def _place(x: tf.Tensor, objective: PolicyObjective, rollout: Rollout | None, num_envs: int) -> str:
    """Return the first number of a batch that is not finite, with its slot, its step and the estimates that are not either."""
    batch = objective.batch
    if rollout is None:
        place = int(tf.where(~tf.math.is_finite(x))[0][0])
        number = float(tf.reduce_sum(x[place]))  # of several, the sum is not finite either
        return f"{number} in row {place} of the batch" + _because(
            [name for name in _stored(batch) if not _is_finite(getattr(batch, name)[place])]
        )
    steps, columns = rollout.mask.shape
    # A policy with memory has rows in another order than a rollout.
    numbers = objective.policy.rows(tf.reshape(tf.range(steps * columns), (steps, columns)))
    at = tuple(tf.where(~tf.math.is_finite(x))[0].numpy())
    row, number = at[: batch.weights.shape.rank], x[at]
    step, column = divmod(int(numbers[row]), columns)
    too = [name for name in _ESTIMATES if not _is_finite(getattr(batch, name)[row])]
    return f"{float(number)} in slot {column // (columns // num_envs)} at step {step}" + _because(too)


def _stored(batch: Any) -> tuple[str, ...]:
    """Return the names of what a replay's batch holds. Of recorded steps the log-probabilities are not known: all are NaN."""
    recorded = bool(tf.reduce_all(tf.math.is_nan(batch.log_probs)))
    return ("rewards",) if recorded else ("rewards", "log_probs")


def _because(names: Sequence[str]) -> str:
    return f", where {', '.join(names)} of the batch {'are' if names[1:] else 'is'} not finite" if names else ""


def _is_finite(x: tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(x)))
