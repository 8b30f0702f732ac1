"""Which route each layer's gradients take, how much memory that needs, and why."""

from dataclasses import dataclass
from math import prod
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.tensorflow_internals import trace
from rlgrad.gradients.closed_forms.registry import rule_for
from rlgrad.gradients.programs.capture import capture_factors
from rlgrad.gradients.programs.taps import taps_of
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.posing import pose
from rlgrad.gradients.questions.problem import SINGLE, Notes, Problem

CLOSED_FORM, VECTORIZED, LOOPED = "closed form", "vectorized", "looped"


@dataclass(frozen=True)
class Row:
    """One layer's part of a plan.

    Args:
        layer: the layer's name; `""` for variables outside of all layers.
        weights: the keys of its variables that f depends on.
        route: `"closed form"`, `"vectorized"` or `"looped"`.
        positions: T, how often one sample uses the weights; `None` where that is not known, or the route has no T.
        factor_bytes: what the closed form keeps for each sample; 0 without one.
        gradient_bytes: the layer's gradients of one sample, written out.
        reason: why there is no closed form; `""` where there is.
    """

    layer: str
    weights: tuple[str, ...]
    route: str
    positions: int | None
    factor_bytes: int
    gradient_bytes: int
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """How the per-sample functions answer a question; `print` it.

    Args:
        rows: one per layer that has weights, in the order of `model.trainable_variables`.
        batch_size: N, where it is known.
    """

    rows: tuple[Row, ...]
    batch_size: int | None

    def __str__(self) -> str:
        n = self.batch_size or 1
        per = f"bytes for {n} samples" if self.batch_size else "bytes per sample"
        table = [("layer", "route", "T", "factors", "written out", "why")]
        for row in self.rows:
            positions = "" if row.positions is None else str(row.positions)
            factors = _size(n * row.factor_bytes) if row.factor_bytes else ""
            table.append((row.layer, row.route, positions, factors, _size(n * row.gradient_bytes), row.reason))
        total = (sum(row.factor_bytes for row in self.rows), sum(row.gradient_bytes for row in self.rows))
        table.append(("total", "", "", _size(n * total[0]), _size(n * total[1]), f"({per})"))
        widths = [max(len(line[k]) for line in table) for k in range(6)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table)


def plan(model: Any, x: Any, *, output: OutputLike = None, layer: Any = None, weights: Any = None) -> Plan:
    """Which route `per_sample_gradient`, `per_sample_norm`, `gram` and `linearize` take for each layer, and why.

    The model is traced, on no numbers.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        output: see `gradient`.
        layer: see `gradient`.
        weights: see `gradient`.

    Returns:
        A `Plan`; its `rows` hold what printing it shows.

    Raises:
        As `per_sample_gradient`.

    Example:
        >>> print(plan(model, x))
    """
    problem = pose(model, x, outputs={SINGLE: Output.of(output)}, layer=layer, weights=weights)
    found: dict[int, tuple[str, int | None, int]] = {}

    def traced() -> None:
        notes = Notes()
        captured = capture_factors(problem, notes)
        free = set(notes.free)
        other = VECTORIZED if notes.vectorized else LOOPED
        for i, factor in captured.factors.items():
            size = sum((t.shape[1:].num_elements() or 0) * t.dtype.size for t in factor.tensors)
            found[i] = (other, None, 0) if i in free else (CLOSED_FORM, factor.positions, size)

    trace(traced)
    return Plan(tuple(_rows(problem, found)), problem.batch_size)


def _rows(problem: Problem, found: dict[int, tuple[str, int | None, int]]) -> list[Row]:
    owners = _owners(problem.model)
    _, findings = taps_of(problem)
    grouped: dict[tuple[int, str], list[int]] = {}
    for i, (route, _, _) in found.items():
        grouped.setdefault((owners.get(id(problem.weights.variables[i]), -1), route), []).append(i)
    return [_row(problem, found, findings, index, route, members) for (index, route), members in grouped.items()]


def _row(problem: Problem, found: Any, findings: Any, index: int, route: str, members: list[int]) -> Row:
    reason = "" if route == CLOSED_FORM else _reason(problem, findings, index)
    counts = [found[i][1] for i in members if found[i][1] is not None]
    variables = [problem.weights.variables[i] for i in members]
    return Row(
        layer="" if index < 0 else keras_internals.all_layers(problem.model)[index].name,
        weights=tuple(problem.weights.keys[i] for i in members),
        route=route,
        positions=max(counts) if counts else None,
        factor_bytes=sum(found[i][2] for i in members),
        gradient_bytes=sum(prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables),
        reason=reason,
    )


def _reason(problem: Problem, findings: Any, index: int) -> str:
    if index < 0:
        return "a variable outside of all layers"
    layer = keras_internals.all_layers(problem.model)[index]
    if index in findings and findings[index].reason is not None:
        return str(findings[index].reason)
    rule = rule_for(layer)
    return rule if isinstance(rule, str) else "its variables are also used outside of it"


def _owners(model: Any) -> dict[int, int]:
    """For each variable the position of the innermost layer that holds it."""
    owners: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for index, layer in enumerate(keras_internals.all_layers(model)):
        for variable in layer.variables:
            if len(layer.variables) <= sizes.get(id(variable), 10**9):
                owners[id(variable)], sizes[id(variable)] = index, len(layer.variables)
    return owners


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
