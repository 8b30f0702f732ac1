"""The backward pass: cotangents that fit their values, gradients that are dense, and variables that must be connected."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.gradients.programs.program import Computed
from rlgrad.gradients.questions.chosen_inputs import ChosenInputs
from rlgrad.gradients.questions.heads import shape_text
from rlgrad.gradients.questions.inputs import as_tensor
from rlgrad.gradients.questions.question import SINGLE, Question
from rlgrad.gradients.questions.selection import select_weights


class DisconnectedGradientError(ValueError):
    """The chosen output does not depend on something that it was to be differentiated with respect to.

    TensorFlow returns `None` in this case, other libraries return zeros. Here it is an error, whose message lists what
    is not connected and what is.
    """


def value_and_sum(question: Question) -> Computed:
    """Compute f, and Σ_n c_n ∇f(x_n) for each variable that f depends on, in one forward and one backward pass."""
    sources = question.sources
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        forward = question.forward()
    value = forward.values[SINGLE]
    gradients = tape.gradient(value, sources, output_gradients=weight_for(question, value, forward.units[SINGLE]))
    positions = tuple(i for i, gradient in enumerate(gradients) if gradient is not None)
    require_connected(question, positions)
    sums = [dense(gradients[i], sources[i]) for i in positions]
    return Computed([value, *sums], positions, forward.ranges)


def require_connected(question: Question, positions: Iterable[int], names: Iterable[str] = ()) -> None:
    """Raise if a variable that the caller named, or every variable, is not among the connected `positions`.

    Raises:
        DisconnectedGradientError: with what is not connected, and what is.
    """
    selected, connected = question.weights, set(positions)
    missing = [key for i, key in enumerate(selected.keys) if i not in connected]
    if not missing or (connected and not selected.explicit):
        return
    named = [repr(name) for name in names if name != SINGLE]
    what = f"The outputs {', '.join(named)} do" if len(named) > 1 else " ".join(["The output", *named, "does"])
    if not selected.explicit:
        raise DisconnectedGradientError(
            f"{what} not depend on any trainable weight of model {question.model.name!r}. Is there a stop_gradient, a "
            "NumPy conversion or an argmax on the way, or is layer= a layer before all weights?"
        )
    present = _connected_keys(question, list(names) or [SINGLE])
    raise DisconnectedGradientError(
        f"{what} not depend on these of the chosen weights: {', '.join(missing)}. Connected are: "
        f"{', '.join(present) or 'none'}. Without weights= the result has all weights that the output depends on."
    )


def with_own_inputs(question: Question) -> Question:
    """Return the same question with tensors of its own as inputs: of one that the caller gave twice, a tape adds both up."""
    return replace(question, leaves=tuple(map(keras_internals.identity_with_mask, question.leaves)))


def require_inputs(chosen: ChosenInputs, connected: Iterable[int]) -> None:
    """Raise if the output does not depend on a chosen part of the input; `connected` are the positions of those it depends on.

    Raises:
        DisconnectedGradientError: with the inputs that are not connected, and those that are.
    """
    found = sorted(connected)
    missing = [chosen.names[i] for i in chosen.positions if i not in found]
    if missing:
        entries = [chosen.entries[i] for i in found]
        advice = f" It depends on inputs={(entries[0] if len(entries) == 1 else entries)!r}." if entries else ""
        raise DisconnectedGradientError(f"The output does not depend on input {', '.join(missing)}.{advice}")


def require_repeatable(question: Question, what: str) -> None:
    """Raise if TensorFlow differentiates one run of the model only once.

    Raises:
        NotImplementedError: with the functions that do not need more.
    """
    if keras_internals.has_saved_loops(question.model):
        raise NotImplementedError(
            f"{what} differentiates one forward pass several times, which TensorFlow does not do for model "
            f"{question.model.name!r}: a SavedModel in it has a recurrent layer (keras.layers.TFSMLayer). gradient, "
            "value_and_gradient and the per-sample functions run it anew each time."
        )


def _connected_keys(question: Question, names: list[str]) -> list[str]:
    """Return all trainable variables that the outputs depend on, for a message: one more pass of the model."""
    if question.model.trainable_variables:
        question = replace(question, weights=select_weights(question.model, None))
    sources = question.sources
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        values = question.forward().values
    gradients = tape.gradient([values[name] for name in names], sources)
    return [key for key, gradient in zip(question.weights.keys, gradients, strict=True) if gradient is not None]


def dense(gradient: Any, variable: Any) -> Any:
    """Return a gradient as a tensor of the variable's shape; an embedding's is slices, possibly several of one row."""
    if isinstance(gradient, tf.IndexedSlices):
        gradient = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0])
    return gradient


def cotangent(value: Any, credit: Any, what: str, batch_size: int | None = None, units: int = 0) -> Any:
    """Return a credit as a tensor of the value's dtype and shape.

    Args:
        value: f.
        credit: one number, one for each number of the value, or one for each of its samples.
        what: what it is, for a message.
        batch_size: the number of rows, for a message.
        units: the number of axes of the value's units, which one number per sample is for all of.

    Raises:
        TypeError: the credit is not a number.
        ValueError: the credit is neither one number nor of these shapes.
    """
    credit = tf.cast(as_tensor(credit), value.dtype)
    if credit.shape.rank == 0:
        return tf.fill(tf.shape(value), credit) if value.shape.rank != 0 else credit
    if credit.shape.is_compatible_with(value.shape):
        # With axes of unknown sizes, other shapes show at run time.
        return credit if not units or value.shape[1:].is_fully_defined() else tf.reshape(credit, tf.shape(value))
    rank = value.shape.rank - units
    if units and credit.shape.is_compatible_with(value.shape[:rank]):
        per_sample = tf.reshape(credit, tf.concat([tf.shape(credit), [1] * units], axis=0))
        return tf.broadcast_to(per_sample, tf.shape(value))
    samples = f", or one number for each sample {shape_text(value.shape[:rank], batch_size)}" if units else ""
    raise ValueError(
        f"{what} must have the output's shape {shape_text(value.shape, batch_size)}{samples}, got "
        f"{shape_text(credit.shape, batch_size)}."
    )


def weight_for(question: Question, value: Any, units: int = 0) -> Any:
    """Return the question's sample weights as a cotangent of `value`; 1 if there are none."""
    if question.sample_weight is None:
        return tf.ones_like(value)
    return cotangent(value, question.sample_weight, "sample_weight", question.batch_size, units)


