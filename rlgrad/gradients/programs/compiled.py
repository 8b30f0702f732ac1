"""Eager calls, compiled once per model and question and kept as long as the model lives.

A question's key holds everything that shapes the computation; the numbers (inputs, actions, unit numbers, scales,
sample weights) are passed in, with an open batch axis, so one compiled function serves every batch. Changing an
attribute of a layer (its activation, say) after a first call is not noticed, as with `keras.Model.predict`.
"""

import contextlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.core.tensorflow_internals import flat_call, trace
from rlgrad.gradients.questions.problem import Notes, Problem, weak
from rlgrad.gradients.questions.recipes import by_value

MAX_PROGRAMS_PER_MODEL = 64

_PROGRAMS: "weakref.WeakKeyDictionary[Any, OrderedDict[Any, Program]]" = weakref.WeakKeyDictionary()


class Program:
    """A compiled question."""

    def __init__(self, problem: Problem, body: Callable[[Problem, Notes], Any]) -> None:
        self.notes = Notes()
        self.variables = problem.weights.variables  # alive as long as their ids are part of a key
        self.model_ref, self.layer_ref = weak(problem.model), weak(problem.layer)
        # What the compiled function is traced from must not keep the model alive, nor the first call's numbers.
        skeleton = problem.without_numbers()
        notes, model_ref, layer_ref = self.notes, self.model_ref, self.layer_ref

        def traced(numbers: list[Any]) -> Any:
            symbolic = replace(skeleton.with_numbers(numbers), model=model_ref(), layer=layer_ref())
            results = body(symbolic, notes)
            notes.returned = tf.nest.map_structure(lambda _: None, results)
            return tf.nest.flatten(results)

        specs = [
            tf.TensorSpec([None, *array.shape[1:]] if batched else array.shape, array.dtype)
            for array, batched in problem.numbers()[len(problem.leaves) :]
        ]
        self._run = flat_call(trace(traced, [*problem.signature, *specs]))

    def __call__(self, problem: Problem) -> Any:
        """Answers the question for these numbers."""
        problem.check_ranges(self.notes)
        return tf.nest.pack_sequence_as(self.notes.returned, self.run([array for array, _ in problem.numbers()]))

    def run(self, numbers: list[Any]) -> list[Any]:
        """The results, flat, for numbers of the right dtypes and shapes in the order of `Problem.numbers`."""
        return self._run(numbers)

    def fits(self, problem: Problem) -> bool:
        """Whether the layer is still the one that was compiled (ids of objects are reused)."""
        return self.layer_ref() is problem.layer


@dataclass(frozen=True)
class Answer:
    """A program, the question that it answered, and its results, flat."""

    program: Program
    problem: Problem
    results: list[Any]


_RECORDS = threading.local()


@contextlib.contextmanager
def recorded() -> Iterator[list[Answer]]:
    """Lists what compiled programs answer in this thread while this context is open."""
    outer, answers = getattr(_RECORDS, "answers", None), list[Answer]()
    _RECORDS.answers = answers
    try:
        yield answers
    finally:
        _RECORDS.answers = outer


def worthwhile(problem: Problem) -> bool:
    """Whether to compile: not inside a caller's `tf.function`, and not where a user's function may capture anything."""
    return tf.executing_eagerly() and all(recipe.cacheable for recipe in problem.recipes.values())


def program(kind: Any, problem: Problem, body: Callable[[Problem, Notes], Any], *, anew: bool = False) -> Program:
    """The compiled function for a question, from the cache or new.

    Args:
        kind: says what `body` computes; can be hashed.
        problem: the question, with numbers.
        body: computes the answer from a question with symbols.
        anew: compile `body` even if there is one, and keep it instead.
    """
    programs = _PROGRAMS.setdefault(problem.model, OrderedDict())
    key = _key(kind, problem)
    found = programs.get(key)
    if found is None or anew or not found.fits(problem):
        found = programs[key] = Program(problem, body)
        while len(programs) > MAX_PROGRAMS_PER_MODEL:
            programs.popitem(last=False)
    return found


def answer(
    kind: Any, problem: Problem, body: Callable[[Problem, Notes], Any], check: Callable[[Notes], None] | None = None
) -> tuple[Any, Notes]:
    """What `body` computes, compiled where that is worthwhile, and what was noted about it.

    Args:
        kind: says what `body` computes; can be hashed.
        problem: the question.
        body: computes the answer.
        check: looks at the notes, before a compiled `body` runs.
    """
    if not worthwhile(problem):
        notes = Notes()
        results = body(problem, notes)
        if check is not None:
            check(notes)
        return results, notes
    found = program(kind, problem, body)
    if check is not None:
        check(found.notes)
    try:
        return _recorded(found, problem), found.notes
    except tf.errors.OpError:  # vectorized without complaint, and failed when it ran
        if not found.notes.vectorized:
            raise
    found = program(kind, replace(problem, loop=True), body, anew=True)
    return _recorded(found, problem), found.notes


def _recorded(program: Program, problem: Problem) -> Any:
    results = program(problem)
    answers = getattr(_RECORDS, "answers", None)
    if answers is not None:
        answers.append(Answer(program, problem, tf.nest.flatten(results)))
    return results


def programs_of(model: Any) -> list[Program]:
    """The compiled functions that are kept for a model."""
    return list(_PROGRAMS.get(model, {}).values())


def _key(kind: Any, problem: Problem) -> Any:
    arrays = tuple(
        (batched, array.dtype, tuple(array.shape[1:] if batched else array.shape))
        for array, batched in problem.numbers()[len(problem.leaves) :]
    )
    return (
        kind,
        tuple(problem.recipes.items()),
        id(problem.layer),
        problem.weights.explicit,
        tuple(map(id, problem.weights.variables)),
        repr(problem.structure),
        problem.signature,
        arrays,
        problem.sample_weight is None,
        tuple(problem.extra),
        tuple(map(id, problem.placed)),
        by_value(getattr(problem.model, "distribution", None)),
        len(getattr(problem.model, "layers", ())),
    )
