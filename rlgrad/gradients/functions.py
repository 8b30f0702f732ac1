"""The gradient of a model's output with respect to its weights, or its input, as functions."""

from typing import Any

import keras
import tensorflow as tf

from rlgrad.core import snapshots
from rlgrad.core.autograph import as_written
from rlgrad.gradients.programs.answers import Answer, answer
from rlgrad.gradients.programs.backward import require_inputs, with_own_inputs
from rlgrad.gradients.programs.coupling import require_separate_function, require_separate_samples
from rlgrad.gradients.programs.half_precision import pull_back_rows, value_and_sum, without_weights
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import Question, place
from rlgrad.gradients.questions.training_mode import as_mode


@as_written
def gradient(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    target: Any = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
    training: bool = False,
    seed: Any = None,
) -> dict[str, Any]:
    """Σ_n c_n ∇θ f(x_n): the gradient of a model's output, not of an error, with respect to its weights.

    The result is a sum, never a mean: divide the weights by N for a mean.

    Args:
        model: a built Keras model: Sequential, functional or subclassed. Left as it was.
        x: its input, float (N, …), or a dict or list of arrays for a model with several inputs. For a subclassed model
            with `call(self, x, t)`: a tuple or list in this order, or a dict by the arguments' names.
        output: f. `None`: the model's only output, summed over its units, as `K.gradients` did (on a softmax that sum is
            constant, and its gradient 0). An int: that unit; −1 is the last. An int array (N,): one unit per sample. A
            string: that head of a model with several. `LogProb(actions)`, `Entropy()`, `Chosen(head, actions)`, the vectors
            `Each(head)` and `Action(noise)`, sums and scalings of these. A function from what the model returns to (N,),
            which is not compiled; with `target` a function of that and of the targets.
        target: an array with a row for each sample, or a tree of such arrays: the second argument of the function.
            f is then any loss of each sample: `output=lambda y, t: keras.losses.mean_squared_error(t, y), target=labels`.
        layer: a layer's name (at any depth), its position in `model.layers`, or the layer: f is then made of its output.
        weights: the variables. `None`: the trainable variables that f depends on. Else a layer's name or position, the
            end of a variable's path (`"first/kernel"`), a layer, a variable (also a float one that is not trainable), or
            a list of these.
        sample_weight: c, float, exactly f's shape; default 1. Of a vector, which counts as the sum of its units, also (N,):
            one number for all units of a sample.
        training: run the model in training mode: dropout drops, and a batch normalization takes the batch's own statistics.
            The moving ones stay as they are; `linearize(…).statistics` says what they would become.
        seed: with `training`, what its layers draw from: an integer ≥ 0, or int32 (2,). The same seed gives the same masks.

    Returns:
        For each variable, under its path and in the order of `model.trainable_variables`, a tensor of the variable's
        shape, in units of f per weight.

    Raises:
        DisconnectedGradientError: f does not depend on a variable that was named, or on any variable.
        TypeError: f is not floating-point; actions, units or names of the wrong type.
        ValueError: the model is not built, or has several outputs; shapes that do not fit; unknown names; a layer that draws
            random numbers in training mode without a seed.

    Example:
        >>> gradients = gradient(policy, x, output=LogProb(actions), sample_weight=advantages / len(x))
    """
    f, mode = Output.of(output, target=target), as_mode(training, seed)
    return answer(_gradient, model, x, f, sample_weight, mode=mode, layer=layer, weights=weights)


@as_written
def value_and_gradient(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    target: Any = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
    training: bool = False,
    seed: Any = None,
) -> tuple[Any, dict[str, Any]]:
    """f(x_n) for each sample, without its weight, and Σ_n c_n ∇θ f(x_n), from one forward and one backward pass.

    Args, errors: see `gradient`.

    Returns:
        `(f, gradient)`: float (N,), of a vector (N, …), and a dict as `gradient` returns it.
    """
    f, mode = Output.of(output, target=target), as_mode(training, seed)
    return answer(_value_and_gradient, model, x, f, sample_weight, mode=mode, layer=layer, weights=weights)


