"""The contract between agent and learner: methods are tried on abstract tensors, and what they return is checked."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from rlgrad.agent import Agent
from rlgrad.core.checks import close_names
from rlgrad.core.tensorflow_internals import trace
from rlgrad.data import Batch, Estimates, Outputs

OUTPUTS = ("log_prob", "entropy", "value")  # of every policy; the value only where something estimates it


def batch_signature(observation_spec: Any, action_spec: tf.TensorSpec) -> Batch:
    """Specs of a batch with these observations and actions, M unknown."""
    specs: dict[str, Any] = dict.fromkeys(Batch._fields, tf.TensorSpec((None,), tf.float32))
    specs |= {"observations": observation_spec, "actions": action_spec, "progress": tf.TensorSpec((), tf.float32)}
    return Batch(**specs)


def checked_credit(agent: Agent, credit: Any, like: tf.Tensor) -> dict[str, tf.Tensor]:
    """What `Agent.credit` returned, as tensors of the shape of one number for each row, or of one for all.

    Args:
        agent: for messages.
        credit: what it returned.
        like: float (M,), whose shape and dtype a credit has.

    Raises:
        ValueError: something else than a mapping of such numbers. Shapes and dtypes are known before anything runs.
    """
    name = type(agent).__name__
    if not isinstance(credit, Mapping) or not credit:
        raise ValueError(f'{name}.credit returns a dict such as {{"log_prob": batch.advantages}}, got {credit!r}.')
    return {key: _checked_numbers(f"{name}.credit[{key!r}]", c, like, or_one=True) for key, c in credit.items()}


def checked_estimates(agent: Agent, estimates: Any, like: tf.Tensor) -> Estimates:
    """What `Agent.estimate` returned, each of the shape of `like`, float (T, N).

    Raises:
        ValueError: something else than `Estimates` of such numbers.
    """
    name = f"{type(agent).__name__}.estimate"
    if not isinstance(estimates, Estimates):
        raise ValueError(f"{name} returns rlgrad.Estimates(returns, advantages, td_errors), got {estimates!r}.")
    pairs = estimates._asdict().items()
    return Estimates(**{key: _checked_numbers(f"{name}'s {key}", x, like, or_one=False) for key, x in pairs})


def _checked_numbers(what: str, x: Any, like: tf.Tensor, or_one: bool) -> tf.Tensor:
    try:
        x = x if tf.is_tensor(x) else tf.convert_to_tensor(x, like.dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} is no number and no tensor of numbers: got {x!r}.") from error
    if x.dtype != like.dtype:
        raise ValueError(f"{what} is {x.dtype.name} where {like.dtype.name} is expected: use tf.cast(…, tf.float32).")
    if not (x.shape.is_compatible_with(like.shape) or (or_one and x.shape.rank == 0)):
        rows = "one number for each row" + (", or one for all" if or_one else "")
        raise ValueError(f"{what} has the shape {x.shape} where {like.shape} is expected: {rows}.")
    return x


class DryRun(NamedTuple):
    """What an agent turned out to do.

    Attributes:
        known: the outputs there are.
        credited: those whose gradients count, in the order of `known`.
        measured: names of what the agent measures.
    """

    known: tuple[str, ...]
    credited: tuple[str, ...]
    measured: tuple[str, ...]


def dry_run(agent: Agent, signature: Batch, *, value: bool = True) -> DryRun:
    """The outputs that an agent credits, found by a dry run of its methods on abstract tensors.

    Args:
        agent: the agent.
        signature: a batch of `tf.TensorSpec`.
        value: whether there is, or can be, a value.

    Raises:
        ValueError: `credit` reads an attribute or credits an output that does not exist, branches on a tensor, or returns
            something else than a mapping of numbers; or an output of the agent's own has a name that is taken.
    """
    name = type(agent).__name__
    own = OUTPUTS if value else OUTPUTS[:-1]
    taken = next((key for key in agent.outputs if key in OUTPUTS), None)
    if taken is not None:
        raise ValueError(f"{name}.outputs has {taken!r}, which every policy has already: choose another name.")
    known = (*own, *agent.outputs)

    def traced(method: str) -> Any:
        def on(batch: Batch) -> Any:
            given = getattr(agent, method)(batch, Outputs(**dict.fromkeys(known, batch.log_probs)))
            return checked_credit(agent, given, batch.log_probs) if method == "credit" else given

        try:
            return trace(on, signature).structured_outputs
        except AttributeError as error:
            raise ValueError(f"{name}.{method}: {error}") from error
        except tf.errors.OperatorNotAllowedInGraphError as error:
            raise ValueError(
                f"{name}.{method} is traced once and compiled, so Python's `if`, `and`, `or`, `not` and `while` cannot "
                "look at a tensor's numbers: write tf.where(condition, a, b), tf.maximum, or &, | and ~ instead."
            ) from error

    credit = traced("credit")
    for key in credit:
        if key not in known:
            raise ValueError(f"{name}.credit credits an output {key!r} that does not exist. {close_names(key, known)}")
    measured = traced("measure")
    if not isinstance(measured, Mapping):
        raise ValueError(f'{name}.measure returns a dict such as {{"ratio": ratio}}, got {measured!r}.')
    return DryRun(known, tuple(output for output in known if output in credit), tuple(measured))
