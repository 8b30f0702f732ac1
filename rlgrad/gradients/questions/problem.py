"""One question about one model: which numbers, of which input, with respect to which weights. And its forward pass."""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import keras
import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.gradients.questions import inputs as model_inputs
from rlgrad.gradients.questions import selection
from rlgrad.gradients.questions.heads import Heads, check_range, require_floating
from rlgrad.gradients.questions.recipes import Arrays, Recipe

SINGLE = ""  # the name of an output that was not given a name


@dataclass
class Notes:
    """What only tracing can tell, kept with the compiled function."""

    # For each output, integers that lie in 0 … count − 1: (output, which of its arrays, count, what they are).
    ranges: list[tuple[str, int, int, str]] = field(default_factory=list)
    # For each output, positions of the variables that it depends on.
    connected: dict[str, frozenset[int]] = field(default_factory=dict)
    # Positions of the variables (or input leaves) that the result lists.
    listed: tuple[int, ...] = ()
    # Number of leading batch axes of the outputs.
    batch_rank: int = 1
    # Positions of the variables that have no closed form.
    free: tuple[int, ...] = ()
    # Whether samples were vectorized, which may fail when it runs.
    vectorized: bool = False
    # What the results are made of, where that is more than tensors.
    structures: list[Any] = field(default_factory=list)
    # What the results are, with a `None` in place of each tensor.
    returned: Any = None
    # Bytes of memory for each sample.
    bytes_per_sample: int = 0


@dataclass(frozen=True)
class Problem:
    """A question, with tensors that are numbers when it is asked and symbols when it is compiled.

    Args:
        model: a built Keras model.
        leaves: its input, flattened.
        structure: how to put the input together again.
        signature: `tf.TensorSpec`s of the leaves, their batch axis open.
        recipes: what is differentiated, by name.
        arrays: the recipes' arrays, by name.
        batched: which of the arrays have a batch axis, by name.
        layer: the layer whose output is meant; `None` for the model's.
        weights: with respect to which variables.
        sample_weight: one weight for each value of the output, or `None`.
        batch_size: number of rows, where it is known when tracing.
        extra: arrays that belong to what is asked rather than to an output, by name.
        extra_batched: which of `extra` have a batch axis.
        placed: variables that have another value than their current one.
        placed_values: those values.
        kept: what recorded layers said, each with a batch axis, for `replay`.
        replay: makes of `kept` a context in which the model need not compute it again.
        loop: take one sample after the other where samples would be vectorized.
    """

    model: Any
    leaves: tuple[Any, ...]
    structure: Any
    signature: tuple[Any, ...]
    recipes: Mapping[str, Recipe]
    arrays: Mapping[str, tuple[Any, ...]]
    batched: Mapping[str, tuple[bool, ...]]
    layer: Any
    weights: selection.Selection
    sample_weight: Any = None
    batch_size: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    extra_batched: frozenset[str] = frozenset()
    placed: tuple[Any, ...] = ()
    placed_values: tuple[Any, ...] = ()
    kept: tuple[Any, ...] = ()
    replay: Callable[[Sequence[Any]], Any] | None = None
    loop: bool = False

    @property
    def sources(self) -> list[Any]:
        """What a tape watches for the chosen weights."""
        return [self.current(variable) for variable in self.weights.variables]

    @property
    def in_place(self) -> list[tuple[Any, Any]]:
        """Variables that have another value than their current one, with that value."""
        return list(zip(self.placed, self.placed_values, strict=True))

    def current(self, variable: Any) -> Any:
        """A variable's value here."""
        for changed, value in self.in_place:
            if changed is variable:
                return value
        return keras_internals.tape_source(variable)

    def numbers(self) -> list[tuple[Any, bool]]:
        """All tensors of the question, the leaves first, each with whether it has a batch axis."""
        found = [(leaf, True) for leaf in self.leaves]
        for name, arrays in self.arrays.items():
            found += zip(arrays, self.batched[name], strict=True)
        if self.sample_weight is not None:
            found.append((self.sample_weight, True))
        found += [(array, name in self.extra_batched) for name, array in self.extra.items()]
        return found + [(value, False) for value in self.placed_values] + [(z, True) for z in self.kept]

    def with_numbers(self, tensors: Iterable[Any]) -> "Problem":
        """The same question with other tensors, in the order of `numbers`."""
        remaining = iter(tensors)
        return replace(
            self,
            leaves=tuple(next(remaining) for _ in self.leaves),
            arrays={name: tuple(next(remaining) for _ in arrays) for name, arrays in self.arrays.items()},
            sample_weight=None if self.sample_weight is None else next(remaining),
            extra={name: next(remaining) for name in self.extra},
            placed_values=tuple(next(remaining) for _ in self.placed_values),
            kept=tuple(next(remaining) for _ in self.kept),
        )

    def without_numbers(self) -> "Problem":
        """What the question is apart from its model and numbers: to be kept without keeping those alive."""
        empty = self.with_numbers(None for _ in self.numbers())
        return replace(empty, model=None, layer=None, sample_weight=None if self.sample_weight is None else False)

    def returned(self) -> Any:
        """Runs the model once: what it, or the chosen layer, returns."""
        x = model_inputs.pack(self.structure, self.leaves)
        with contextlib.ExitStack() as stack:
            stack.enter_context(keras_internals.untouched(self.model))
            if self.replay is not None:
                stack.enter_context(self.replay(self.kept))
            if self.placed or keras_internals.draws_at_inference(self.model):  # what is assigned there is not kept
                stack.enter_context(keras_internals.values_in_place(self.in_place))
            return self.model(x, training=False) if self.layer is None else self._layer_output(x)

    def forward(self, notes: Notes, per_unit: bool = False) -> dict[str, Any]:
        """Runs the model once and computes every output.

        Args:
            notes: gets the ranges that could not be checked yet.
            per_unit: whole outputs keep the axes of their units.

        Returns:
            f by name, float (batch…).
        """
        returned = self.returned()
        values = {}
        for name, recipe in self.recipes.items():
            heads = Heads(self.model, returned, self.layer is not None, self.batch_size)
            notes.batch_rank = heads.batch_rank
            values[name] = recipe.value(heads, Arrays(self.arrays[name]), per_unit)
            require_floating(values[name], f"Output {name!r}" if name else "The output")
            notes.ranges += [(name, *noted) for noted in heads.ranges]
        return values

    def check_ranges(self, notes: Notes) -> None:
        """Checks what could not be checked while tracing, now that the arrays are numbers."""
        for name, position, count, what in notes.ranges:
            check_range(self.arrays[name][position], count, what)

    def _layer_output(self, x: Any) -> Any:
        with keras_internals.capture(self.layer) as captured:
            self.model(x, training=False)
        if captured.calls == 0:
            raise ValueError(
                f"Layer {self.layer.name!r} was not reached when model {self.model.name!r} ran on this input at "
                "inference."
            )
        if captured.calls > 1:
            raise ValueError(
                f"Layer {self.layer.name!r} was called {captured.calls} times in one pass of model "
                f"{self.model.name!r}, so it has no one output. Take the output of a layer that comes after it."
            )
        return captured.output


