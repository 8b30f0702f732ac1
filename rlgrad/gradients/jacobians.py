"""The Jacobian: one gradient per sample and unit."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import tensorflow as tf

from rlgrad.core.autograph import as_written
from rlgrad.gradients.programs.answers import Answer, answer
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.programs.taps import Recording, is_connected
from rlgrad.gradients.programs.unit_factors import require_weight_per_sample, unit_factors
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import Question
from rlgrad.gradients.samples import MEMORY_LIMIT, require_memory


@as_written
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
    require_weight_per_sample(question)

    def check(computed: Computed) -> None:
        _require_memory(question, computed.positions, computed.detail, memory_limit)

    computed = compute("jacobian", question, partial(_all_units, memory_limit=memory_limit), check=check)
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
    found = unit_factors(question, lambda recording, y: require_memory_now(question, recording, y, memory_limit))
    variables, rows = question.weights.variables, tf.shape(question.leaves[0])[0]
    results = [
        tf.cast(found.by_sample(factor.per_sample(), rows), variables[i].dtype) for i, factor in found.factors.items()
    ]
    return replace(found.facts, results=results)


def require_memory_now(question: Question, recording: Recording, y: Any, limit: float) -> None:
    """Raise if the gradients of the units y, written out, take more than the limit."""
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
