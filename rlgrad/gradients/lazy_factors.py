"""The factors of a linearization's outputs: computed on demand, then reused by all methods that are made of them."""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.core.keras_internals import computes_in_half
from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.closed_forms.segments import Segmented, prepare_segments
from rlgrad.gradients.fisher import Parameters, about_distribution, parameters_of
from rlgrad.gradients.programs.backward import credits_by_name, tangents_for
from rlgrad.gradients.programs.factorization import factorize
from rlgrad.gradients.programs.half_precision import product_of_sizes_near_one
from rlgrad.gradients.programs.program import Computed, compute, is_compilable
from rlgrad.gradients.questions.inputs import as_tensor
from rlgrad.gradients.questions.question import SINGLE, Question, single_output
from rlgrad.gradients.samples import MEMORY_LIMIT, require_memory

_TOLERANCE = 1e-3


class LazyFactors:
    """One forward and backward pass for each output that a method needs, and no further pass of the model after that.

    Args:
        question: the question, with all its outputs.
        values: the outputs when the model was linearized.
    """

    def __init__(self, question: Question, values: Mapping[str, Any]) -> None:
        self._question = question
        self._values = values
        self._parameters: Parameters | None = None
        self._factors: dict[str, dict[str, Factor]] = {}
        # Factors that are computed inside a loop's body still belong to the function that the loop is in.
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    @property
    def scope(self) -> Any:
        """The context in which the linearization was made."""
        if self._graph is not None:
            return self._graph.as_default()
        return contextlib.nullcontext() if tf.executing_eagerly() else tf.init_scope()

    def of(self, name: str, segments: Any = None, num_segments: Any = None) -> dict[str, Factor]:
        """Return the factor of each variable that the output depends on, by the variable's key.

        Raises:
            DisconnectedGradientError: the output does not depend on a variable that was named, or on any variable.
            ValueError: the output has not exactly one number per sample; the weights have changed since the model was
                linearized.
        """
        if name not in self._factors:
            with self.scope:
                self._factors[name] = self._compute(name)
        factors = self._factors[name]
        if segments is None and num_segments is None:
            return factors
        extra = prepare_segments(segments, num_segments, self._question.batch_size)
        return {key: Segmented(f, extra["segments"], extra["num_segments"]) for key, f in factors.items()}

    def contract(
        self, use: Callable[[dict[str, Factor]], Any], segments: Any = None, num_segments: int | None = None
    ) -> Any:
        """Return the result of `use` on each output's factors: a dict by name, or one result for an output without a name."""
        results = {}
        for name in self._values:
            results[name] = use(self.of(name, segments, num_segments))
        return results.get(SINGLE, results)

    def per_sample(self, segments: Any, num_segments: int | None) -> dict[str, Any]:
        """See `Linearization.per_sample`."""

        def use(factors: dict[str, Factor]) -> dict[str, Any]:
            self.require_memory(factors)
            return {key: tf.cast(factor.per_sample(), self._dtype(key)) for key, factor in factors.items()}

        found: dict[str, Any] = self.contract(use, segments, num_segments)
        return found

    def sum_of_squares(self, credit: Any, segments: Any, num_segments: int | None) -> Any:
        """See `Linearization.sum_of_squares`."""
        results = {}
        for name, c in credits_by_name(self._values, credit).items():
            factors = self.of(name, segments, num_segments)
            results[name] = {key: factor.sum_of_squares(_row_weights(factor, c)) for key, factor in factors.items()}
        return results.get(SINGLE, results)

    def require_memory(self, factors: Mapping[str, Factor]) -> None:
        """Raise if gradients written out for each sample would take more than the limit.

        Raises:
            MemoryError: with the size, and what to ask instead.
        """
        rows = self._question.batch_size
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
        question = about_distribution(self._question)
        keys = question.weights.keys
        if is_compilable(question):
            given = [key for key in keys if key in v]
            extra = dict(zip(given, tangents_for(question, v, given), strict=True))
            extra |= {"weight": as_tensor(sample_weight), "damping": as_tensor(damping)}
            batched = frozenset({"weight"} if extra["weight"].shape.rank else ())

            def computation(question: Question) -> Computed:
                parameters = parameters_of(question)
                listed = [keys[i] for i in parameters.positions]
                tangent = tangents_for(question, {key: question.extra[key] for key in given}, listed)
                products = _fisher_product(
                    question, parameters, tangent, question.extra["weight"], question.extra["damping"]
                )
                return Computed(products, parameters.positions)

            computed = compute("fisher", replace(question, extra=extra, extra_batched=batched), computation)
            return {keys[i]: product for i, product in zip(computed.positions, computed.results, strict=True)}
        if self._parameters is None:
            with self.scope:
                self._parameters = parameters_of(question)
        listed = [keys[i] for i in self._parameters.positions]
        tangent = tangents_for(question, v, listed)
        products = _fisher_product(question, self._parameters, tangent, as_tensor(sample_weight), as_tensor(damping))
        return dict(zip(listed, products, strict=True))

    def _dtype(self, key: str) -> Any:
        selected = self._question.weights
        return tf.as_dtype(selected.variables[selected.keys.index(key)].dtype)

    def _compute(self, name: str) -> dict[str, Factor]:
        question = self._question if name == SINGLE else single_output(self._question, name)
        computed = compute("factors", question, _value_and_factors)
        value, tensors = computed.results
        if self._question.batch_size != 0:
            self._require_same(name, value)
        parts = zip(computed.positions, computed.detail, tensors, strict=True)
        return {self._question.weights.keys[i]: structure.with_tensors(part) for i, structure, part in parts}

    def _require_same(self, name: str, value: Any) -> None:
        """Raise if the weights have changed since `outputs` were computed: the factors would not be theirs."""
        before, now = tf.get_static_value(self._values[name]), tf.get_static_value(value)
        if before is None or now is None:
            return
        scale = 1.0 + np.abs(before).max(initial=0.0)
        if not np.allclose(before, now, rtol=0.0, atol=_TOLERANCE * scale, equal_nan=True):
            raise ValueError(
                "The model's weights have changed since linearize(). Ask before you change them (what was asked once is "
                "kept), or linearize again."
            )


