"""From a caller's arguments to a `Question`, checked as far as that is possible without running the model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rlgrad.core import keras_internals
from rlgrad.core.untouched import build_layers
from rlgrad.gradients.questions import selection
from rlgrad.gradients.questions.arguments import call_model
from rlgrad.gradients.questions.chosen_inputs import choose_inputs, no_inputs_of
from rlgrad.gradients.questions.inputs import as_weight, prepare
from rlgrad.gradients.questions.outputs import Output
from rlgrad.gradients.questions.question import SINGLE, Question, place_outer_values
from rlgrad.gradients.questions.training_mode import as_seed


def ask(
    model: Any,
    x: Any,
    *,
    outputs: Mapping[str, Output] | Output,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
    differentiate_x: bool = False,
    inputs: Any = None,
    training: bool = False,
    seed: Any = None,
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
        inputs: with `differentiate_x`, see `gradients.input_gradient`.
        training: see `gradients.gradient`.
        seed: see `gradients.gradient`.

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
    expected = keras_internals.expected_inputs(model)
    prepared = prepare(model, x, expected)
    chosen_inputs = no_inputs_of(prepared)
    build_layers(model, lambda x: call_model(model, x, prepared.spread), prepared.structure, prepared.signature)
    chosen = None if layer is None else selection.select_layer(model, layer)
    if differentiate_x:
        chosen_inputs = choose_inputs(chosen_inputs, prepared.leaves, expected, inputs)
        selected = selection.NO_WEIGHTS
    else:
        selected = weights if weights is selection.NO_WEIGHTS else selection.select_weights(model, weights)
    question = Question(
        model=model,
        leaves=prepared.leaves,
        structure=prepared.structure,
        signature=prepared.signature,
        recipes={},
        arrays={},
        batched={},
        layer=chosen,
        weights=selected,
        sample_weight=None if sample_weight is None else as_weight(sample_weight),
        inputs=chosen_inputs,
        spread=prepared.spread,
        batch_size=prepared.batch_size,
        training=training,
        seed=None if seed is None else as_seed(seed),
    )
    return about(place_outer_values(question), outputs)


def about(question: Question, outputs: Mapping[str, Output] | Output) -> Question:
    """Return the same question about other outputs.

    Raises:
        TypeError, ValueError: see `ask`.
    """
    arrays: dict[str, tuple[Any, ...]] = {}
    batched: dict[str, tuple[bool, ...]] = {}
    outputs = {SINGLE: outputs} if isinstance(outputs, Output) else outputs
    for name, output in outputs.items():
        arrays[name] = tuple(output.tensors(question.model))
        batched[name] = tuple(b and t.shape.rank != 0 for b, t in zip(output.batched, arrays[name], strict=True))
    recipes = {name: output.recipe for name, output in outputs.items()}
    question = replace(question, recipes=recipes, arrays=arrays, batched=batched)
    _require_rows(question)
    return question


def _require_rows(question: Question) -> None:
    """Raise if an array with one row per sample has another number of rows than the input."""
    rows = question.batch_size
    if rows is None:
        return
    for name, arrays in question.arrays.items():
        for array, batched in zip(arrays, question.batched[name], strict=True):
            if batched and array.shape.rank and array.shape[0] not in (None, rows):
                raise ValueError(
                    f"The input has {rows} rows, so there must be {rows} actions (or units, weights, targets); got shape "
                    f"{tuple(array.shape)}."
                )
    if question.sample_weight is not None:
        shape = question.sample_weight.shape
        if shape.rank == 0 or (shape.rank is not None and shape[0] not in (None, rows)):
            raise ValueError(
                f"sample_weight holds one number for each value of the output, {rows} rows; got shape {tuple(shape)}."
            )
