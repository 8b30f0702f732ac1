"""From a caller's arguments to a `Question`, checked as far as that is possible without running the model."""

from collections.abc import Mapping
from typing import Any

from rlgrad.core import keras_internals
from rlgrad.gradients.questions import selection
from rlgrad.gradients.questions.inputs import Inputs, as_weight, prepare
from rlgrad.gradients.questions.outputs import Output
from rlgrad.gradients.questions.question import SINGLE, Question


def ask(
    model: Any,
    x: Any,
    *,
    outputs: Mapping[str, Output] | Output,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
    differentiate_x: bool = False,
) -> Question:
    """Check a caller's arguments and return the question that they ask.

    Args:
        model: a Keras model.
        x: its input.
        outputs: the outputs to differentiate, by name; or one without a name.
        layer: see `gradients.gradient`.
        weights: see `gradients.gradient`; or `NO_WEIGHTS`.
        sample_weight: see `gradients.gradient`.
        differentiate_x: differentiate with respect to the input, and to no weights.

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
    prepared = prepare(model, x, keras_internals.expected_inputs(model))
    if differentiate_x:
        _require_floating_inputs(prepared)
        selected = selection.NO_WEIGHTS
    else:
        selected = weights if weights is selection.NO_WEIGHTS else selection.select_weights(model, weights)
    arrays: dict[str, tuple[Any, ...]] = {}
    batched: dict[str, tuple[bool, ...]] = {}
    outputs = {SINGLE: outputs} if isinstance(outputs, Output) else outputs
    for name, output in outputs.items():
        arrays[name] = tuple(output.tensors(model))
        batched[name] = tuple(b and t.shape.rank != 0 for b, t in zip(output.batched, arrays[name], strict=True))
    question = Question(
        model=model,
        leaves=prepared.leaves,
        structure=prepared.structure,
        signature=prepared.signature,
        recipes={name: output.recipe for name, output in outputs.items()},
        arrays=arrays,
        batched=batched,
        layer=chosen,
        weights=selected,
        sample_weight=None if sample_weight is None else as_weight(sample_weight),
        batch_size=prepared.batch_size,
    )
    _require_rows(question)
    return question


def _require_floating_inputs(prepared: Inputs) -> None:
    integers = prepared.integer_leaves or tuple(
        leaf.dtype.name for leaf in prepared.leaves if not leaf.dtype.is_floating
    )
    if integers:
        raise TypeError(
            f"Input {', '.join(integers)} is made of integers, which have no gradient. Convert it to float; for token "
            "ids differentiate with respect to the embedding's weights: gradient(model, x, weights='embedding')."
        )


def _require_rows(question: Question) -> None:
    """Raise if an array with one row per sample has another number of rows than the input."""
    rows = question.batch_size
    if rows is None:
        return
    for name, arrays in question.arrays.items():
        for array, batched in zip(arrays, question.batched[name], strict=True):
            if batched and array.shape.rank and array.shape[0] not in (None, rows):
                raise ValueError(
                    f"The input has {rows} rows, so there must be {rows} actions (or units); got shape "
                    f"{tuple(array.shape)}."
                )
    if question.sample_weight is not None:
        shape = question.sample_weight.shape
        if shape.rank == 0 or (shape.rank is not None and shape[0] not in (None, rows)):
            raise ValueError(
                f"sample_weight holds one number for each value of the output, {rows} rows; got shape {tuple(shape)}."
            )