@as_written
def input_gradient(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    target: Any = None,
    inputs: Any = None,
    layer: Any = None,
    at: Any = None,
    sample_weight: Any = None,
    training: bool = False,
    seed: Any = None,
) -> Any:
    """c_n ∇x f(x_n): how each number of the input moves the output (saliency).

    Args:
        model: see `gradient`.
        x: float (N, …), or a dict or list of arrays. Integers for a `keras.Input` of floats count as the floats that it
            makes of them.
        output: see `gradient`.
        target: see `gradient`.
        inputs: the arrays of x to differentiate, beside others of any dtype, or that f does not depend on. `None`: all.
            Else a key of a dict (for a dict in a dict "a/b"), the name of a `keras.Input`, a position in a list; or a
            list of these.
        layer: see `gradient`.
        at: other values of the weights, as `evaluate` takes them; the model keeps its own.
        sample_weight: see `gradient`.
        training: see `gradient`.
        seed: see `gradient`.

    Returns:
        A tree with the structure and shapes of x, in units of f per unit of x. With one entry as `inputs`, what x has
        there; with a list of entries, a dict with a key for each entry.

    Raises:
        BatchCoupledError: the model mixes its samples.
        DisconnectedGradientError: f does not depend on a chosen input.
        TypeError: a chosen input holds integers, truth values or strings, which have no gradient; and as `gradient`.
        ValueError: as `gradient`.

    Example:
        >>> input_gradient(model, {"numbers": numbers, "category": category}, inputs="numbers")
    """
    f, mode = Output.of(output, target=target), as_mode(training, seed)
    options = {"inputs": inputs, "layer": layer}
    if at is None:
        return answer(_input_gradient, model, x, f, sample_weight, mode=mode, **options)
    answered = _input_gradient(
        model, x, output=f, sample_weight=sample_weight, at=at, training=mode.training, seed=mode.seed, **options
    )
    return answered.pack(answered.computed.results)


def forget(model: Any) -> None:
    """Drop everything that was compiled for a model; the next call compiles anew.

    Needed only after a change that is not seen: of numbers inside of a NumPy array of more than 64 kB that the model's code
    reads as a constant, or of something outside of Python objects, such as a file. Changes of layers, attributes, plain
    tensors, closures, globals and of what is trainable are seen.

    Args:
        model: a Keras model.

    Raises:
        TypeError: it is not a Keras model.
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"forget() takes a Keras model, got {type(model).__name__}.")
    snapshots.forget(model)


def _gradient(model: Any, x: Any, **options: Any) -> Answer[dict[str, Any]]:
    computed, keys = _value_and_sum(model, x, **options)
    return Answer(computed, lambda results: dict(zip(keys, results[1:], strict=True)))


def _value_and_gradient(model: Any, x: Any, **options: Any) -> Answer[tuple[Any, dict[str, Any]]]:
    computed, keys = _value_and_sum(model, x, **options)
    return Answer(computed, lambda results: (results[0], dict(zip(keys, results[1:], strict=True))))


def _value_and_sum(model: Any, x: Any, *, output: Any, **options: Any) -> tuple[Computed, list[str]]:
    """Return f and its gradients, and the keys of their variables."""
    question = ask(model, x, outputs=output, **options)
    computed = compute(
        "gradient",
        question,
        value_and_sum,
        without_rows=lambda results: [results[0][:0], *map(tf.zeros_like, results[1:])],
    )
    return computed, [question.weights.keys[i] for i in computed.positions]


def _input_gradient(model: Any, x: Any, *, output: Any, at: Any = None, **options: Any) -> Answer[Any]:
    question = ask(model, x, outputs=output, differentiate_x=True, **options)
    if at is not None:
        question = place(question, at)
    computed = compute("input_gradient", question, _leaf_gradients)
    return Answer(computed, question.inputs.packed)


def _leaf_gradients(question: Question) -> Computed:
    require_separate_samples(question)
    question, weights = without_weights(with_own_inputs(question))
    floating = question.floating_leaves
    with tf.GradientTape(persistent=weights is not None, watch_accessed_variables=False) as tape:
        tape.watch(list(floating.values()))
        forward = question.forward()
    require_separate_function(question, forward)
    found = pull_back_rows(question, weights, forward, list(floating.values()), tape)
    # Those of leaves that were not chosen are for the message; a compiled program does not compute them.
    gradients = {i: tf.convert_to_tensor(g) for i, g in zip(floating, found, strict=True) if g is not None}
    require_inputs(question.inputs, gradients)
    return Computed([gradients[i] for i in question.inputs.positions], ranges=forward.ranges)
