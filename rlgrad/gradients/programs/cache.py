"""One cache for each model, and the one place where its keys are made.

A key holds everything that shapes a program; the numbers (inputs, actions, unit numbers, scales, sample weights) are
passed in, with an open batch axis, so one program serves every batch. Everything is kept as long as the model lives, and
used again only while the model's snapshot holds (`core.snapshots`).
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from rlgrad.core import snapshots
from rlgrad.core.reach import PLAIN
from rlgrad.core.snapshots import Snapshot
from rlgrad.gradients.closed_forms.rule_table import generation
from rlgrad.gradients.questions.policy_recipes import Same, by_value
from rlgrad.gradients.questions.question import Question

MAX_ENTRIES = 64  # of each kind, for each model
MAX_STATES = 2 * snapshots.MAX_SNAPSHOTS
ARRAYS = (np.ndarray, tf.Tensor)

Entry = TypeVar("Entry")


@dataclass(frozen=True, eq=False, slots=True)
class State:
    """A model in one state, with one distribution, under one table of rules.

    Args:
        snapshot: see `core.snapshots`.
        distribution: the model's own, or `None`.
        generation: see `rule_table.generation`.
    """

    snapshot: Snapshot
    distribution: Any
    generation: int

    def is_same(self, snapshot: Snapshot, distribution: Any, generation: int) -> bool:
        """Return `True` if the model is still in this state."""
        if snapshot is not self.snapshot or generation != self.generation:
            return False
        return distribution is self.distribution or by_value(distribution) == by_value(self.distribution)


@dataclass(slots=True)
class KnownCall:
    """How a call was answered.

    Args:
        program: its program; a weak reference, so that `Cache.programs` decides how many programs are kept.
        rows: the largest number of rows for which all checks of memory have passed.
        pack: makes the caller's result of the program's results.
    """

    program: "weakref.ref[Any]"
    rows: int
    pack: Any


class Cache:
    """Everything that is kept about one model.

    Attributes:
        programs: compiled questions, by `question_key`.
        calls: answered calls, by `call_key`.
        surveys: findings about the layers that can be recorded, by `survey_key`.
    """

    def __init__(self) -> None:
        self.programs: OrderedDict[Hashable, Any] = OrderedDict()
        self.calls: OrderedDict[Hashable, KnownCall] = OrderedDict()
        self.surveys: OrderedDict[Hashable, Any] = OrderedDict()
        self._states: list[State] = []

    def keep_call(self, key: Hashable, rows: int, program: Any, pack: Any) -> None:
        """Keep the program that answered a call, and its `pack`."""
        self.calls.pop(key, None)
        _make_room(self.calls)
        self.calls[key] = KnownCall(weakref.ref(program), rows, pack)

    def state(self, model: Any) -> State:
        """Return the model's state, the same object each time the model is in it."""
        now = snapshots.current(model), getattr(model, "distribution", None), generation()
        for state in self._states:
            if state.is_same(*now):
                return state
        self._states.insert(0, State(*now))
        del self._states[MAX_STATES:]
        return self._states[0]


def cache_of(model: Any) -> Cache:
    """Return the model's cache."""
    return snapshots.kept_with(model, Cache)


def find_or_make(entries: OrderedDict[Hashable, Entry], key: Hashable, make: Callable[[], Entry]) -> Entry:
    """Return the entry of a key; if there is none, make it, and drop the oldest if there are too many."""
    entry = entries.get(key)
    if entry is None:
        _make_room(entries)
        entry = entries[key] = make()
    return entry


def _make_room(entries: OrderedDict[Hashable, Any]) -> None:
    while len(entries) >= MAX_ENTRIES:
        entries.popitem(last=False)


def question_key(cache: Cache, kind: Hashable, question: Question) -> Hashable:
    """Return the key of a program: all that shapes the computation `kind` for this question."""
    model = question.model
    return (
        cache.state(model),
        kind,
        tuple(question.recipes.items()),
        None if question.layer is None else weakref.ref(question.layer),
        question.weights.explicit,
        question.inputs.positions,
        tuple(map(id, question.weights.variables)),  # a program keeps them alive
        repr(question.structure),
        question.signature,
        question.forms,
        question.sample_weight is None,
        (question.training, question.seed is None),
        tuple(question.extra),
        tuple(map(Same, question.placed)),
    )


def survey_key(cache: Cache, question: Question, rules: Sequence[Hashable]) -> Hashable:
    """Return the key of a survey: all that decides which layers can be recorded."""
    return (
        cache.state(question.model),
        tuple(rules),
        question.signature,
        repr(question.structure),
        None if question.layer is None else weakref.ref(question.layer),
        frozenset(map(id, question.weights.variables)),
        question.training,
    )


def call_key(
    cache: Cache,
    model: Any,
    parts: Sequence[Hashable],
    options: Mapping[str, Any],
    arrays: Sequence[tuple[Any, bool]],
    rows: int,
) -> Hashable | None:
    """Return the key of a caller's arguments: calls with equal keys ask the same question about other numbers.

    Args:
        cache: the model's.
        model: the model.
        parts: what else shapes the question.
        options: the caller's other arguments, by name.
        arrays: the arrays, each with `True` if it has a batch axis.
        rows: the number of rows that arrays with a batch axis must have.

    Returns:
        The key; `None` if only asking the question can say what the arguments mean.
    """
    key: list[Any] = [*parts]
    for name, value in options.items():
        kind = type(value)
        if value is None:
            continue
        if kind in PLAIN:
            key += (name, kind, value)
            continue
        selected = _selected(value) if name in ("layer", "weights", "at", "inputs") else None
        if selected is None:
            return None
        key += (name, selected)
    for array, batched in arrays:
        kind = type(array)
        if kind in PLAIN:
            key.append(kind)
        elif not isinstance(array, ARRAYS):
            return None
        else:
            shape = array.shape if isinstance(array, np.ndarray) else tuple(array.shape.as_list())
            if batched and shape:
                if shape[0] != rows:
                    return None
                shape = (None, *shape[1:])
            key += (kind, array.dtype, shape)
    state = cache.state(model)
    return (state, *key) if state.snapshot.known else None


def _selected(value: Any) -> Hashable | None:
    """Return a layer, a variable, or a list of these and of names, as a part of a key; `None` if it cannot be one."""
    kind = type(value)
    if kind in PLAIN:
        return kind, value
    if isinstance(value, keras.layers.Layer):
        return weakref.ref(value)
    if isinstance(value, keras.Variable | tf.Variable):
        return Same(value)
    if kind in (list, tuple):
        items = [_selected(item) for item in value]
        return None if None in items else (kind, *items)
    return None