def wide(tensor: Any) -> Any:
    """Return a floating-point tensor in float32, if it is of a smaller dtype."""
    return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating and tensor.dtype.size < 4 else tensor


def credits_for(values: Mapping[str, Any], credit: Any, units: Mapping[str, int]) -> dict[str, Any]:
    """Return credits as cotangents of the outputs' values, by output name, in float32 or wider."""
    found = {}
    for name, c in credits_by_name(values, credit).items():
        what = f"The credit of {name!r}" if name != SINGLE else "The credit"
        found[name] = cotangent(wide(values[name]), c, what, units=units[name])
    return found


def credits_by_name(values: Mapping[str, Any], credit: Any) -> dict[str, Any]:
    """Return the credit of each output, by name and of any shape; 1 for all outputs if no credit is given.

    Raises:
        ValueError: a name that no output has; a dict although the one output has no name, or no dict although the
            outputs have names.
    """
    if credit is None:
        return dict.fromkeys(values, 1.0)
    if SINGLE in values:
        if isinstance(credit, Mapping):
            raise ValueError(
                "This linearization has one output without a name; give its credit as it is, not in a dict."
            )
        return {SINGLE: credit}
    if not isinstance(credit, Mapping):
        raise ValueError(f"The credit for outputs with names is a dict with keys among {list(values)}; got {credit!r}.")
    for name in credit:
        if name not in values:
            close = get_close_matches(str(name), list(values), n=1)
            meant = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(map(repr, values))}."
            raise ValueError(f"No output is called {name!r}, so it cannot be credited. {meant}")
    if not credit:
        raise ValueError(f"The credit is empty: no output counts. Outputs: {', '.join(map(repr, values))}.")
    return dict(credit)


def tangents_for(question: Question, tangent: Any, keys: list[str]) -> list[Any]:
    """Return a direction in the space of weights as tensors, float32 or wider, in the order of `keys`.

    Raises:
        ValueError: other keys than these, or another shape than the variable's.
    """
    if not isinstance(tangent, Mapping) or set(tangent) != set(keys):
        got = sorted(map(str, tangent)) if isinstance(tangent, Mapping) else type(tangent).__name__
        raise ValueError(
            f"The direction is a dict with exactly the keys {', '.join(keys)}, as a gradient is; got {got}."
        )
    variables = dict(zip(question.weights.keys, question.weights.variables, strict=True))
    tensors = []
    for key in keys:
        variable = variables[key]
        dtype = tf.as_dtype(variable.dtype)
        v = tf.cast(as_tensor(tangent[key]), dtype if dtype.size >= 4 else tf.float32)
        if not v.shape.is_compatible_with(tf.TensorShape(variable.shape)):
            raise ValueError(f"The direction of {key!r} must have shape {tuple(variable.shape)}, got {tuple(v.shape)}.")
        tensors.append(v)
    return tensors
