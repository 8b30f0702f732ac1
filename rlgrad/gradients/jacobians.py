"""The Jacobian: one gradient per sample and unit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Direct, Factor
from rlgrad.gradients.programs.answers import Answer, answer
from rlgrad.gradients.programs.backward import dense, require_connected
from rlgrad.gradients.programs.factorization import remaining_question
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.programs.surveys import survey
from rlgrad.gradients.programs.taps import record
from rlgrad.gradients.programs.vectorization import map_samples, vectorize
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.heads import shape_text
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import SINGLE, ForwardPass, Question

MAX_UNITS = 64  # each unit is a backward pass of its own in the traced function


def jacobian(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
) -> dict[str, Any]:
    """c_n ∇θ y_k(x_n), for each sample n and each unit k by itself.

    Takes N · K · P numbers of memory. One forward pass, and for each unit a backward pass of the whole batch that stops
    short of the weights: the inputs of the layers are the same for all units. `plan` shows which variables have such a
    closed form. The others, and all variables if there are more than 64 units, are vectorized over the samples.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        output: see `gradient`, but an output with units keeps them: `None` and a head's name are not summed, and a
            function may return (N, K).
        layer: see `gradient`.
        weights: see `gradient`.
        sample_weight: c, float (N,); default 1.

    Returns:
        For each variable (N, *output.shape[1:], *variable.shape), under its path.

    Raises:
        ValueError: the input has several leading batch axes; and as `gradient`.
    """
    return answer(_jacobian, model, x, Output.of(output), sample_weight, layer=layer, weights=weights)


def _jacobian(
    model: Any, x: Any, *, output: Any, layer: Any, weights: Any, sample_weight: Any
) -> Answer[dict[str, Any]]:
    question = ask(model, x, outputs=output, layer=layer, weights=weights, sample_weight=sample_weight)
    require_weight_per_sample(question)
    computed = compute("jacobian", question, _all_units)
    keys = [question.weights.keys[i] for i in computed.positions]
    return Answer(computed, lambda results: dict(zip(keys, results, strict=True)))


def _all_units(question: Question) -> Computed:
    """Compute for each variable (N, *units, *shape), from closed forms if there are any."""
    found = unit_factors(question)
    variables, results = question.weights.variables, []
    for i, factor in found.factors.items():
        g = factor.per_sample()
        shape = tf.concat([[-1], found.units, tf.shape(g)[1:]], axis=0)
        results.append(tf.cast(tf.reshape(g, shape), variables[i].dtype))
    return replace(found.facts, results=results)


@dataclass(frozen=True)
class UnitFactors:
    """The factors of all units: row n · K + k of each is the gradient of unit k of sample n.

    Args:
        factors: for each variable that the output depends on, by position.
        units: the sizes of the output's axes after the batch axis, whose product is K; a list, or a tensor of integers.
        facts: what holds for all numbers; no results.
    """

    factors: dict[int, Factor]
    units: Any
    facts: Computed

    @property
    def count(self) -> Any:
        """K, an int if it is known when tracing."""
        return prod(self.units) if isinstance(self.units, list) else tf.reduce_prod(self.units)


def unit_factors(question: Question) -> UnitFactors:
    """Run the model forward once, and backward once for each unit; see `jacobian`."""
    taps, _ = survey(question)
    forward, recording = record(question, taps, partial(question.forward, per_unit=True))
    y = forward.values[SINGLE]
    require_one_batch_axis(forward)
    count = y.shape[1:].num_elements()
    units = tf.shape(y)[1:] if count is None else y.shape[1:].as_list()
    shapes = [tuple(variable.shape) for variable in question.weights.variables]

    def row_per_unit(computed: Computed, positions: Sequence[int]) -> dict[int, Factor]:
        found = zip(positions, computed.results, strict=True)
        return {i: Direct(tf.reshape(g, [-1, *shapes[i]])) for i, g in found}

    if not taps or count is None or not 0 < count <= MAX_UNITS:
        others = map_samples(question, _of_one)
        facts = replace(others, results=None, ranges=forward.ranges + others.ranges)
        return UnitFactors(row_per_unit(others, others.positions), units, facts)
    tape = recording.tape
    free = [i for i, gradient in enumerate(tape.gradient(y, recording.sources)) if gradient is not None]
    z = [call.run.z for call in recording.calls]
    by_unit = []
    for cotangent in unit_cotangents(y, count, question.sample_weight):
        by_unit.append(recording.factors(question, tape.gradient(y, z, output_gradients=cotangent), set(free)))
    factors = {i: _stacked([factors[i] for factors in by_unit]) for i in by_unit[0]}
    require_connected(question, {*free, *factors})
    others = Computed([])
    if free:
        others = map_samples(remaining_question(question, recording, free), _of_one)
        factors |= row_per_unit(others, [free[i] for i in others.positions])
    factors = {i: factors[i] for i in sorted(factors)}
    facts = Computed(None, tuple(factors), forward.ranges + others.ranges, others.vectorized)
    return UnitFactors(factors, units, facts)


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
    sources = question.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        forward = question.forward(per_unit=True)
    y = forward.values[SINGLE]
    require_one_batch_axis(forward)
    positions = tuple(i for i, gradient in enumerate(tape.gradient(y, sources)) if gradient is not None)
    require_connected(question, positions)

    def of_unit(cotangent: Any) -> list[Any]:
        gradients = tape.gradient(y, sources, output_gradients=tf.reshape(cotangent, tf.shape(y)))
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
    shape = tf.shape(y)[1:]
    results = [tf.reshape(s, tf.concat([shape, tf.shape(s)[1:]], axis=0)) for s in stacked]
    return Computed(results, positions, forward.ranges)
