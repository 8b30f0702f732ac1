"""One question about one model: which outputs, of which input, with respect to which weights. And its forward pass."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.tensorflow_internals import exact_moments
from rlgrad.core.untouched import untouched
from rlgrad.gradients.questions import selection, training_mode
from rlgrad.gradients.questions.arguments import call_model
from rlgrad.gradients.questions.chosen_inputs import NO_INPUTS, ChosenInputs
from rlgrad.gradients.questions.heads import Heads, require_floating
from rlgrad.gradients.questions.inputs import as_tensor
from rlgrad.gradients.questions.recipes import Recipe

SINGLE = ""  # the name of an output that was not given a name


@dataclass(frozen=True)
class ForwardPass:
    """The outputs of one run of the model.

    Args:
        values: f by output name, float (batch…).
        batch_rank: the number of leading batch axes.
        ranges: integers that are not known while tracing, and must lie in 0 … count − 1: their position among
            `Question.numbers`, the count, and what they are.
        returned: what the model, or the chosen layer, returned.
        units: by output name the number of axes of units, which are the last ones; 0 for one number per sample.
        statistics: the values that a run in training mode gives to variables which are not trained, such as the moving
            averages of a batch normalization, by their keys; empty at inference.
    """

    values: dict[str, Any]
    batch_rank: int
    ranges: tuple[tuple[int, int, str], ...]
    returned: Any = None
    units: Mapping[str, int] = field(default_factory=dict)
    statistics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """A request of a caller. Its tensors hold numbers when it is asked, and are symbols while it is compiled.

    Args:
        model: a built Keras model.
        leaves: its input, flattened.
        structure: the tree of the input, with a `None` in place of each leaf.
        signature: a `tf.TensorSpec` for each leaf, its batch axis open.
        recipes: how to compute each output, by name.
        arrays: the recipes' arrays, by name.
        batched: which of the arrays have a batch axis, by name.
        layer: the layer whose output is differentiated; `None` for the model's.
        weights: the variables to differentiate with respect to.
        sample_weight: one weight for each value of the output, or `None`.
        inputs: the leaves to differentiate with respect to, in place of weights.
        spread: the input is a tuple or dict of several arguments of the model's `call`.
        batch_size: the number of rows, where it is known when tracing.
        extra: arrays that belong to the computation rather than to an output, by name.
        extra_batched: which of `extra` have a batch axis.
        placed: variables that have another value than their current one.
        placed_values: those values.
        kept: outputs of recorded layers, each with a batch axis, for `replay`.
        replay: makes of `kept` a context in which the model does not compute them again.
        loop: take one sample after the other instead of vectorizing over them.
        training: run the model in training mode.
        seed: int32 (2,), what its layers draw from then; `None`: none of them may draw.
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
    inputs: ChosenInputs = NO_INPUTS
    spread: bool = False
    batch_size: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    extra_batched: frozenset[str] = frozenset()
    placed: tuple[Any, ...] = ()
    placed_values: tuple[Any, ...] = ()
    kept: tuple[Any, ...] = ()
    replay: Callable[[Sequence[Any]], Any] | None = None
    loop: bool = False
    training: bool = False
    seed: Any = None

    @property
    def sources(self) -> list[Any]:
        """The chosen weights as a gradient tape sees them."""
        return self.values_of(self.weights.variables)

    @property
    def floating_leaves(self) -> dict[int, Any]:
        """The part of the input that can be differentiated, by position."""
        return {i: leaf for i, leaf in enumerate(self.leaves) if leaf.dtype.is_floating}

    @property
    def in_place(self) -> list[tuple[Any, Any]]:
        """The variables that have another value than their current one, each with that value."""
        return list(zip(self.placed, self.placed_values, strict=True))

    def values_of(self, variables: Iterable[Any]) -> list[Any]:
        """The values that these variables have in this question, as a gradient tape sees them."""
        if not self.placed:
            return keras_internals.tape_sources(variables)
        variables = list(variables)
        placed = {id(variable): value for variable, value in self.in_place}
        sources = keras_internals.tape_sources(variables)
        return [placed.get(id(v), source) for v, source in zip(variables, sources, strict=True)]

    @cached_property
    def numbers(self) -> tuple[tuple[Any, bool], ...]:
        """All tensors, the leaves first, each with `True` if it has a batch axis."""
        pairs = [(leaf, True) for leaf in self.leaves]
        for name, arrays in self.arrays.items():
            pairs += zip(arrays, self.batched[name], strict=True)
        if self.sample_weight is not None:
            pairs.append((self.sample_weight, True))
        pairs += [(array, name in self.extra_batched) for name, array in self.extra.items()]
        if self.seed is not None:
            pairs.append((self.seed, False))
        return (*pairs, *((value, False) for value in self.placed_values), *((z, True) for z in self.kept))

    @cached_property
    def forms(self) -> tuple[tuple[Any, tuple[Any, ...]], ...]:
        """The dtype and the shape of each of `numbers` after the leaves, batch axes open."""
        return tuple(
            [
                (array.dtype, (None, *array.shape[1:]) if batched else tuple(array.shape))
                for array, batched in self.numbers[len(self.leaves) :]
            ]
        )

    def with_numbers(self, tensors: Iterable[Any]) -> "Question":
        """The same question with other tensors, in the order of `numbers`."""
        remaining = iter(tensors)
        return replace(
            self,
            leaves=tuple(next(remaining) for _ in self.leaves),
            arrays={name: tuple(next(remaining) for _ in arrays) for name, arrays in self.arrays.items()},
            sample_weight=None if self.sample_weight is None else next(remaining),
            extra={name: next(remaining) for name in self.extra},
            seed=None if self.seed is None else next(remaining),
            placed_values=tuple(next(remaining) for _ in self.placed_values),
            kept=tuple(next(remaining) for _ in self.kept),
        )

    def with_rows(self, change: Callable[[Any], Any], batch_size: int | None) -> "Question":
        """The question about other rows: `change` of everything that has a batch axis, in the order of `rows`."""
        changed = self.with_numbers([change(array) if batched else array for array, batched in self.numbers])
        return replace(changed, batch_size=batch_size)

    @property
    def rows(self) -> list[Any]:
        """Everything that has a batch axis."""
        return [array for array, batched in self.numbers if batched]

    def without_numbers(self) -> "Question":
        """The question apart from its model and its numbers: it can be kept without keeping those alive."""
        empty = self.with_numbers([None] * len(self.numbers))
        weight, seed = (None if number is None else False for number in (self.sample_weight, self.seed))
        return replace(empty, model=None, layer=None, sample_weight=weight, seed=seed)

    def with_probe_seed(self) -> "Question":
        """The question with a fixed seed, if it has one: for runs whose numbers do not count."""
        return self if self.seed is None else replace(self, seed=training_mode.PROBE_SEED)

    def run_model(self) -> Any:
        """Run the model once, and return what it, or the chosen layer, returns."""
        return self._run()[0]

    def _run(self) -> tuple[Any, Mapping[str, Any]]:
        """Run the model once. Return what it, or the chosen layer, returns, and `ForwardPass.statistics`."""
        x = tf.nest.pack_sequence_as(self.structure, list(self.leaves))
        seeds = training_mode.placed_seeds(self.model, self.seed) if self.training else []
        with contextlib.ExitStack() as stack:
            values = stack.enter_context(untouched(self.model, [*self.in_place, *seeds]))
            before = dict(values)
            stack.enter_context(exact_moments())
            if self.replay is not None:
                stack.enter_context(self.replay(self.kept))
            returned = self._call(x) if self.layer is None else self._layer_output(x)
            return returned, training_mode.statistics(self.model, self.seed, before, values) if self.training else {}

    def _call(self, x: Any) -> Any:
        return call_model(self.model, x, self.spread, self.training)

    def forward(self, per_unit: bool = False) -> ForwardPass:
        """Run the model once and compute every output.

        Args:
            per_unit: outputs that are whole heads keep the axes of their units.
        """
        returned, statistics = self._run()
        values: dict[str, Any] = {}
        ranges: list[tuple[int, int, str]] = []
        units: dict[str, int] = {}
        rank, first = 1, len(self.leaves)
        for name, recipe in self.recipes.items():
            heads = Heads(self.model, returned, self.layer is not None, self.batch_size)
            values[name] = recipe.value(heads, enumerate(self.arrays[name]), per_unit)
            require_floating(values[name], f"Output {name!r}" if name else "The output")
            for position, count, what in heads.ranges:
                ranges.append((first + position, count, what))
            rank, first, units[name] = heads.batch_rank, first + len(self.arrays[name]), heads.units
        return ForwardPass(values, rank, tuple(ranges), returned, units, statistics)

    def _layer_output(self, x: Any) -> Any:
        with keras_internals.capture(self.layer) as captured:
            self._call(x)
        if captured.calls == 0:
            raise ValueError(
                f"Layer {self.layer.name!r} was not reached when model {self.model.name!r} ran on this input"
                f"{'.' if self.training else ' at inference.'}"
            )
        if captured.calls > 1:
            raise ValueError(
                f"Layer {self.layer.name!r} was called {captured.calls} times in one pass of model "
                f"{self.model.name!r}, so it has no one output. Take the output of a layer that comes after it."
            )
        return captured.output


