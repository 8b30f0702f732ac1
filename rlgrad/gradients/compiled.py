"""Eager calls, compiled once per model and question and kept as long as the model lives.

A question's key holds everything that shapes the computation; the numbers (inputs, actions, unit numbers, scales,
sample weights) are passed in, with an open batch axis, so one compiled function serves every batch. Changing an
attribute of a layer (its activation, say) after a first call is not noticed, as with `keras.Model.predict`.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from rlgrad.gradients.problem import Notes, Problem, weak
from rlgrad.gradients.recipes import by_value

MAX_PROGRAMS_PER_MODEL = 64

_PROGRAMS: "weakref.WeakKeyDictionary[Any, OrderedDict[Any, Program]]" = weakref.WeakKeyDictionary()


class Program:
    """A compiled question."""

    def __init__(self, problem: Problem, body: Callable[[Problem, Notes], Any]) -> None:
        self.notes = Notes()
        self.variables = problem.weights.variables  # alive as long as their ids are part of a key
        self.model_ref, self.layer_ref = weak(problem.model), weak(problem.layer)
        # What the compiled function is traced from must not keep the model alive, nor the first call's numbers.
        skeleton = replace(problem, model=None, layer=None, leaves=(), arrays={}, sample_weight=None)
        counts = {name: len(arrays) for name, arrays in problem.arrays.items()}
        notes, model_ref, layer_ref = self.notes, self.model_ref, self.layer_ref
        weighted = problem.sample_weight is not None

        def traced(leaves: list[Any], arrays: list[Any], weight: list[Any]) -> Any:
            remaining = iter(arrays)
            symbolic = replace(
                skeleton,
                model=model_ref(),
                layer=layer_ref(),
                leaves=tuple(leaves),
                arrays={name: tuple(next(remaining) for _ in range(count)) for name, count in counts.items()},
                sample_weight=weight[0] if weighted else None,
            )
            return body(symbolic, notes)

        function = tf.function(traced, autograph=False)
        arrays = [
            _open(array) if batched else tf.TensorSpec(array.shape, array.dtype)
            for name in problem.arrays
            for array, batched in zip(problem.arrays[name], problem.batched[name], strict=True)
        ]
        weight = [_open(problem.sample_weight)] if weighted else []
        self.function = function.get_concrete_function(list(problem.signature), arrays, weight)

    def __call__(self, problem: Problem) -> Any:
        """Answers the question for these numbers."""
        arrays = [array for name in problem.arrays for array in problem.arrays[name]]
        weight = [] if problem.sample_weight is None else [problem.sample_weight]
        problem.check_ranges(self.notes)
        return self.function(list(problem.leaves), arrays, weight)

    def fits(self, problem: Problem) -> bool:
        """Whether the layer is still the one that was compiled (ids of objects are reused)."""
        return self.layer_ref() is problem.layer


def worthwhile(problem: Problem) -> bool:
    """Whether to compile: not inside a caller's `tf.function`, and not where a user's function may capture anything."""
    return tf.executing_eagerly() and all(recipe.cacheable for recipe in problem.recipes.values())


def program(kind: str, problem: Problem, body: Callable[[Problem, Notes], Any], *, anew: bool = False) -> Program:
    """The compiled function for a question, from the cache or new.

    Args:
        kind: name of what `body` computes.
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


def programs_of(model: Any) -> list[Program]:
    """The compiled functions that are kept for a model."""
    return list(_PROGRAMS.get(model, {}).values())


def _key(kind: str, problem: Problem) -> Any:
    arrays = tuple(
        (batched, array.dtype, tuple(array.shape[1:] if batched else array.shape))
        for name in problem.arrays
        for array, batched in zip(problem.arrays[name], problem.batched[name], strict=True)
    )
    weight = problem.sample_weight
    return (
        kind,
        tuple(problem.recipes.items()),
        id(problem.layer),
        problem.weights.explicit,
        tuple(map(id, problem.weights.variables)),
        repr(problem.structure),
        problem.signature,
        arrays,
        None if weight is None else (weight.dtype, tuple(weight.shape[1:])),
        by_value(getattr(problem.model, "distribution", None)),
        len(getattr(problem.model, "layers", ())),
    )


def _open(array: Any) -> Any:
    return tf.TensorSpec([None, *array.shape[1:]], array.dtype)
