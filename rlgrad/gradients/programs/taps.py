"""Taps record what goes into and comes out of layers that have a closed form, during one forward pass."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import tensorflow as tf

from rlgrad.core import keras_internals, snapshots
from rlgrad.gradients.closed_forms.factors import Factor, total
from rlgrad.gradients.closed_forms.rules import LayerCall, LayerRun, RegisteredRule
from rlgrad.gradients.questions.question import Question

R = TypeVar("R")
_ELSEWHERE = "it runs inside a loop, a branch or another compiled function (a recurrent layer: give it unroll=True)"


@dataclass(frozen=True)
class Tap:
    """A layer to be recorded, its rule, and the variables that the rule covers, by attribute name."""

    layer: Any
    rule: RegisteredRule
    variables: Mapping[str, Any]


@dataclass(frozen=True)
class RecordedCall:
    """One call of a tapped layer.

    Args:
        tap: the layer's.
        run: what went in and came out.
        values: the values of the variables, by attribute name.
        rerun: see `LayerCall`.
    """

    tap: Tap
    run: LayerRun
    values: Mapping[str, Any]
    rerun: Callable[[Mapping[str, Any]], Any]

    def has_rows(self, count: int) -> bool:
        """Return `True` if all tensors that went in and came out have so many rows."""
        tensors = tf.nest.flatten((self.run.inputs, self.run.z))
        return all(tf.is_tensor(x) and x.shape.rank and x.shape[0] == count for x in tensors)

    def factors(self, cotangent: Any) -> Mapping[str, Factor]:
        """Return the factors that the rule makes of this call, given ∂f/∂z."""
        dtype = tf.as_dtype(next(iter(self.tap.variables.values())).dtype)
        dtype = tf.float32 if dtype.size < tf.float32.size else dtype
        inputs, cotangent, values = tf.nest.map_structure(
            lambda x: tf.cast(x, dtype) if x.dtype.is_floating else x, (self.run.inputs, cotangent, dict(self.values))
        )
        return self.tap.rule.rule(LayerCall(self.tap.layer, inputs, cotangent, values, self.rerun))


@dataclass(frozen=True)
class Recording:
    """One recorded run of the model.

    Args:
        tape: recorded the run, persistent.
        sources: the question's, which the tape watched.
        calls: the calls of tapped layers.
        elsewhere: the taps of calls that could not be recorded, each with the reason.
    """

    tape: Any
    sources: list[Any]
    calls: list[RecordedCall] = field(default_factory=list)
    elsewhere: list[tuple[Tap, str]] = field(default_factory=list)

    def pull_back(self, value: Any, weight: Any) -> tuple[list[Any], tuple[int, ...]]:
        """Differentiate a value of this run with one backward pass.

        Returns:
            The cotangent of each call's z; and the positions of the variables that the value depends on elsewhere.
        """
        z = [call.run.z for call in self.calls]
        gradients = self.tape.gradient(value, [*z, *self.sources], output_gradients=weight)
        free = [i for i, gradient in enumerate(gradients[len(z) :]) if gradient is not None]
        return gradients[: len(z)], tuple(free)

    def factors(self, question: Question, cotangents: Sequence[Any], free: set[int]) -> dict[int, Factor]:
        """Return the factor of each variable that is not `free`, by position, given the cotangents of the calls' z."""
        position = {id(variable): i for i, variable in enumerate(question.weights.variables)}
        parts: dict[int, list[Factor]] = {}
        for call, cotangent in zip(self.calls, cotangents, strict=True):
            variables = {name: position.get(id(variable)) for name, variable in call.tap.variables.items()}
            if not is_connected(cotangent) or all(i is None or i in free for i in variables.values()):
                continue
            for name, factor in call.factors(cotangent).items():
                i = variables.get(name)
                if i is not None and i not in free:
                    parts.setdefault(i, []).append(factor)
        return {i: total(parts[i]) for i in sorted(parts)}


def record(question: Question, taps: Sequence[Tap], run: Callable[[], R]) -> tuple[R, Recording]:
    """Run the model while calls of the tapped layers are recorded; the tape sees their z in place of their variables.

    For this tape the variables that a rule covers are constants inside of their layer. So everything that it still
    connects to them is a use outside of any closed form, such as an embedding table that is also the output projection.

    Args:
        question: the question.
        taps: the layers to record.
        run: runs the model of this question.

    Returns:
        The result of `run`, and the recording.
    """
    own = question.weights.variables
    covered = list({id(variable): variable for tap in taps for variable in tap.variables.values()}.values())
    in_place, values = question.in_place, question.values_of([*own, *covered])
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        recording = Recording(tape, values[: len(own)])
        tape.watch(recording.sources)
        with tape.stop_recording():  # other tapes, such as a caller's, keep recording
            constants = {id(v): tf.identity(value) for v, value in zip(covered, values[len(own) :], strict=True)}
        replacements = [(tap.layer, _replacement(recording, tap, in_place, constants)) for tap in taps]
        with snapshots.held(question.model), keras_internals.replaced_calls(replacements):
            result = run()
    return result, recording


def _replacement(
    recording: Recording, tap: Tap, in_place: list[tuple[Any, Any]], constants: Mapping[int, Any]
) -> Callable[..., Any]:
    """Return a function that runs a layer in place of its own call, and records that."""
    home = current_graph()
    values = {name: constants[id(variable)] for name, variable in tap.variables.items()}
    # A rerun comes after the run, whose scope is then closed, so all values are given again.
    mapping = [*in_place, *((variable, values[name]) for name, variable in tap.variables.items())]

    def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def run(place: list[tuple[Any, Any]], watch: Callable[[Any], None]) -> LayerRun:
            with keras_internals.values_in_place(place):
                return tap.rule.run(tap.layer, original, watch, *args, **kwargs)

        def rerun(others: Mapping[str, Any]) -> Any:
            changed = [(tap.variables[name], value) for name, value in others.items()]
            return run([*mapping, *changed], lambda z: None).z

        if current_graph() is not home:
            # Inside a loop, a branch, or a user's compiled function, a trace may be kept and used again.
            recording.elsewhere.append((tap, _ELSEWHERE))
            return original(*args, **kwargs)
        try:
            recorded = run(mapping, recording.tape.watch)
        except NotImplementedError as error:
            recording.elsewhere.append((tap, str(error)))
            return original(*args, **kwargs)
        recording.calls.append(RecordedCall(tap, recorded, values, rerun))
        return recorded.assemble(*recorded.outputs)

    return call


def is_connected(cotangent: Any) -> bool:
    """Return `True` if f depends on a call whose z have this cotangent."""
    return all(part is not None for part in tf.nest.flatten(cotangent))


def current_graph() -> Any:
    """Return the graph that is being traced; `None` when executing eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


@contextlib.contextmanager
def replay(calls: Sequence[RecordedCall], kept: Mapping[int, tuple[Any, ...]]) -> Iterator[None]:
    """While this context is open, the model takes the outputs of some recorded calls, by number, from `kept`."""
    numbers: dict[int, list[int]] = {}
    for number, call in enumerate(calls):
        numbers.setdefault(id(call.tap.layer), []).append(number)

    def replacement(own: Iterator[int]) -> Callable[..., Any]:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            number = next(own)
            return calls[number].run.assemble(*kept[number]) if number in kept else original(*args, **kwargs)

        return call

    replacements = [(calls[own[0]].tap.layer, replacement(iter(own))) for own in numbers.values()]
    with keras_internals.replaced_calls(replacements):
        yield
