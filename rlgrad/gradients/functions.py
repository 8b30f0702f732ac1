"""The gradient of a model's output with respect to its weights, or its input, as functions."""

from typing import Any

import tensorflow as tf

from rlgrad.gradients.programs.answers import Answer, answer
from rlgrad.gradients.programs.backward import require_inputs, value_and_sum, weight_for, with_own_inputs
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import SINGLE, Question


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

    The result is a sum, never a mean: divide the weights by N for a mean.

    Args:
        model: a built Keras model: Sequential, functional or subclassed. Run with `training=False`, and left as it was.
        x: its input, float (N, …), or a dict or list of arrays for a model with several inputs.
        output: f. `None`: the model's only output, summed over its units, as `K.gradients` did (on a softmax that sum is
            constant, and its gradient 0). An int: that unit. An int array (N,): one unit per sample. A string: that head
            of a model with several. `LogProb(actions)`, `Entropy()`, sums and scalings of these. A function from what
            the model returns to (N,), which is not compiled.
        layer: a layer's name (at any depth), its position in `model.layers`, or the layer: f is then made of its output.
        weights: the variables. `None`: the trainable variables that f depends on. Else a layer's name or position, the
            end of a variable's path (`"first/kernel"`), a layer, a variable (also a float one that is not trainable), or
            a list of these.
        sample_weight: c, float, exactly f's shape; default 1.

    Returns:
        For each variable, under its path and in the order of `model.trainable_variables`, a tensor of the variable's
        shape, in units of f per weight.

    Raises:
        DisconnectedGradientError: f does not depend on a variable that was named, or on any variable.
        TypeError: f is not floating-point; actions, units or names of the wrong type.
        ValueError: the model is not built, or has several outputs; shapes that do not fit; unknown names.

    Example:
        >>> gradients = gradient(policy, x, output=LogProb(actions), sample_weight=advantages / len(x))
    """
    return answer(_gradient, model, x, Output.of(output), sample_weight, layer=layer, weights=weights)


def value_and_gradient(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
) -> tuple[Any, dict[str, Any]]:
    """f(x_n) for each sample, without its weight, and Σ_n c_n ∇θ f(x_n), from one forward and one backward pass.

    Args, errors: see `gradient`.

    Returns:
        `(f, gradient)`: float (N,), and a dict as `gradient` returns it.
    """
    return answer(_value_and_gradient, model, x, Output.of(output), sample_weight, layer=layer, weights=weights)


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
        A tree with the structure and shapes of x, in units of f per unit of x.

    Raises:
        DisconnectedGradientError: f does not depend on an input.
        TypeError: x holds integers, which have no gradient; and as `gradient`.
        ValueError: as `gradient`.
    """
    return answer(_input_gradient, model, x, Output.of(output), sample_weight, layer=layer)


def _gradient(model: Any, x: Any, **options: Any) -> Answer[dict[str, Any]]:
    computed, keys = _value_and_sum(model, x, **options)
    return Answer(computed, lambda results: dict(zip(keys, results[1:], strict=True)))


def _value_and_gradient(model: Any, x: Any, **options: Any) -> Answer[tuple[Any, dict[str, Any]]]:
    computed, keys = _value_and_sum(model, x, **options)
    return Answer(computed, lambda results: (results[0], dict(zip(keys, results[1:], strict=True))))


def _value_and_sum(
    model: Any, x: Any, *, output: Any, layer: Any, weights: Any, sample_weight: Any
) -> tuple[Computed, list[str]]:
    """Return f and its gradients, and the keys of their variables."""
    question = ask(model, x, outputs=output, layer=layer, weights=weights, sample_weight=sample_weight)
    computed = compute(
        "gradient",
        question,
        value_and_sum,
        without_rows=lambda results: [results[0][:0], *map(tf.zeros_like, results[1:])],
    )
    return computed, [question.weights.keys[i] for i in computed.positions]


def _input_gradient(model: Any, x: Any, *, output: Any, layer: Any, sample_weight: Any) -> Answer[Any]:
    question = ask(model, x, outputs=output, layer=layer, sample_weight=sample_weight, differentiate_x=True)
    computed = compute("input_gradient", question, _leaf_gradients)
    structure = question.structure  # and not the question: what is kept with a model must not keep the model
    return Answer(computed, lambda results: tf.nest.pack_sequence_as(structure, results))


def _leaf_gradients(question: Question) -> Computed:
    question = with_own_inputs(question)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(question.leaves)
        forward = question.forward()
    value = forward.values[SINGLE]
    gradients = tape.gradient(value, question.leaves, output_gradients=weight_for(question, value))
    require_inputs(question, gradients)
    return Computed(list(gradients), ranges=forward.ranges)
