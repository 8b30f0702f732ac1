"""From what a caller asks to a `Problem`, checked as far as that goes without running the model."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.gradients.questions import inputs as model_inputs
from rlgrad.gradients.questions import selection
from rlgrad.gradients.questions.outputs import Output
from rlgrad.gradients.questions.problem import Problem


def pose(
    model: Any,
    x: Any,
    *,
    outputs: Mapping[str, Output],
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
    differentiate_x: bool = False,
) -> Problem:
    """Checks a question as far as that goes without running the model.

    Raises:
        TypeError, ValueError: see the functions of `selection`, `inputs` and `recipes`.
    """
    if not getattr(model, "built", False):
        raise ValueError(
            f"Model {getattr(model, 'name', type(model).__name__)!r} is not built, so it has no weights yet. Give it a "
            "keras.Input as its first layer, or call it once on a batch: model(x)."
        )
    stateful = keras_internals.stateful_layers(model)
    if stateful:
        raise ValueError(
            f"Layers {stateful} keep their state from call to call (stateful=True), so asking for a gradient would "
            "change the model. Use stateful=False."
        )
    chosen = None if layer is None else selection.select_layer(model, layer)
    prepared = model_inputs.prepare(model, x)
    if differentiate_x:
        _require_floating_inputs(prepared)
        selected = selection.Selection((), (), explicit=False)
    else:
        selected = selection.select_weights(model, weights)
    arrays = {name: tuple(output.tensors(model)) for name, output in outputs.items()}
    problem = Problem(
        model=model,
        leaves=prepared.leaves,
        structure=prepared.structure,
        signature=prepared.signature,
        recipes={name: output.recipe for name, output in outputs.items()},
        arrays=arrays,
        batched={name: _batched(output, arrays[name]) for name, output in outputs.items()},
        layer=chosen,
        weights=selected,
        sample_weight=None if sample_weight is None else as_weight(sample_weight),
        batch_size=prepared.batch_size,
    )
    _require_rows(problem)
    return problem


def as_weight(sample_weight: Any) -> Any:
    """Sample weights as a floating-point tensor."""
    weight = model_inputs.numbers(sample_weight)
    return weight if weight.dtype.is_floating else tf.cast(weight, tf.float64)


def _batched(output: Output, tensors: tuple[Any, ...]) -> tuple[bool, ...]:
    return tuple(batched and tensor.shape.rank != 0 for batched, tensor in zip(output.batched, tensors, strict=True))


def _require_floating_inputs(prepared: model_inputs.Inputs) -> None:
    integers = prepared.integer_leaves or tuple(
        leaf.dtype.name for leaf in prepared.leaves if not leaf.dtype.is_floating
    )
    if integers:
        raise TypeError(
            f"Input {', '.join(integers)} is made of integers, which have no gradient. Convert it to float; for token "
            "ids differentiate with respect to the embedding's weights: gradient(model, x, weights='embedding')."
        )


def _require_rows(problem: Problem) -> None:
    """Arrays that belong to samples must have as many rows as the input."""
    rows = problem.batch_size
    if rows is None:
        return
    for name, arrays in problem.arrays.items():
        for array, batched in zip(arrays, problem.batched[name], strict=True):
            if batched and array.shape.rank and array.shape[0] not in (None, rows):
                raise ValueError(
                    f"The input has {rows} rows, so there must be {rows} actions (or units); got shape "
                    f"{tuple(array.shape)}."
                )
    if problem.sample_weight is not None:
        shape = problem.sample_weight.shape
        if shape.rank == 0 or (shape.rank is not None and shape[0] not in (None, rows)):
            raise ValueError(
                f"sample_weight holds one number for each value of the output, {rows} rows; got shape {tuple(shape)}."
            )
