"""Outputs of a model as numbers, without derivatives, at its own or at other weights."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from rlgrad.core.autograph import as_written
from rlgrad.gradients.programs.answers import read_call
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.outputs import Output, OutputLike, named_outputs
from rlgrad.gradients.questions.question import SINGLE, Question, place
from rlgrad.gradients.questions.selection import NO_WEIGHTS
from rlgrad.gradients.questions.training_mode import as_mode


@as_written
def evaluate(
    model: Any,
    x: Any,
    *,
    output: OutputLike | Mapping[str, OutputLike] = None,
    target: Any = None,
    layer: Any = None,
    at: Any = None,
    training: bool = False,
    seed: Any = None,
) -> Any:
    """f(x_n) for each sample, as numbers: nothing is differentiated, and no gradient flows through them.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        output: `None`: what the model returns, as it is: a tensor with all its units, or a dict or list of heads. Else the
            output (see `gradient`), with the value that `linearize(…).outputs` has; or a dict of outputs, which one pass
            computes all.
        target: see `gradient`.
        layer: see `gradient`.
        at: other values of the weights; the model keeps its own. A dict of values by the variables' paths, in which those
            left out keep their value; or a list in the order of `model.trainable_variables`. Values that a
            `keras.StatelessScope` around this call has put in place are seen as well.
        training: see `gradient`.
        seed: see `gradient`.

    Returns:
        Float (N, …), what the model returns, or a dict by the outputs' names.

    Raises:
        TypeError, ValueError: as `gradient`; a key that no variable has, or another shape than the variable's.

    Example:
        >>> following = evaluate(network, next_observations, at=target_weights)  # (N, A): q of the target network
    """
    whole = output is None
    outputs = {} if whole else named_outputs(output, target)
    if whole and target is not None:
        Output.of(None, target=target)  # says what is wrong
    call, mode = None, as_mode(training, seed)
    if at is None:
        kind = (evaluate, whole, *outputs)
        call = read_call(kind, model, x, tuple(outputs.values()), None, {"layer": layer}, mode=mode)
    if call is not None and call.program is not None:
        arrays = [tensor for each in outputs.values() for tensor in each.tensors(model)]
        return call.pack(call.program.run(call.program.numbers(call.leaves, arrays, None, seed=mode.seed)))
    question = ask(model, x, outputs=outputs, layer=layer, weights=NO_WEIGHTS, training=mode.training, seed=mode.seed)
    if at is not None:
        question = place(question, at)
    computed = compute(("evaluate", whole), question, _returned if whole else _values)
    structure = computed.detail

    def pack(results: list[Any]) -> Any:
        return tf.nest.pack_sequence_as(structure, results)

    if call is not None and computed.program is not None:
        call.cache.keep_call(call.key, call.rows, computed.program, pack)
    return pack(computed.results)


def _returned(question: Question) -> Computed:
    """Compute what the model returns, flat; the detail is its tree."""
    return _flat(question.run_model())


def _values(question: Question) -> Computed:
    """Compute the outputs, flat; the detail is their tree."""
    forward = question.forward()
    return _flat(forward.values.get(SINGLE, forward.values), forward.ranges)


def _flat(tree: Any, ranges: Any = ()) -> Computed:
    structure = tf.nest.map_structure(lambda _: None, tree)
    return Computed(list(map(tf.stop_gradient, tf.nest.flatten(tree))), ranges=ranges, detail=structure)
