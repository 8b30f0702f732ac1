"""Recording what goes into and comes out of the layers that have closed forms, during one forward pass."""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.tensorflow_internals import trace
from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.closed_forms.registry import covered, rule_for
from rlgrad.gradients.closed_forms.rules import LayerCall, Ran, Registered
from rlgrad.gradients.questions.problem import Problem

# A batch size that no layer has by accident: what has this many rows when the model is surveyed has one row per sample.
_PROBE_ROWS = 7919
_ELSEWHERE = "it runs inside a loop, a branch or another compiled function (a recurrent layer: give it unroll=True)"


@dataclass(frozen=True)
class Tap:
    """A layer to be recorded, its rule, and the variables that the rule covers, by attribute name."""

    layer: Any
    registered: Registered
    variables: Mapping[str, Any]


@dataclass(frozen=True)
class Recorded:
    """One call of a tapped layer: how it ran, and z (or several), on which its variables act directly."""

    tap: Tap
    ran: Ran
    z: Any
    values: Mapping[str, Any]
    rerun: Callable[[Mapping[str, Any]], Any]

    def factors(self, cotangent: Any) -> Mapping[str, Factor]:
        """What the rule makes of it, given ∂f/∂z."""
        dtype = tf.as_dtype(next(iter(self.tap.variables.values())).dtype)
        dtype = tf.float32 if dtype.size < tf.float32.size else dtype
        inputs, cotangent, values = tf.nest.map_structure(
            lambda x: tf.cast(x, dtype) if x.dtype.is_floating else x, (self.ran.inputs, cotangent, dict(self.values))
        )
        return self.tap.registered.rule(LayerCall(self.tap.layer, inputs, cotangent, values, self.rerun))


@dataclass(frozen=True)
class Finding:
    """What a survey says about one layer with a rule: T, or why the rule is not used."""

    positions: int | None = None
    reason: str | None = None


@contextlib.contextmanager
def recording(
    problem: Problem, tape: Any, taps: Sequence[Tap], elsewhere: list[tuple[Tap, str]]
) -> Iterator[list[Recorded]]:
    """While this context is open, calls of the tapped layers are recorded, and the tape sees z in place of variables.

    For this tape the variables that a rule covers are constants inside of their layer. So what it still connects to
    them are uses outside of any closed form, such as an embedding table that is also the output projection.

    Args:
        problem: the question.
        tape: watches its sources.
        taps: the layers to record.
        elsewhere: gets the layers that ran where, or as, they cannot be recorded, and why.
    """
    calls: list[Recorded] = []
    home = _graph()
    constants: dict[int, Any] = {}

    def constant(variable: Any) -> Any:
        if id(variable) not in constants:
            with tape.stop_recording():  # other tapes, also a caller's, go on
                constants[id(variable)] = tf.identity(problem.current(variable))
        return constants[id(variable)]

    def replacement(tap: Tap, values: Mapping[str, Any]) -> Callable[..., Any]:
        mapping = [*problem.in_place, *((variable, values[name]) for name, variable in tap.variables.items())]

        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            def run(place: Sequence[tuple[Any, Any]], watch: Callable[[Any], None]) -> tuple[Ran, Any]:
                z: list[Any] = []

                def found(part: Any) -> None:
                    watch(part)
                    z.append(part)

                with keras_internals.values_in_place(place):
                    ran = tap.registered.run(tap.layer, original, found, *args, **kwargs)
                return ran, z[0] if len(z) == 1 else tuple(z)

            def rerun(others: Mapping[str, Any]) -> Any:
                changed = [(tap.variables[name], value) for name, value in others.items()]
                return run([*mapping, *changed], lambda part: None)[1]

            if _graph() is not home:
                # A loop, a branch, or a function that the user compiled: what is traced here may be kept and used again.
                elsewhere.append((tap, _ELSEWHERE))
                return original(*args, **kwargs)
            try:
                ran, z = run(mapping, tape.watch)
            except NotImplementedError as error:
                elsewhere.append((tap, str(error)))
                return original(*args, **kwargs)
            calls.append(Recorded(tap, ran, z, values, rerun))
            return ran.returns(*ran.said)

        return call

    with contextlib.ExitStack() as stack:
        for tap in taps:
            values = {name: constant(variable) for name, variable in tap.variables.items()}
            stack.enter_context(keras_internals.replaced_call(tap.layer, replacement(tap, values)))
        yield calls


def felt(cotangent: Any) -> bool:
    """Whether f depends on a call with this cotangent of its z."""
    return all(part is not None for part in tf.nest.flatten(cotangent))


def _graph() -> Any:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


