"""All units of each sample: their cotangents, and a factor of each variable with a row for each sample and unit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.gradients.closed_forms.factors import Direct, Factor
from rlgrad.gradients.programs.backward import dense, require_connected, wide
from rlgrad.gradients.programs.coupling import require_separate_function, require_separate_samples
from rlgrad.gradients.programs.factorization import remaining_question
from rlgrad.gradients.programs.half_precision import weigh_factor, without_weights
from rlgrad.gradients.programs.program import Computed
from rlgrad.gradients.programs.surveys import survey
from rlgrad.gradients.programs.taps import Recording, record
from rlgrad.gradients.programs.vectorization import map_samples, vectorize
from rlgrad.gradients.programs.whole_batch import in_batch
from rlgrad.gradients.questions.heads import shape_text
from rlgrad.gradients.questions.question import SINGLE, ForwardPass, Question

MAX_UNITS = 64  # each unit is a backward pass of its own in the traced function


@dataclass(frozen=True)
class UnitFactors:
    """The factors of all units: row n · K + k of each is the gradient of unit k of sample n.

    Args:
        factors: for each variable that the output depends on, by position.
        units: the sizes of the output's axes after the batch axis, whose product is K, and before them R if the model
            returns R rows for each sample; a list, or a tensor of integers.
        facts: what holds for all numbers; no results. The detail is K, `None` if it is not known when tracing.
    """

    factors: dict[int, Factor]
    units: Any
    facts: Computed

    @property
    def count(self) -> Any:
        """K, an int if it is known when tracing."""
        return prod(self.units) if isinstance(self.units, list) else tf.reduce_prod(self.units)

    def by_sample(self, g: Any, rows: Any) -> Any:
        """Return numbers of all units, (N · K, …), as (N, *units, …)."""
        shape = list(g.shape[1:])
        if isinstance(self.units, list):
            return tf.reshape(g, [rows, *self.units, *shape])
        return tf.reshape(g, tf.concat([[rows], self.units, tf.constant(shape, tf.int32)], axis=0))


def unit_factors(question: Question, check_now: Callable[[Recording, Any], None]) -> UnitFactors:
    """Run the model forward once, and backward once for each unit; see `jacobian`.

    Args:
        question: the question.
        check_now: looks at a run and its units y before they are differentiated, if that is done operation by operation.
            The facts of a program are checked before it runs.

    Raises:
        BatchCoupledError: the samples are mixed.
    """
    require_separate_samples(question)
    question, weights = without_weights(question)
    found = _unit_factors(question, check_now)
    if weights is None:
        return found
    weight = tf.reshape(weights.of_rows()[:, None] * tf.ones([1, found.count]), [-1])
    return replace(found, factors={i: weigh_factor(factor, weight) for i, factor in found.factors.items()})


def _unit_factors(question: Question, check_now: Callable[[Recording, Any], None]) -> UnitFactors:
    if keras_internals.has_saved_loops(question.model):
        return _written_out(question, _one_by_one(question))
    surveyed = survey(question)
    taps = surveyed.taps if surveyed.rows == 1 else []
    forward, recording = record(question, taps, partial(question.forward, per_unit=True))
    require_separate_function(question, forward)
    y = forward.values[SINGLE]
    require_one_batch_axis(forward)
    count, tape = y.shape[1:].num_elements(), recording.tape
    if tf.executing_eagerly():  # a program's facts are checked before it runs, but this runs now
        check_now(recording, y)
    if not taps or count is None or not 0 < count <= MAX_UNITS:
        computed = _one_by_one(question)
        return _written_out(question, replace(computed, ranges=forward.ranges + computed.ranges))
    free = [i for i, gradient in enumerate(tape.gradient(y, recording.sources)) if gradient is not None]
    z = [call.run.z for call in recording.calls]
    by_unit = []
    for cotangent in unit_cotangents(y, count, question.sample_weight):
        by_unit.append(recording.factors(question, tape.gradient(y, z, output_gradients=cotangent), set(free)))
    factors = {i: _stacked([factors[i] for factors in by_unit]) for i in by_unit[0]}
    require_connected(question, {*free, *factors})
    others = Computed([])
    if free:
        remaining = remaining_question(question, recording, free)
        others = _one_by_one(remaining)
        rows = _written_out(remaining, others).factors
        factors |= {free[i]: factor for i, factor in rows.items()}
    factors = {i: factors[i] for i in sorted(factors)}
    facts = Computed(None, tuple(factors), forward.ranges + others.ranges, others.vectorized, detail=count)
    return UnitFactors(factors, y.shape[1:].as_list(), facts)


def _written_out(question: Question, computed: Computed) -> UnitFactors:
    """Return factors of gradients that are written out, (N, *units, *shape)."""
    factors: dict[int, Factor] = {}
    units: Any = []
    for i, g in zip(computed.positions, computed.results, strict=True):
        shape = list(question.weights.variables[i].shape)
        factors[i] = Direct(wide(tf.reshape(g, [-1, *shape])))
        axes = tf.TensorShape(None) if g.shape.rank is None else g.shape[1 : g.shape.rank - len(shape)]
        units = axes.as_list() if axes.is_fully_defined() else tf.shape(g)[1 : tf.rank(g) - len(shape)]
    return UnitFactors(factors, units, replace(computed, results=None))


def _one_by_one(question: Question) -> Computed:
    """Compute all units of each sample by itself, or of the whole batch of a model that runs at no other size."""
    try:
        return map_samples(question, _of_one)
    except Exception as error:
        computed = in_batch(question, error, per_unit=True)
    first, variable = computed.results[0], question.weights.variables[computed.positions[0]]
    return replace(computed, detail=first.shape[1 : first.shape.rank - len(variable.shape)].num_elements())


def require_weight_per_sample(question: Question) -> None:
    """Raise if the sample weights are not one number per sample."""
    if question.sample_weight is not None and question.sample_weight.shape.rank != 1:
        shape = shape_text(question.sample_weight.shape)
        raise ValueError(f"sample_weight of a Jacobian is one number per sample, shape (N,), got {shape}.")


def unit_cotangents(y: Any, units: int, weight: Any) -> list[Any]:
    """Return for each unit a cotangent of y (N, *units) that is c_n there, and 0 elsewhere."""
    rows = tf.shape(y)[:1]
    weight = tf.ones(rows, y.dtype) if weight is None else tf.cast(weight, y.dtype)
    return [tf.reshape(weight[:, None] * row, tf.shape(y)) for row in tf.unstack(tf.eye(units, dtype=y.dtype), units)]


def _stacked(factors: Sequence[Factor]) -> Factor:
    """Return one factor of all units of one variable. Each unit of each sample is a row, so nothing is moved afterwards."""
    stacked = []
    for parts in zip(*(factor.tensors for factor in factors), strict=True):
        rows = tf.reshape(tf.stack(parts, axis=1), tf.concat([[-1], tf.shape(parts[0])[1:]], axis=0))
        stacked.append(tf.ensure_shape(rows, [None, *parts[0].shape[1:]]))
    return factors[0].with_tensors(stacked)


def require_one_batch_axis(forward: ForwardPass) -> None:
    """Raise if the output has several batch axes."""
    if forward.batch_rank != 1:
        raise ValueError(
            f"A Jacobian needs one leading batch axis, got {forward.batch_rank}. Flatten the time and environment axes "
            "first."
        )


def _of_one(question: Question) -> Computed:
    sources, once = question.sources, keras_internals.has_saved_loops(question.model)
    tape, forward = _taped(question, persistent=not once)
    y = forward.values[SINGLE]
    require_one_batch_axis(forward)
    positions = tuple(i for i, gradient in enumerate(tape.gradient(y, sources)) if gradient is not None)
    require_connected(question, positions)

    def of_unit(cotangent: Any) -> list[Any]:
        again, value = tape, y
        if once:  # TensorFlow differentiates a run of such a model once only
            again, run = _taped(question, persistent=False)
            value = run.values[SINGLE]
        gradients = again.gradient(value, sources, output_gradients=tf.reshape(cotangent, tf.shape(y)))
        return [dense(gradients[i], sources[i]) for i in positions]

    units = tf.eye(tf.size(y), dtype=y.dtype)
    if question.sample_weight is not None:
        units *= tf.cast(question.sample_weight, y.dtype)
    count = y.shape.num_elements()
    if question.loop and count is None:
        raise ValueError(f"The output's shape must be known for a Jacobian of a recurrent model, got {y.shape}.")
    # Samples are vectorized around this already; if units were vectorized too, XLA would give up on some layers.
    if question.loop or (count is not None and count <= MAX_UNITS):
        per_unit = [of_unit(cotangent) for cotangent in tf.unstack(units, count)]
        stacked = [tf.stack(parts) for parts in zip(*per_unit, strict=True)]
    else:
        stacked = vectorize(of_unit, units)
    shape = tf.shape(y)[1:] if y.shape[0] in (None, 1) else tf.shape(y)
    results = [tf.reshape(s, tf.concat([shape, tf.shape(s)[1:]], axis=0)) for s in stacked]
    return Computed(results, positions, forward.ranges, detail=count)


def _taped(question: Question, persistent: bool) -> tuple[Any, ForwardPass]:
    with tf.GradientTape(persistent=persistent, watch_accessed_variables=False) as tape:
        tape.watch(question.sources)
        forward = question.forward(per_unit=True)
    return tape, forward
