"""The factors of a linearization's outputs: found when first asked for, then reused by whatever else is asked."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.closed_forms.segments import Segmented, prepared
from rlgrad.gradients.fisher import Parameters, parameters_of
from rlgrad.gradients.programs import compiled
from rlgrad.gradients.programs.backward import tangents_for
from rlgrad.gradients.programs.capture import Captured, capture_factors
from rlgrad.gradients.questions.inputs import numbers
from rlgrad.gradients.questions.problem import Notes, Problem, one_of_zeros, only
from rlgrad.gradients.samples import MEMORY_LIMIT, require_memory

_TOLERANCE = 1e-3


class Factored:
    """One backward pass for each output that is asked about, and no further pass of the model after that.

    Args:
        problem: the question, with all its outputs.
        values: what the outputs were when the model was linearized.
    """

    def __init__(self, problem: Problem, values: Mapping[str, Any]) -> None:
        self._problem = problem
        self._values = values
        self._parameters: Parameters | None = None
        self._found: dict[str, dict[int, Factor]] = {}
        # Asked for inside a loop's body, factors still belong to the function that the loop is in.
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    @property
    def scope(self) -> Any:
        """The context in which the linearization was made."""
        if self._graph is not None:
            return self._graph.as_default()
        return contextlib.nullcontext() if tf.executing_eagerly() else tf.init_scope()

    def of(self, name: str, segments: Any = None, num_segments: Any = None) -> dict[str, Factor]:
        """The factor of each variable that the output depends on, by the variable's key.

        Raises:
            DisconnectedGradientError: the output does not depend on a variable that was named, or on any.
            ValueError: the output has not exactly one number per sample; the weights have changed since the model was
                linearized.
        """
        if name not in self._found:
            with self.scope:
                self._found[name] = self._capture(name)
        extra = prepared(segments, num_segments, self._problem.batch_size)
        keys, factors = self._problem.weights.keys, self._found[name]
        if not extra:
            return {keys[i]: factor for i, factor in factors.items()}
        return {keys[i]: Segmented(f, extra["segments"], extra["num_segments"]) for i, f in factors.items()}

    def require_memory(self, factors: Mapping[str, Factor]) -> None:
        """Raises where gradients written out for each sample would take more than the limit.

        Raises:
            MemoryError: with the size and what to ask instead.
        """
        rows = self._problem.batch_size
        size = sum(4 * math.prod(factor.shape) for factor in factors.values())
        if rows is not None:
            require_memory(
                rows * size,
                MEMORY_LIMIT,
                f"A gradient for each of {rows} samples",
                ".norm() and .gram() do not need it.",
            )

    def fisher_vector_product(self, v: Mapping[str, Any], sample_weight: Any, damping: Any) -> dict[str, Any]:
        """See `Linearization.fisher_vector_product`."""
        problem = self._problem
        keys = problem.weights.keys
        if compiled.worthwhile(problem):
            given = [key for key in keys if key in v]
            extra = dict(zip(given, tangents_for(problem, v, given), strict=True))
            extra |= {"weight": numbers(sample_weight), "damping": numbers(damping)}
            asked = replace(
                problem, extra=extra, extra_batched=frozenset({"weight"} if extra["weight"].shape.rank else ())
            )

            def body(symbolic: Problem, notes: Notes) -> list[Any]:
                parameters = parameters_of(symbolic)
                notes.listed = parameters.positions
                listed = [keys[i] for i in parameters.positions]
                tangent = tangents_for(symbolic, {key: symbolic.extra[key] for key in given}, listed)
                return parameters.product(tangent, symbolic.extra["weight"], symbolic.extra["damping"])

            products, notes = compiled.answer("fisher", asked, body)
            return {keys[i]: product for i, product in zip(notes.listed, products, strict=True)}
        if self._parameters is None:
            with self.scope:
                self._parameters = parameters_of(problem)
        listed = [keys[i] for i in self._parameters.positions]
        products = self._parameters.product(tangents_for(problem, v, listed), numbers(sample_weight), numbers(damping))
        return dict(zip(listed, products, strict=True))

    def _capture(self, name: str) -> dict[int, Factor]:
        problem = only(self._problem, name)
        empty = problem.batch_size == 0
        if empty:
            problem = one_of_zeros(problem)

        def body(symbolic: Problem, notes: Notes) -> list[Any]:
            captured = capture_factors(symbolic, notes)
            notes.listed = tuple(captured.factors)
            notes.structures = [f.with_tensors([None] * len(f.tensors)) for f in captured.factors.values()]
            return [captured.value, [f.tensors for f in captured.factors.values()]]

        if not compiled.worthwhile(problem):
            captured = capture_factors(problem, Notes())
        else:
            (value, tensors), notes = compiled.answer("factors", problem, body)
            found = zip(notes.listed, notes.structures, tensors, strict=True)
            captured = Captured(value, {i: structure.with_tensors(parts) for i, structure, parts in found})
        if empty:
            return {i: f.with_tensors([t[:0] for t in f.tensors]) for i, f in captured.factors.items()}
        self._require_same(name, captured.value)
        return dict(captured.factors)

    def _require_same(self, name: str, value: Any) -> None:
        """What is asked after the weights changed would be about other weights than `outputs` are."""
        before, now = tf.get_static_value(self._values[name]), tf.get_static_value(value)
        if before is None or now is None:
            return
        scale = 1.0 + np.abs(before).max(initial=0.0)
        if not np.allclose(before, now, rtol=0.0, atol=_TOLERANCE * scale, equal_nan=True):
            raise ValueError(
                "The model's weights have changed since linearize(). Ask before you change them (what was asked once is "
                "kept), or linearize again."
            )


def row_weights(factor: Factor, credit: Any) -> Any:
    """A credit as one number per row of a factor.

    Raises:
        ValueError: it is neither one number nor one per row.
    """
    rows = factor.count if isinstance(factor, Segmented) else tf.shape(factor.tensors[0])[0]
    credit = tf.cast(numbers(credit), factor.tensors[-1].dtype)
    if credit.shape.rank == 0:
        return tf.fill([rows], credit)
    known = tf.get_static_value(rows)
    if credit.shape.rank != 1 or (known is not None and credit.shape[0] not in (None, int(known))):
        raise ValueError(f"The credit holds one number per row, shape ({known},), got {tuple(credit.shape)}.")
    return credit