@contextlib.contextmanager
def replaying(calls: Sequence[Recorded], keep: Mapping[int, tuple[Any, ...]]) -> Iterator[None]:
    """Runs of the model in this context take what recorded calls said from `keep` (by number), and compute the others."""
    numbers: dict[int, list[int]] = {}
    for number, call in enumerate(calls):
        numbers.setdefault(id(call.tap.layer), []).append(number)

    def replacement(own: Iterator[int]) -> Callable[..., Any]:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            number = next(own)
            return calls[number].ran.returns(*keep[number]) if number in keep else original(*args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for layer_id, own in numbers.items():
            layer = next(call.tap.layer for call in calls if id(call.tap.layer) == layer_id)
            stack.enter_context(keras_internals.replaced_call(layer, replacement(iter(own))))
        yield


def taps_of(problem: Problem) -> tuple[list[Tap], dict[int, Finding]]:
    """The layers whose closed form holds for this question, and what was found about each layer with a rule.

    Found by tracing the model once, on no numbers: layers that run inside a loop, a branch or another function cannot be
    recorded, and those whose first axis is not the batch (a model that puts time first) do not have one row per sample.

    Returns:
        The taps; and findings by the layer's position in `all_layers`.
    """
    candidates = {index: tap for index, tap in enumerate(_candidates(problem)) if tap is not None}
    if not candidates:
        return [], {}
    findings = _known(problem)
    if findings is None:
        findings = _survey(problem, candidates)
        _remember(problem, findings)
    return [tap for index, tap in candidates.items() if findings[index].reason is None], findings


def _candidates(problem: Problem) -> list[Tap | None]:
    wanted = {id(variable) for variable in problem.weights.variables}
    found: list[Tap | None] = []
    for layer in keras_internals.all_layers(problem.model):
        registered = rule_for(layer)
        variables = {} if isinstance(registered, str) else covered(layer, registered)
        if isinstance(registered, str) or not any(id(variable) in wanted for variable in variables.values()):
            found.append(None)
        else:
            found.append(Tap(layer, registered, variables))
    return found


def _survey(problem: Problem, candidates: Mapping[int, Tap]) -> dict[int, Finding]:
    findings: dict[int, Finding] = {}
    if any(spec.shape.rank is None for spec in problem.signature):
        return dict.fromkeys(candidates, Finding(reason="the input has an unknown number of axes"))
    specs = [tf.TensorSpec([_PROBE_ROWS, *spec.shape[1:]], spec.dtype) for spec in problem.signature]

    def traced(leaves: list[Any]) -> None:
        probe = replace(problem, leaves=tuple(leaves), arrays={}, batched={}, sample_weight=None)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(probe.sources)
            elsewhere: list[tuple[Tap, str]] = []
            try:
                with recording(probe, tape, list(candidates.values()), elsewhere) as calls:
                    returned = probe.returned()
            except Exception as error:  # the model raises it again on the way that is taken instead
                line = (str(error).strip() or type(error).__name__).splitlines()[0]
                reason = f"the model does not run on a batch of another size: {line}"
                findings.update(dict.fromkeys(candidates, Finding(reason=reason)))
                return
        recorded = [call for call in calls if all(map(tf.is_tensor, tf.nest.flatten(call.z)))]
        outputs = [y for y in tf.nest.flatten(returned) if tf.is_tensor(y) and y.dtype.is_floating]
        cotangents = tape.gradient(outputs, [call.z for call in recorded]) if outputs and recorded else []
        found = dict(zip(map(id, recorded), cotangents, strict=True))
        for index, tap in candidates.items():
            own = [(call, found.get(id(call))) for call in calls if call.tap is tap]
            outside = [reason for other, reason in elsewhere if other is tap]
            findings[index] = Finding(reason=outside[0]) if outside else _finding(own)

    trace(traced, specs)
    return findings


def _finding(calls: Sequence[tuple[Recorded, Any]]) -> Finding:
    """Of all calls of one layer, each with its cotangent, with `None` where nothing depends on it."""
    if not calls:
        return Finding(reason="it is not called")
    positions: int | None = 0
    for call, cotangent in calls:
        if not felt(cotangent):
            return Finding(reason="the output does not depend on it in a way that a tape can see")
        tensors = tf.nest.flatten((call.ran.inputs, call.z))
        if any(not tf.is_tensor(x) or not x.shape.rank or x.shape[0] != _PROBE_ROWS for x in tensors):
            return Finding(reason="the first axis of what goes in or out is not the batch")
        try:
            factors = call.factors(cotangent)
        except NotImplementedError as error:
            return Finding(reason=str(error))
        _require_factors(call, factors)
        counts = [factor.positions for factor in factors.values()]
        positions = None if positions is None or None in counts else positions + max(c for c in counts if c is not None)
    return Finding(positions=positions)


def _require_factors(call: Recorded, factors: Mapping[str, Factor]) -> None:
    rule, layer = call.tap.registered.rule, call.tap.layer
    for name, variable in call.tap.variables.items():
        if name not in factors:
            raise ValueError(
                f"Rule {getattr(rule, '__name__', rule)!r} covers {name!r} of layer {layer.name!r} but returned only "
                f"{sorted(factors)}."
            )
        expected, got = (_PROBE_ROWS, *variable.shape), factors[name].per_sample().shape
        if not got.is_compatible_with(expected):
            raise ValueError(
                f"Rule {getattr(rule, '__name__', rule)!r} must return gradients of shape (N, "
                f"{', '.join(map(str, variable.shape))}) for {name!r} of layer {layer.name!r}, got (N, "
                f"{', '.join(map(str, got[1:]))})."
            )


# By model, so that asking about a model again does not trace it again.
_SURVEYS: "weakref.WeakKeyDictionary[Any, dict[Any, dict[int, Finding]]]" = weakref.WeakKeyDictionary()


def _survey_key(problem: Problem) -> Any:
    rules = tuple(map(rule_for, keras_internals.all_layers(problem.model)))
    named = frozenset(id(variable) for variable in problem.weights.variables)
    return rules, problem.signature, repr(problem.structure), id(problem.layer), named


def _known(problem: Problem) -> dict[int, Finding] | None:
    return _SURVEYS.setdefault(problem.model, {}).get(_survey_key(problem))


def _remember(problem: Problem, findings: dict[int, Finding]) -> None:
    _SURVEYS[problem.model][_survey_key(problem)] = findings
