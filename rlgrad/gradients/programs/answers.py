"""The trip of a call: question, program, answer. A call that repeats an earlier one goes to its program at once.

To ask a question takes Python some 0.1 ms, as long as a small network's gradient takes. Its program stays the right one
as long as calls differ in nothing but numbers, and the model is made of the same parts.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import keras
import tensorflow as tf

from rlgrad.core.keras_internals import expected_inputs, placed_values
from rlgrad.gradients.programs.cache import ARRAYS, Cache, cache_of, call_key
from rlgrad.gradients.programs.program import NO_EXTRA, Computed, Program
from rlgrad.gradients.questions.inputs import named_leaves, prepare
from rlgrad.gradients.questions.outputs import Output
from rlgrad.gradients.questions.training_mode import INFERENCE, Mode

R = TypeVar("R")


@dataclass(frozen=True)
class Answer(Generic[R]):
    """An answer to a call.

    Args:
        computed: its results are flat.
        pack: makes the caller's result of these.
    """

    computed: Computed
    pack: Callable[[list[Any]], R]


@dataclass(slots=True)
class Call:
    """A caller's arguments.

    Args:
        cache: the model's.
        key: see `call_key`.
        rows: the number of rows.
        leaves: the input's arrays, not yet of the dtypes that the model takes.
        extra: further arrays, by their names in `Question.extra`.
        program: the program that answered such a call before; `None` if there is none.
        pack: makes the caller's result of the program's results.
    """

    cache: Cache
    key: Any
    rows: int
    leaves: Sequence[Any]
    extra: Mapping[str, Any]
    program: Program | None
    pack: Any


@dataclass(frozen=True)
class Beside:
    """Arrays that a computation takes beside the question's, such as a direction.

    Args:
        name: how the caller calls them.
        tree: an array, or a tree of arrays.
        batched: `True` if each has a batch axis.
    """

    name: str
    tree: Any
    batched: bool = False


def answer(
    ask: Callable[..., Answer[R]],
    model: Any,
    x: Any,
    output: Output,
    sample_weight: Any,
    *,
    beside: Beside | None = None,
    mode: Mode = INFERENCE,
    **options: Any,
) -> R:
    """Answer a call: with the program that answered it before, else by asking.

    Args:
        ask: turns the arguments into a question and returns its answer; runs only if no program is known.
        model: the model.
        x: its input.
        output: the output to differentiate.
        sample_weight: see `gradients.gradient`.
        beside: further arrays, which `ask` gets as an option of their name, and puts into `Question.extra` under the names
            of `named_leaves`.
        mode: how the model runs; `ask` gets it as its options `training` and `seed` if that is not at inference.
        options: the other arguments of `ask`, by name.
    """
    call = read_call(ask, model, x, (output,), sample_weight, options, beside, mode)
    if call is not None and call.program is not None:
        program = call.program
        arrays = output.tensors(model) if output.arrays else ()
        numbers = program.numbers(call.leaves, arrays, sample_weight, call.extra, mode.seed)
        try:
            return cast(R, call.pack(program.run(numbers)))
        except tf.errors.OpError:
            pass  # what to do about it is known where programs are compiled
    if beside is not None:
        options[beside.name] = beside.tree
    if mode.training:
        options |= {"training": True, "seed": mode.seed}
    answered = ask(model, x, output=output, sample_weight=sample_weight, **options)
    result, used = answered.pack(answered.computed.results), answered.computed.program
    if call is not None and used is not None and used.extra_dtypes.keys() == call.extra.keys():
        call.cache.keep_call(call.key, call.rows, used, answered.pack)
    return result


def read_call(
    ask: Hashable,
    model: Any,
    x: Any,
    outputs: Sequence[Output],
    sample_weight: Any,
    options: Mapping[str, Any],
    beside: Beside | None = None,
    mode: Mode = INFERENCE,
) -> Call | None:
    """Return the call if it can be known again; `None` if it has to be asked each time."""
    known_again = isinstance(model, keras.layers.Layer) and model.built and tf.executing_eagerly()
    if not known_again or placed_values():  # values in place are numbers of a question too
        return None
    parts: list[Any] = [ask]
    if isinstance(x, ARRAYS):
        leaves: Sequence[Any] = (x,)
    else:
        inputs = prepare(model, x, expected_inputs(model))
        leaves = inputs.leaves
        parts.append(repr(inputs.given))
    arrays = [(leaf, True) for leaf in leaves]
    for output in outputs:
        if not output.recipe.cacheable:
            return None
        parts.append(output.recipe)
        if output.arrays:
            arrays += zip(output.arrays, output.batched, strict=True)
    if not leaves or 0 in [len(leaf.shape) for leaf in leaves]:
        return None
    rows = leaves[0].shape[0]
    if sample_weight is not None:
        arrays.append((sample_weight, True))
    if mode.training:
        parts.append(Mode)
        if mode.seed is not None:
            arrays.append((mode.seed, False))
    extra = NO_EXTRA if beside is None else dict(named_leaves(beside.tree, beside.name))
    parts += extra
    arrays += [(array, beside is not None and beside.batched) for array in extra.values()]
    cache = cache_of(model)
    plain = all(isinstance(array, ARRAYS) for array in extra.values())
    key = call_key(cache, model, parts, options, arrays, rows) if rows and plain else None
    if key is None:
        return None
    known = cache.calls.get(key)
    if known is None or rows > known.rows:
        return Call(cache, key, rows, leaves, extra, None, None)
    return Call(cache, key, rows, leaves, extra, known.program(), known.pack)