def _fisher_product(question: Question, parameters: Parameters, v: list[Any], weight: Any, damping: Any) -> list[Any]:
    """Return F v + damping · v; in half precision without rounding small v and weights to 0."""
    if not computes_in_half(question.model):
        return parameters.product(v, weight, damping)
    dtypes = [question.weights.variables[i].dtype for i in parameters.positions]
    products = product_of_sizes_near_one(
        lambda v, weight: parameters.product(v, weight, 0.0), v, tf.cast(weight, tf.float32), dtypes
    )
    summed = [p + tf.cast(damping, p.dtype) * tf.cast(part, p.dtype) for p, part in zip(products, v, strict=True)]
    return [tf.cast(p, dtype) for p, dtype in zip(summed, dtypes, strict=True)]


def _value_and_factors(question: Question) -> Computed:
    """Compute f and the tensors of each factor; the detail is the factors without them."""
    factorization = factorize(question)
    tensors, structures = [], []
    for factor in factorization.factors.values():
        tensors.append(list(factor.tensors))
        structures.append(factor.with_tensors([None] * len(tensors[-1])))
    return Computed(
        [factorization.value, tensors], tuple(factorization.factors), factorization.ranges, detail=structures
    )


def _row_weights(factor: Factor, credit: Any) -> Any:
    """Return a credit as one number per row of a factor.

    Raises:
        ValueError: the credit is neither one number nor one per row.
    """
    rows = factor.count if isinstance(factor, Segmented) else tf.shape(factor.tensors[0])[0]
    credit = tf.cast(as_tensor(credit), factor.tensors[-1].dtype)
    if credit.shape.rank == 0:
        return tf.fill([rows], credit)
    known = tf.get_static_value(rows)
    if credit.shape.rank != 1 or (known is not None and credit.shape[0] not in (None, int(known))):
        raise ValueError(f"The credit holds one number per row, shape ({known},), got {tuple(credit.shape)}.")
    return credit
