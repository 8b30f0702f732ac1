"""The plan of a question: the route that each layer's gradients take, the memory that it needs, and the reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.tensorflow_internals import trace_facts
from rlgrad.gradients.closed_forms.rule_table import rule_for
from rlgrad.gradients.programs.coupling import find_mixer
from rlgrad.gradients.programs.factorization import factorize
from rlgrad.gradients.programs.surveys import Finding, survey
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import Question

CLOSED_FORM, VECTORIZED, LOOPED, WHOLE = "closed form", "vectorized", "looped", "whole batch"


@dataclass(frozen=True)
class LayerPlan:
    """One layer's part of a plan.

    Args:
        layer: the layer's name; `""` for variables outside of all layers.
        weights: the keys of the layer's variables that f depends on.
        route: `"closed form"`, `"vectorized"`, `"looped"`, or `"whole batch"` for a model that only runs at its own batch
            size: a backward pass of the batch for each sample.
        positions: T, the number of times that one sample uses the weights; `None` if T is not known, or the route has none.
        factor_bytes: bytes that the closed form keeps for each sample; 0 without a closed form.
        gradient_bytes: bytes of the layer's gradients of one sample, written out.
        reason: why there is no closed form; `""` if there is one.
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
    """The way in which the per-sample functions answer a question; printing it shows a table.

    Args:
        rows: one per layer that has weights, in the order of `model.trainable_variables`.
        batch_size: N, if it is known.
        mixer: what mixes the samples, for which these functions refuse the question; `""` if nothing does.
    """

    rows: tuple[LayerPlan, ...]
    batch_size: int | None
    mixer: str = ""

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
        lines = [f"refused: {self.mixer} mixes the samples"] if self.mixer else []
        return "\n".join(
            lines + ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table]
        )


def plan(
    model: Any, x: Any, *, output: OutputLike = None, target: Any = None, layer: Any = None, weights: Any = None
) -> Plan:
    """Return the route that `per_sample_gradient`, `per_sample_norm`, `gram` and `linearize` take for each layer, and why.

    The model is traced, but not run (one row is, of a model that TensorFlow only differentiates eagerly).

    Args:
        model: see `gradient`.
        x: see `gradient`.
        output: see `gradient`.
        target: see `gradient`.
        layer: see `gradient`.
        weights: see `gradient`.

    Returns:
        A `Plan`; its `rows` are the table that printing it shows.

    Raises:
        As `per_sample_gradient`.

    Example:
        >>> print(plan(model, x))
    """
    question = ask(model, x, outputs=Output.of(output, target=target), layer=layer, weights=weights)

    def traced(asked: Question) -> tuple[list[Any], dict[int, _Route]]:
        factorization = factorize(asked, mixed=True)
        other = WHOLE if factorization.in_batch else VECTORIZED if factorization.vectorized else LOOPED
        return [], {
            i: _Route(other, None, 0)
            if i in factorization.free
            else _Route(CLOSED_FORM, factor.positions, sum(map(_bytes_per_row, factor.tensors)))
            for i, factor in factorization.factors.items()
        }

    if keras_internals.has_saved_loops(question.model) and tf.executing_eagerly():
        _, routes = traced(question.with_rows(lambda rows: rows[:1], batch_size=1))
    else:
        _, routes = trace_facts(partial(traced, question))
    return Plan(tuple(_rows(question, routes)), question.batch_size, find_mixer(question))


@dataclass(frozen=True)
class _Route:
    """One variable's part of a plan."""

    name: str
    positions: int | None
    factor_bytes: int


def _bytes_per_row(tensor: Any) -> int:
    return int((tensor.shape[1:].num_elements() or 0) * tensor.dtype.size)


def _rows(question: Question, routes: dict[int, _Route]) -> list[LayerPlan]:
    owners = _owners(question.model)
    findings = survey(question).findings
    grouped: dict[tuple[int, str], list[int]] = {}
    for i, route in routes.items():
        grouped.setdefault((owners.get(id(question.weights.variables[i]), -1), route.name), []).append(i)
    return [
        _row(question, findings, index, name, members, [routes[i] for i in members])
        for (index, name), members in grouped.items()
    ]


def _row(
    question: Question, findings: Mapping[int, Finding], index: int, name: str, members: list[int], routes: list[_Route]
) -> LayerPlan:
    variables = [question.weights.variables[i] for i in members]
    return LayerPlan(
        layer="" if index < 0 else keras_internals.all_layers(question.model)[index].name,
        weights=tuple(question.weights.keys[i] for i in members),
        route=name,
        positions=max((route.positions for route in routes if route.positions is not None), default=None),
        factor_bytes=sum(route.factor_bytes for route in routes),
        gradient_bytes=sum(prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables),
        reason="" if name == CLOSED_FORM else _reason(question, findings, index),
    )


def _reason(question: Question, findings: Mapping[int, Finding], index: int) -> str:
    if index < 0:
        return "a variable outside of all layers"
    layer = keras_internals.all_layers(question.model)[index]
    if index in findings and findings[index].reason is not None:
        return str(findings[index].reason)
    rule = rule_for(layer)
    return rule if isinstance(rule, str) else "its variables are also used outside of it"


def _owners(model: Any) -> dict[int, int]:
    """Return for each variable the position of the innermost layer that holds it."""
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