def rows_of(problem: Problem) -> list[Any]:
    """Everything that has a batch axis, in the order of `with_rows`."""
    return [array for array, batched in problem.numbers() if batched]


def with_rows(problem: Problem, change: Callable[[Any], Any]) -> Problem:
    """The question with everything that has a batch axis replaced by `change` of it, in the order of `rows_of`."""
    return problem.with_numbers([change(array) if batched else array for array, batched in problem.numbers()])


def placed(problem: Problem, values: Mapping[str, Any]) -> Problem:
    """The same question at other values of variables.

    Args:
        problem: the question.
        values: by the variables' keys; what is left out stays as it is.

    Raises:
        TypeError: a variable that is not Keras's own cannot be replaced.
        ValueError: a key that no variable has, or another shape than the variable's.
    """
    known = {key: variable for variable, key in selection.keys_of(problem.model)}
    known |= dict(zip(problem.weights.keys, problem.weights.variables, strict=True))
    tensors = {id(variable): (variable, value) for variable, value in problem.in_place}
    for key, value in values.items():
        if key not in known:
            close = get_close_matches(str(key), list(known), n=1)
            meant = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
            raise ValueError(f"Model {problem.model.name!r} has no variable {key!r}. {meant}")
        variable = known[key]
        if not isinstance(variable, keras.Variable):
            raise TypeError(f"{key!r} is a {type(variable).__name__}; only Keras variables can take other values.")
        tensor = tf.cast(model_inputs.numbers(value), variable.dtype)
        if not tensor.shape.is_compatible_with(tf.TensorShape(variable.shape)):
            raise ValueError(f"{key!r} has shape {tuple(variable.shape)}, got {tuple(tensor.shape)}.")
        tensors[id(variable)] = (variable, tensor)
    return replace(
        problem,
        placed=tuple(variable for variable, _ in tensors.values()),
        placed_values=tuple(tensor for _, tensor in tensors.values()),
    )


def only(problem: Problem, name: str) -> Problem:
    """The same question about one of several outputs."""
    return replace(
        problem,
        recipes={SINGLE: problem.recipes[name]},
        arrays={SINGLE: problem.arrays[name]},
        batched={SINGLE: problem.batched[name]},
    )


def one_of_zeros(problem: Problem) -> Problem:
    """The question about a single row of zeros. Not all of TensorFlow's gradients are defined for an empty batch."""
    single = with_rows(problem, lambda rows: tf.zeros([1, *rows.shape[1:]], rows.dtype))
    return replace(single, batch_size=1)


def weak(thing: Any) -> Any:
    """A reference that does not keep a model or layer alive; `None` stays `None`."""
    return (lambda: None) if thing is None else weakref.ref(thing)


class DisconnectedGradientError(ValueError):
    """The chosen output does not depend on something it was to be differentiated with respect to.

    TensorFlow answers such a question with `None`, other libraries with zeros. Here it is an error, and its message
    lists what is not connected and what is.
    """
