"""The gradient of what a model says with respect to its weights, or its input, as functions."""

from typing import Any

import tensorflow as tf

from rlgrad.gradients.linearization import linearize_here
from rlgrad.gradients.programs import compiled
from rlgrad.gradients.programs.backward import weight_for
from rlgrad.gradients.programs.repeated import repeatable
from rlgrad.gradients.questions.inputs import leaf_names
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.posing import pose
from rlgrad.gradients.questions.problem import SINGLE, DisconnectedGradientError, Notes, Problem, one_of_zeros


@repeatable
def gradient(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
) -> dict[str, Any]:
    """Σ_n c_n ∇θ f(x_n): the gradient of a model's output, not of an error, with respect to its weights.

    A sum, never a mean: divide the weights by N where a mean is meant.

    Args:
        model: a built Keras model: Sequential, functional or subclassed. Run with `training=False`, and left as it was.
        x: its input, float (N, …), or a dict or list of arrays for a model with several inputs.
        output: what f is. `None`: the model's only output, summed over its units, as `K.gradients` did (on a softmax
            that sum is constant, and its gradient 0). An int: that unit. An int array (N,): one unit per sample. A
            string: that head of a model with several. `LogProb(actions)`, `Entropy()`, sums and scalings of these. A
            function from what the model returns to (N,); this one is not compiled.
        layer: a layer's name (at any depth), position in `model.layers`, or the layer: f is made of its output instead.
        weights: with respect to what. `None`: the trainable variables that f depends on. Else a layer's name or
            position, the end of a variable's path (`"first/kernel"`), a layer, a variable (also a float one that is not
            trainable), or a list of these.
        sample_weight: c, float, exactly f's shape; default 1.

    Returns:
        For each variable, under its path and in the order of `model.trainable_variables`, a tensor of the variable's
        shape, in units of f per weight.

    Raises:
        DisconnectedGradientError: f does not depend on a variable that was named, or on any at all.
        TypeError: f is not floating-point; actions, units or names of the wrong type.
        ValueError: the model is not built or has several outputs; shapes that do not fit; names that nothing has.

    Example:
        >>> gradients = gradient(policy, x, output=LogProb(actions), sample_weight=advantages / len(x))
    """
    return _value_and_gradient(model, x, output, layer, weights, sample_weight)[1]


@repeatable
def value_and_gradient(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
) -> tuple[Any, dict[str, Any]]:
    """f(x_n) for each sample, not weighted, and Σ_n c_n ∇θ f(x_n), from one forward and one backward pass.

    Args, errors: see `gradient`.

    Returns:
        `(f, gradient)`: float (N,), and what `gradient` returns.
    """
    return _value_and_gradient(model, x, output, layer, weights, sample_weight)


@repeatable
def input_gradient(
    model: Any, x: Any, *, output: OutputLike = None, layer: Any = None, sample_weight: Any = None
) -> Any:
    """c_n ∇x f(x_n): how each number of the input moves the output (saliency).

    Args:
        model: see `gradient`.
        x: float (N, …), or a dict or list of such arrays.
        output: see `gradient`.
        layer: see `gradient`.
        sample_weight: see `gradient`.

    Returns:
        A tree of x's structure and shapes, in units of f per unit of x.

    Raises:
        DisconnectedGradientError: f does not depend on an input.
        TypeError: x holds integers, which have no gradient; and what `gradient` raises.
        ValueError: what `gradient` raises.
    """
    problem = pose(
        model,
        x,
        outputs={SINGLE: Output.of(output)},
        layer=layer,
        sample_weight=sample_weight,
        differentiate_x=True,
    )
    _, gradients, _ = answer("input_gradient", problem, _input_gradient)
    if problem.batch_size == 0:
        gradients = [g[:0] for g in gradients]
    return tf.nest.pack_sequence_as(problem.structure, gradients)


def answer(kind: str, problem: Problem, body: Any) -> tuple[Any, list[Any], Notes]:
    """Computes `body`, compiled where that is worthwhile: (value, list of results, notes)."""
    if problem.batch_size == 0:
        value, results, notes = answer(kind, one_of_zeros(problem), body)
        return value[:0], [tf.zeros_like(result) for result in results], notes
    (value, results), notes = compiled.answer(kind, problem, body)
    return value, results, notes


def _value_and_gradient(
    model: Any, x: Any, output: OutputLike, layer: Any, weights: Any, sample_weight: Any
) -> tuple[Any, dict[str, Any]]:
    problem = pose(
        model, x, outputs={SINGLE: Output.of(output)}, layer=layer, weights=weights, sample_weight=sample_weight
    )
    value, gradients, notes = answer("gradient", problem, _one_backward_pass)
    return value, {problem.weights.keys[i]: g for i, g in zip(notes.listed, gradients, strict=True)}


def _one_backward_pass(problem: Problem, notes: Notes) -> tuple[Any, list[Any]]:
    lin = linearize_here(problem, notes)
    value = lin.outputs
    gradients = lin.gradient(weight_for(problem, value))
    notes.listed = tuple(i for i, key in enumerate(problem.weights.keys) if key in gradients)
    return value, list(gradients.values())


def _input_gradient(problem: Problem, notes: Notes) -> tuple[Any, list[Any]]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(problem.leaves)
        value = problem.forward(notes)[SINGLE]
    weight = weight_for(problem, value)
    gradients = tape.gradient(value, problem.leaves, output_gradients=weight)
    names = leaf_names(problem.structure)
    missing = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    if missing:
        raise DisconnectedGradientError(f"The output does not depend on input {', '.join(missing)}.")
    return value, list(gradients)
