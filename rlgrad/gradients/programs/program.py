"""A question compiled into a program, and the function that computes a question's results with one."""

import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.tensorflow_internals import cannot_differentiate_in_graph, flat_call, trace_facts
from rlgrad.gradients.programs.cache import cache_of, find_or_make, question_key
from rlgrad.gradients.questions.heads import check_range
from rlgrad.gradients.questions.inputs import as_weight, convert
from rlgrad.gradients.questions.question import Question, one_row_of_zeros
from rlgrad.gradients.questions.training_mode import as_seed


@dataclass(frozen=True)
class Computed:
    """The results of a computation, and the facts that hold of them for all numbers.

    Args:
        results: a tree of tensors.
        positions: the variables that the results are about, by their position among the question's.
        ranges: see `ForwardPass.ranges`.
        vectorized: samples were vectorized over, which may fail only when the program runs.
        bytes_per_sample: memory that the computation takes for each sample.
        detail: further facts that one kind of computation has.
        program: the program that gave the results; `None` if they were computed without one.
    """

    results: Any
    positions: tuple[int, ...] = ()
    ranges: tuple[tuple[int, int, str], ...] = ()
    vectorized: bool = False
    bytes_per_sample: int = 0
    detail: Any = None
    program: "Program | None" = None


NO_EXTRA: Mapping[str, Any] = {}
Computation = Callable[[Question], Computed]


class Program:
    """A question compiled for one computation.

    Attributes:
        facts: what the computation told when it was traced; its results are a tree with a `None` for each tensor.
        extra_dtypes: the dtype of each array in the question's `extra`, by name.
    """

    def __init__(self, question: Question, computation: Computation) -> None:
        self._dtypes = [spec.dtype for spec in question.signature]
        self.extra_dtypes = {name: array.dtype for name, array in question.extra.items()}
        self._variables = question.weights.variables  # alive as long as their ids are part of a key
        # The traced function must not keep the model alive, nor the first call's numbers.
        specs = [tf.TensorSpec(shape, dtype) for dtype, shape in question.forms]
        model, layer, skeleton = _weak(question.model), _weak(question.layer), question.without_numbers()
        self._layer, self._skeleton = layer, skeleton

        def traced(numbers: list[Any]) -> tuple[list[Any], Computed]:
            computed = computation(replace(skeleton, model=model(), layer=layer()).with_numbers(numbers))
            structure = tf.nest.map_structure(lambda _: None, computed.results)
            ranges = tuple(dict.fromkeys(computed.ranges))
            return tf.nest.flatten(computed.results), replace(computed, results=structure, ranges=ranges)

        concrete, self.facts = trace_facts(traced, [*question.signature, *specs])
        self._run = flat_call(concrete)

    def __call__(self, question: Question) -> Computed:
        """Compute the results for a question's numbers."""
        results = self.run([array for array, _ in question.numbers])
        return replace(self.facts, results=tf.nest.pack_sequence_as(self.facts.results, results), program=self)

    def numbers(
        self,
        leaves: Sequence[Any],
        arrays: Sequence[Any],
        sample_weight: Any,
        extra: Mapping[str, Any] = NO_EXTRA,
        seed: Any = None,
    ) -> list[Any]:
        """Return the tensors of a question that differs from the compiled one in numbers alone."""
        tensors = [convert(leaf, dtype) for leaf, dtype in zip(leaves, self._dtypes, strict=True)]
        tensors += arrays
        if sample_weight is not None:
            tensors.append(as_weight(sample_weight))
        tensors += [convert(extra[name], dtype) for name, dtype in self.extra_dtypes.items()]
        if seed is not None:
            tensors.append(as_seed(seed))
        return tensors

    def question(self, model: Any, numbers: Sequence[Any], rows: int) -> Question:
        """Return the compiled question about other numbers."""
        return replace(self._skeleton, model=model, layer=self._layer(), batch_size=rows).with_numbers(numbers)

    def run(self, numbers: list[Any]) -> list[Any]:
        """Return the results, flat, for tensors of the right dtypes and shapes in the order of `Question.numbers`."""
        for position, count, what in self.facts.ranges:
            check_range(numbers[position], count, what)
        return self._run(numbers)


def is_compilable(question: Question) -> bool:
    """Return `False` inside a caller's `tf.function`, for a user's function (it may capture anything), and for saved loops.

    Also inside of a caller's `StatelessScope` that gives values to variables of other models, which this one may read.
    """
    cacheable = all(recipe.cacheable for recipe in question.recipes.values())
    if not (tf.executing_eagerly() and cacheable) or keras_internals.has_saved_loops(question.model):
        return False
    return keras_internals.placed_values().keys() <= set(map(id, question.placed))


def program_for(kind: Hashable, question: Question, computation: Computation, *, anew: bool = False) -> Program:
    """Return the program of a question, from the model's cache or new.

    Args:
        kind: the name of the computation.
        question: the question, with numbers.
        computation: computes the results of a question whose tensors are symbols.
        anew: compile also if there is a program, and keep the new one instead.
    """
    cache = cache_of(question.model)
    key = question_key(cache, kind, question)
    if anew:
        cache.programs.pop(key, None)
    program: Program = find_or_make(cache.programs, key, lambda: Program(question, computation))
    return program


def programs_of(model: Any) -> list[Program]:
    """Return the programs that are kept for a model."""
    return list(cache_of(model).programs.values())


def cut_rows(results: Any) -> Any:
    """Return the results for no rows, of those for one."""
    return tf.nest.map_structure(lambda tensor: tensor[:0], results)


def compute(
    kind: Hashable,
    question: Question,
    computation: Computation,
    *,
    check: Callable[[Computed], None] | None = None,
    without_rows: Callable[[Any], Any] = cut_rows,
    traced: bool = False,
) -> Computed:
    """Compute the results of a question: with a compiled program if possible, else directly.

    Args:
        kind: the name of the computation; hashable.
        question: the question.
        computation: computes the results.
        check: looks at the facts before a program runs.
        without_rows: makes of the results for one row of zeros those for no rows.
        traced: do not run operations one by one; trace them also if the program cannot be kept.
    """
    if question.batch_size == 0:
        computed = compute(kind, one_row_of_zeros(question), computation, check=check)
        return replace(computed, results=without_rows(computed.results), program=None)
    if not is_compilable(question):
        if traced and tf.executing_eagerly() and not keras_internals.has_saved_loops(question.model):
            passing = Program(question, computation)
            if check is not None:
                check(passing.facts)
            return replace(passing(question), program=None)
        computed = _compute_directly(question, computation)
        if check is not None:
            check(computed)
        return computed
    program = program_for(kind, question, computation)
    if check is not None:
        check(program.facts)
    try:
        return program(question)
    except tf.errors.OpError:
        if not program.facts.vectorized:
            raise
    return program_for(kind, replace(question, loop=True), computation, anew=True)(question)


def _compute_directly(question: Question, computation: Computation) -> Computed:
    try:
        return computation(question)
    except Exception as error:
        if not cannot_differentiate_in_graph(error):
            raise
        raise NotImplementedError(
            f"TensorFlow cannot differentiate model {question.model.name!r} here: a SavedModel in it has a recurrent layer "
            "(keras.layers.TFSMLayer), which is differentiated either eagerly or inside of tf.function, whichever came "
            "first since it was loaded. Ask for gradients outside of tf.function only, or rebuild the layer in Keras."
        ) from error


def _weak(thing: Any) -> Callable[[], Any]:
    """Return a reference that does not keep a model or layer alive; to `None` for `None`."""
    return (lambda: None) if thing is None else weakref.ref(thing)
