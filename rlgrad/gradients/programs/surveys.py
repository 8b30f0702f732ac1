"""A survey finds the layers whose closed form holds for a question, by tracing the model once, on no numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.tensorflow_internals import trace_facts
from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.closed_forms.rule_table import look_up
from rlgrad.gradients.programs.cache import cache_of, find_or_make, survey_key
from rlgrad.gradients.programs.taps import RecordedCall, Recording, Tap, is_connected, record
from rlgrad.gradients.questions.question import Question

# A batch size that no layer has by accident: a tensor with this many rows has one row per sample.
PROBE_ROWS = 7919


@dataclass(frozen=True)
class Finding:
    """The result of a survey for one layer: T, or the reason why the layer's rule is not used."""

    positions: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Survey:
    """The result of a survey.

    Args:
        taps: the layers whose closed form holds.
        findings: a finding for each layer with a rule, by the layer's position in `all_layers`.
        rows: the number of rows that the model returns for each row of its input; `None`: not a whole number, or unknown.
    """

    taps: list[Tap]
    findings: Mapping[int, Finding]
    rows: int | None


def survey(question: Question) -> Survey:
    """Find the layers whose closed form holds for this question.

    Layers that run inside a loop, a branch or another function cannot be recorded. A layer whose first axis is not the
    batch (in a model that puts time first) does not have one row per sample.
    """
    wanted = {id(variable) for variable in question.weights.variables}
    coverages = look_up(question.model)
    candidates = {
        index: Tap(each.layer, each.rule, each.variables)
        for index, each in enumerate(coverages)
        if not isinstance(each.rule, str) and any(id(variable) in wanted for variable in each.variables.values())
    }
    if not candidates:
        return Survey([], {}, None)
    rules = [each.rule for each in coverages]
    cache = cache_of(question.model)
    key = survey_key(cache, question, rules)
    findings, rows = find_or_make(cache.surveys, key, lambda: _survey(question, candidates))
    return Survey([tap for index, tap in candidates.items() if findings[index].reason is None], findings, rows)


def rows_per_sample(returned: Any, count: int) -> int | None:
    """Return the number of rows for each sample, of what a model returned for `count` samples; see `Survey.rows`."""
    rows = next((y.shape[0] for y in tf.nest.flatten(returned) if tf.is_tensor(y) and y.shape.rank), None)
    return 1 if rows is None or rows == count else rows // count if rows % count == 0 else None


def _survey(question: Question, candidates: Mapping[int, Tap]) -> tuple[dict[int, Finding], int | None]:
    def nowhere(reason: str) -> tuple[dict[int, Finding], int | None]:
        return dict.fromkeys(candidates, Finding(reason=reason)), None

    if keras_internals.has_saved_loops(question.model):
        return nowhere("TensorFlow differentiates a saved loop in the model eagerly only")
    if any(spec.shape.rank is None for spec in question.signature):
        return nowhere("the input has an unknown number of axes")

    def traced(leaves: list[Any]) -> tuple[list[Any], tuple[dict[int, Finding], int | None]]:
        probe = replace(question, leaves=tuple(leaves), arrays={}, batched={}, sample_weight=None).with_probe_seed()
        try:
            returned, recording = record(probe, list(candidates.values()), probe.run_model)
        except Exception as error:  # the model raises it again on the route that is taken instead
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            return [], nowhere(f"the model does not run on a batch of another size: {line}")
        return [], (_findings(candidates, returned, recording), rows_per_sample(returned, PROBE_ROWS))

    specs = [tf.TensorSpec([PROBE_ROWS, *spec.shape[1:]], spec.dtype) for spec in question.signature]
    return trace_facts(traced, specs)[1]


def _findings(candidates: Mapping[int, Tap], returned: Any, recording: Recording) -> dict[int, Finding]:
    recorded = [call for call in recording.calls if all(map(tf.is_tensor, tf.nest.flatten(call.run.z)))]
    outputs = [y for y in tf.nest.flatten(returned) if tf.is_tensor(y) and y.dtype.is_floating]
    cotangents = recording.tape.gradient(outputs, [call.run.z for call in recorded]) if outputs and recorded else []
    by_call = dict(zip(map(id, recorded), cotangents, strict=True))
    findings = {}
    for index, tap in candidates.items():
        own = [(call, by_call.get(id(call))) for call in recording.calls if call.tap is tap]
        outside = [reason for other, reason in recording.elsewhere if other is tap]
        findings[index] = Finding(reason=outside[0]) if outside else _finding(own)
    return findings


def _finding(calls: Sequence[tuple[RecordedCall, Any]]) -> Finding:
    """Return the finding for one layer, from all its calls, each with its cotangent or `None`."""
    if not calls:
        return Finding(reason="it is not called")
    positions: int | None = 0
    for call, cotangent in calls:
        if not is_connected(cotangent):
            return Finding(reason="the output does not depend on it in a way that a tape can see")
        if not call.has_rows(PROBE_ROWS):
            return Finding(reason="the first axis of what goes in or out is not the batch")
        try:
            factors = call.factors(cotangent)
        except NotImplementedError as error:
            return Finding(reason=str(error))
        count = _checked_positions(call.tap, factors)
        positions = None if positions is None or count is None else positions + count
    return Finding(positions=positions)


def _checked_positions(tap: Tap, factors: Mapping[str, Factor]) -> int | None:
    """Return T, if it is known, and raise if the rule returned other factors than those of its variables."""
    rule, layer, known, most = tap.rule.rule, tap.layer, True, 0
    for name, variable in tap.variables.items():
        if name not in factors:
            raise ValueError(
                f"Rule {getattr(rule, '__name__', rule)!r} covers {name!r} of layer {layer.name!r} but returned only "
                f"{sorted(factors)}."
            )
        expected, got = (PROBE_ROWS, *variable.shape), factors[name].per_sample().shape
        if not got.is_compatible_with(expected):
            raise ValueError(
                f"Rule {getattr(rule, '__name__', rule)!r} must return gradients of shape (N, "
                f"{', '.join(map(str, variable.shape))}) for {name!r} of layer {layer.name!r}, got (N, "
                f"{', '.join(map(str, got[1:]))})."
            )
        count = factors[name].positions
        known, most = known and count is not None, max(most, count or 0)
    return most if known else None
