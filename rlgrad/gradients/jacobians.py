"""The Jacobian: one gradient per sample and unit."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.tensorflow_internals import trace_facts
from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.programs.answers import Answer, answer
from rlgrad.gradients.programs.backward import dense, require_connected
from rlgrad.gradients.programs.coupling import require_separate_function, require_separate_samples
from rlgrad.gradients.programs.factorization import remaining_question
from rlgrad.gradients.programs.half_precision import weigh_results
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.programs.surveys import PROBE_ROWS, survey
from rlgrad.gradients.programs.taps import Recording, is_connected, record
from rlgrad.gradients.programs.vectorization import map_samples, vectorize
from rlgrad.gradients.programs.whole_batch import in_batch
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.heads import shape_text
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import SINGLE, ForwardPass, Question
from rlgrad.gradients.samples import MEMORY_LIMIT, require_memory

MAX_UNITS = 64  # each unit is a backward pass of its own in the traced function


def jacobian(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    target: Any = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
    memory_limit: float = MEMORY_LIMIT,
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
        target: see `gradient`.
        layer: see `gradient`.
        weights: see `gradient`.
        sample_weight: c, float (N,); default 1.
        memory_limit: bytes that the result may take.

    Returns:
        For each variable (N, *output.shape[1:], *variable.shape), under its path; (N, R, *output.shape[1:],
        *variable.shape) for a model that returns R rows for each sample.

    Raises:
        BatchCoupledError: the model mixes its samples.
        MemoryError: the result would be larger than `memory_limit`.
        ValueError: the input has several leading batch axes; and as `gradient`.
    """
    return answer(
        _jacobian,
        model,
        x,
        Output.of(output, target=target),
        sample_weight,
        layer=layer,
        weights=weights,
        memory_limit=memory_limit,
    )


def _jacobian(
    model: Any, x: Any, *, output: Any, layer: Any, weights: Any, sample_weight: Any, memory_limit: float
) -> Answer[dict[str, Any]]:
    question = ask(model, x, outputs=output, layer=layer, weights=weights, sample_weight=sample_weight)
    if question.sample_weight is not None and question.sample_weight.shape.rank != 1:
        shape = shape_text(question.sample_weight.shape)
        raise ValueError(f"sample_weight of a Jacobian is one number per sample, shape (N,), got {shape}.")

    def check(computed: Computed) -> None:
        _require_memory(question, computed.positions, computed.detail, memory_limit)

    computed = compute("jacobian", question, weigh_results(partial(_all_units, memory_limit=memory_limit)), check=check)
    keys = [question.weights.keys[i] for i in computed.positions]
    return Answer(computed, lambda results: dict(zip(keys, results, strict=True)))


def _require_memory(question: Question, positions: Iterable[int], units: int | None, limit: float) -> None:
    """Raise if a gradient for each sample and unit takes more than the limit; `units` is `None` if not known."""
    rows, variables = question.batch_size, [question.weights.variables[i] for i in positions]
    if rows is not None and units is not None:
        size = sum(
            tf.TensorShape(variable.shape).num_elements() * tf.as_dtype(variable.dtype).size for variable in variables
        )
        require_memory(
            rows * units * size,
            limit,
            f"A gradient for each of {rows} samples and {units} units",
            "Ask for fewer rows, or for one unit at a time with per_sample_gradient(output=k), or raise the limit.",
        )


def _all_units(question: Question, memory_limit: float) -> Computed:
    """Compute for each variable (N, *units, *shape), from closed forms if there are any."""
    require_separate_samples(question)
    if keras_internals.has_saved_loops(question.model):
        return _one_by_one(question)
    taps, _ = survey(question)
    if taps and _output_rows(question) != 1:
        taps = []
    forward, recording = record(question, taps, partial(question.forward, per_unit=True))
    require_separate_function(question, forward)
    y = forward.values[SINGLE]
    _require_one_batch_axis(forward)
    units = y.shape[1:].num_elements()
    tape = recording.tape
    if tf.executing_eagerly():  # a program's facts are checked before it runs, but this runs now
        _require_memory_now(question, recording, y, memory_limit)
    if not taps or units is None or not 0 < units <= MAX_UNITS:
        computed = _one_by_one(question)
        return replace(computed, ranges=forward.ranges + computed.ranges)
    free = [i for i, gradient in enumerate(tape.gradient(y, recording.sources)) if gradient is not None]
    z = [call.run.z for call in recording.calls]
    by_unit = []
    for cotangent in _one_hot(y, units, question.sample_weight):
        by_unit.append(recording.factors(question, tape.gradient(y, z, output_gradients=cotangent), set(free)))
    rows = {i: _written_out([factors[i] for factors in by_unit], y.shape[1:]) for i in by_unit[0]}
    require_connected(question, {*free, *rows})
    others = Computed([])
    if free:
        others = _one_by_one(remaining_question(question, recording, free))
        rows |= {free[i]: g for i, g in zip(others.positions, others.results, strict=True)}
    positions = tuple(sorted(rows))
    results = [tf.cast(rows[i], question.weights.variables[i].dtype) for i in positions]
    return Computed(results, positions, forward.ranges + others.ranges, others.vectorized, detail=units)


def _one_by_one(question: Question) -> Computed:
    """Compute all units of each sample by itself, or of the whole batch of a model that runs at no other size."""
    try:
        return map_samples(question, _of_one)
    except Exception as error:
        computed = in_batch(question, error, per_unit=True)
    first, variable = computed.results[0], question.weights.variables[computed.positions[0]]
    return replace(computed, detail=first.shape[1 : first.shape.rank - len(variable.shape)].num_elements())


def _output_rows(question: Question) -> int | None:
    """Return the number of rows that the model returns for each row of its input, from a trace of `PROBE_ROWS` rows."""

    def traced(leaves: list[Any]) -> tuple[list[Any], int | None]:
        returned = replace(question, leaves=tuple(leaves), kept=(), replay=None).run_model()
        rows = next((y.shape[0] for y in tf.nest.flatten(returned) if tf.is_tensor(y) and y.shape.rank), None)
        return [], rows

    specs = [tf.TensorSpec([PROBE_ROWS, *spec.shape[1:]], spec.dtype) for spec in question.signature]
    _, rows = trace_facts(traced, specs)
    return 1 if rows is None or rows == PROBE_ROWS else rows // PROBE_ROWS if rows % PROBE_ROWS == 0 else None


def _require_memory_now(question: Question, recording: Recording, y: Any, limit: float) -> None:
    rows = question.batch_size or 1
    units = y.shape.num_elements() // rows
    try:
        _require_memory(question, range(len(question.weights.variables)), units, limit)
    except MemoryError:  # of all weights; does the output depend on so many?
        cotangents, free = recording.pull_back(y, None)
        position = {id(variable): i for i, variable in enumerate(question.weights.variables)}
        calls = [call for call, cotangent in zip(recording.calls, cotangents, strict=True) if is_connected(cotangent)]
        covered = {position.get(id(variable)) for call in calls for variable in call.tap.variables.values()}
        _require_memory(question, {*free, *(i for i in covered if i is not None)}, units, limit)


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
    sources, once = question.sources, keras_internals.has_saved_loops(question.model)
    tape, forward = _taped(question, persistent=not once)
    y = forward.values[SINGLE]
    _require_one_batch_axis(forward)
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
