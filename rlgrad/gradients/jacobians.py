"""The Jacobian: one gradient per sample and unit."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.programs.answers import Answer, answer
from rlgrad.gradients.programs.backward import dense, require_connected
from rlgrad.gradients.programs.coupling import require_separate_function, require_separate_samples
from rlgrad.gradients.programs.factorization import remaining_question
from rlgrad.gradients.programs.half_precision import weigh_results
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
        BatchCoupledError: the model mixes its samples.
        ValueError: the input has several leading batch axes; and as `gradient`.
    """
    return answer(_jacobian, model, x, Output.of(output), sample_weight, layer=layer, weights=weights)


def _jacobian(
    model: Any, x: Any, *, output: Any, layer: Any, weights: Any, sample_weight: Any
) -> Answer[dict[str, Any]]:
    question = ask(model, x, outputs=output, layer=layer, weights=weights, sample_weight=sample_weight)
    if question.sample_weight is not None and question.sample_weight.shape.rank != 1:
        shape = shape_text(question.sample_weight.shape)
        raise ValueError(f"sample_weight of a Jacobian is one number per sample, shape (N,), got {shape}.")
    computed = compute("jacobian", question, weigh_results(_all_units))
    keys = [question.weights.keys[i] for i in computed.positions]
    return Answer(computed, lambda results: dict(zip(keys, results, strict=True)))


def _all_units(question: Question) -> Computed:
    """Compute for each variable (N, *units, *shape), from closed forms if there are any."""
    require_separate_samples(question)
    taps, _ = survey(question)
    forward, recording = record(question, taps, partial(question.forward, per_unit=True))
    require_separate_function(question, forward)
    y = forward.values[SINGLE]
    _require_one_batch_axis(forward)
    units = y.shape[1:].num_elements()
    if not taps or units is None or not 0 < units <= MAX_UNITS:
        computed = map_samples(question, _of_one)
        return replace(computed, ranges=forward.ranges + computed.ranges)
    tape = recording.tape
    free = [i for i, gradient in enumerate(tape.gradient(y, recording.sources)) if gradient is not None]
    z = [call.run.z for call in recording.calls]
    by_unit = []
    for cotangent in _one_hot(y, units, question.sample_weight):
        by_unit.append(recording.factors(question, tape.gradient(y, z, output_gradients=cotangent), set(free)))
    rows = {i: _written_out([factors[i] for factors in by_unit], y.shape[1:]) for i in by_unit[0]}
    require_connected(question, {*free, *rows})
    others = Computed([])
    if free:
        others = map_samples(remaining_question(question, recording, free), _of_one)
        rows |= {free[i]: g for i, g in zip(others.positions, others.results, strict=True)}
    positions = tuple(sorted(rows))
    results = [tf.cast(rows[i], question.weights.variables[i].dtype) for i in positions]
    return Computed(results, positions, forward.ranges + others.ranges, others.vectorized)


def _one_hot(y: Any, units: int, weight: Any) -> list[Any]:
    """Return for each unit a cotangent of y (N, *units) that is c_n there, and 0 elsewhere."""
    rows = tf.shape(y)[:1]
    weight = tf.ones(rows, y.dtype) if weight is None else tf.cast(weight, y.dtype)
    return [tf.reshape(weight[:, None] * row, tf.shape(y)) for row in tf.unstack(tf.eye(units, dtype=y.dtype), units)]


def _written_out(factors: Sequence[Factor], units: Any) -> Any:
    """Return (N, *units, *shape) of one variable. Each unit of each sample is a row, so nothing is moved afterwards."""
    stacked = []
    for parts in zip(*(factor.tensors for factor in factors), strict=True):
        rows = tf.reshape(tf.stack(parts, axis=1), tf.concat([[-1], tf.shape(parts[0])[1:]], axis=0))
        stacked.append(tf.ensure_shape(rows, [None, *parts[0].shape[1:]]))
    g = factors[0].with_tensors(stacked).per_sample()
    return tf.reshape(g, tf.concat([[-1], list(units), tf.shape(g)[1:]], axis=0))


def _require_one_batch_axis(forward: ForwardPass) -> None:
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
    _require_one_batch_axis(forward)
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