def place(
    question: Question, values: Mapping[str, Any] | Sequence[Any], order: Sequence[Any] | None = None
) -> Question:
    """Return the same question at other values of variables.

    Args:
        question: the question.
        values: by the variables' keys; variables that are left out keep their value. Or a list in the order of variables.
        order: these variables; default `model.trainable_variables`.

    Raises:
        TypeError: a variable that is not Keras's own cannot be replaced; neither a dict nor a list.
        ValueError: a key that no variable has, or another shape than the variable's; a list of another length.
    """
    if not isinstance(values, Mapping):
        values = _by_key(question, values, order)
    known = {key: variable for variable, key in selection.keys_of(question.model)}
    known |= dict(zip(question.weights.keys, question.weights.variables, strict=True))
    tensors = {id(variable): (variable, value) for variable, value in question.in_place}
    for key, value in values.items():
        if key not in known:
            close = get_close_matches(str(key), list(known), n=1)
            meant = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
            raise ValueError(f"Model {question.model.name!r} has no variable {key!r}. {meant}")
        variable = known[key]
        if not isinstance(variable, keras.Variable):
            raise TypeError(f"{key!r} is a {type(variable).__name__}; only Keras variables can take other values.")
        tensor = tf.cast(as_tensor(value), variable.dtype)
        if not tensor.shape.is_compatible_with(tf.TensorShape(variable.shape)):
            raise ValueError(f"{key!r} has shape {tuple(variable.shape)}, got {tuple(tensor.shape)}.")
        tensors[id(variable)] = (variable, tensor)
    return replace(
        question,
        placed=tuple(variable for variable, _ in tensors.values()),
        placed_values=tuple(tensor for _, tensor in tensors.values()),
    )


