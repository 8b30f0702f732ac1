"""Calls that reach the environments of a run: in training, in its evaluations, and in a process that resumes it."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from rlgrad.rollouts.base import Collector


class EnvCall(NamedTuple):
    """One call of a method, or an attribute that is set, of every environment.

    Attributes:
        name: of the method or attribute.
        arguments: of the method; of an attribute its value alone.
        options: keyword arguments of the method.
        sets: True for an attribute.
    """

    name: str
    arguments: list[Any]
    options: dict[str, Any]
    sets: bool = False


class EnvCalls:
    """The calls of a run so far, in their order. Environments that are made later get them all.

    Args:
        collector: of the run, whose environments they reach.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self.made: list[EnvCall] = []

    def make(self, call: EnvCall) -> list[Any]:
        """Make a call in every environment, and return the result of each.

        Raises:
            TypeError: an argument is none that a checkpoint can hold.
            ValueError: the environments cannot be called, or have no such method or attribute.
        """
        try:
            kept = EnvCall(*json.loads(json.dumps(call, allow_nan=False)))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{call.name}: arguments for environments are numbers, texts, lists and dicts of them, which a checkpoint "
                f"keeps for a resumed run; got {call.arguments} {call.options or ''}."
            ) from error
        results = apply([kept], self._collector)
        self.made = [*(each for each in self.made if not (kept.sets and each[::3] == kept[::3])), kept]
        return results[0]

    def state(self) -> list[Any]:
        """Return what a checkpoint keeps."""
        return [list(call) for call in self.made]

    def restore(self, state: Sequence[Any]) -> None:
        """Make the calls of a checkpoint again, in environments that had none."""
        self.made = [EnvCall(*call) for call in state]
        apply(self.made, self._collector)


def apply(calls: Sequence[EnvCall], collector: Collector) -> list[list[Any]]:
    """Make calls in every environment of a collector. Return the results of each environment for each call."""
    if not calls:
        return []
    if not hasattr(collector, "call_envs"):
        compiled = collector.vectorization_mode == "compiled"
        what = (
            "an environment written in TensorFlow is compiled with the values that it had: let its state hold what changes"
            if compiled
            else f"the collector {type(collector).__name__} has no method call_envs(name, arguments, options, sets)"
        )
        raise ValueError(f"{calls[0].name!r} cannot reach the environments: {what}.")
    return [collector.call_envs(*call) for call in calls]