def place_outer_values(question: Question) -> Question:
    """Return the question at the values that the caller's own scope gives to the model's variables."""
    values = keras_internals.placed_values()
    placed = [variable for variable in question.model.variables if id(variable) in values]
    if not placed:
        return question
    return replace(question, placed=tuple(placed), placed_values=tuple(values[id(variable)] for variable in placed))


def _by_key(question: Question, values: Any, order: Sequence[Any] | None) -> dict[str, Any]:
    """Return a list of values as a dict by the keys of the variables."""
    if not isinstance(values, list | tuple):
        raise TypeError(
            "Other values of weights are a dict by the variables' paths, or a list in the order of "
            f"model.trainable_variables; got a {type(values).__name__}."
        )
    variables = list(question.model.trainable_variables) if order is None else list(order)
    if len(values) != len(variables):
        raise ValueError(f"A list of weights has a value for each of {len(variables)} variables; got {len(values)}.")
    keys = {id(variable): key for variable, key in selection.keys_of(question.model)}
    keys |= {id(v): key for v, key in zip(question.weights.variables, question.weights.keys, strict=True)}
    return {keys[id(variable)]: value for variable, value in zip(variables, values, strict=True)}


def single_output(question: Question, name: str) -> Question:
    """Return the same question about one of several outputs, which then has no name."""
    return replace(
        question,
        recipes={SINGLE: question.recipes[name]},
        arrays={SINGLE: question.arrays[name]},
        batched={SINGLE: question.batched[name]},
    )


def one_row_of_zeros(question: Question) -> Question:
    """Return the question about a single row of zeros: TensorFlow does not define all gradients for an empty batch."""
    return question.with_rows(lambda rows: tf.zeros([1, *rows.shape[1:]], rows.dtype), batch_size=1)
