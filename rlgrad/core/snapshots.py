"""Snapshots of a model: everything in Python that tracing it bakes into a graph, and a quick look whether that still holds.

A compiled gradient stays right as long as the model's weights change in value alone. Everything else that a trace reads
is a constant of the graph: layers, attributes, plain tensors, small NumPy arrays, which variables are trainable, and
what the Python functions of the model read from closures, globals and other objects. A snapshot holds a reader for each
place where such a thing stands. To look again costs some ten microseconds for a small model.

Not seen: numbers inside of large NumPy arrays, and state outside of Python objects (files, environment variables).
"""

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from operator import attrgetter, call
from typing import Any, TypeVar

import keras

from rlgrad.core import keras_internals, reach

MAX_SNAPSHOTS = 8
WARN_AFTER = 32  # different states of one model
Kept = TypeVar("Kept")

_INNER_LAYERS = attrgetter("_layers")
_TRAINABLE, _NON_TRAINABLE = attrgetter("_trainable_variables"), attrgetter("_non_trainable_variables")
_FLAG = attrgetter("_trainable")


def kept_with(model: Any, make: Callable[[], Kept]) -> Kept:
    """Return the object that `make` made for this model, now or at an earlier call.

    The model itself holds it, so that both end together although the object may refer to the model.
    """
    store = vars(model).get(reach.STORED)
    if store is None or store.owner() is not model:  # none, or that of a model whose attributes were copied
        store = vars(model)[reach.STORED] = _Store(model)
    kept: Kept = store.things.get(make)
    if kept is None:
        kept = store.things[make] = make()
    return kept


class _Store:
    """All that `kept_with` holds for one model; an object, since Keras looks into lists and dicts when it saves a model."""

    def __init__(self, model: Any) -> None:
        self.owner = weakref.ref(model)
        self.things: dict[Any, Any] = {}


def forget(model: Any) -> None:
    """Drop everything that `kept_with` holds for a model."""
    vars(model).pop(reach.STORED, None)


class _Known:
    """The snapshots of one model, the most recently current one first."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.made = 0
        self.held: Snapshot | None = None


def current(model: Any) -> "Snapshot":
    """Return the snapshot that holds now: the same object each time that the model is in the same state."""
    known = kept_with(model, _Known)
    if known.held is not None:
        return known.held
    snapshots = known.snapshots
    for index, snapshot in enumerate(snapshots):
        if snapshot.holds():
            if index:
                snapshots.insert(0, snapshots.pop(index))
            return snapshot
    known.made += 1
    if known.made == WARN_AFTER:
        _warn(model, snapshots[0])
    snapshots.insert(0, Snapshot(model))
    del snapshots[MAX_SNAPSHOTS:]
    return snapshots[0]


@contextlib.contextmanager
def held(model: Any) -> Iterator[None]:
    """While this context is open the model counts as unchanged: what stands in place of its layers' calls is not its own."""
    known = kept_with(model, _Known)
    before, known.held = known.held, current(model)
    try:
        yield
    finally:
        known.held = before


def _warn(model: Any, before: "Snapshot") -> None:
    names = before.changed_names()
    warnings.warn(
        f"Model {getattr(model, 'name', '?')!r} has changed {WARN_AFTER} times"
        + (f", of late in {', '.join(map(repr, names))}" if names else "")
        + ". Each change compiles its gradients anew. A number that changes from call to call should be a variable "
        "(add_weight(trainable=False), or tf.Variable), or an input of the model.",
        stacklevel=2,
    )


class Snapshot:
    """A model as it is now.

    It keeps alive what it has seen, the model among it: keep it where it ends together with the model.

    Attributes:
        known: `False` for a model with a class that decides for itself what its variables are: it can decide by anything.
        loose: variables of TensorFlow's own, which are not Keras's, that the model's code may assign to.
    """

    def __init__(self, model: Any) -> None:
        layers = [model, *keras_internals.all_layers(model)]
        walk = reach.walk_over(model)
        self._readers, self._arrays, self._labels = [*walk.readers, *_parts(layers)], walk.arrays, walk.labels
        self._places, self._mappings = walk.places, [place for place, _, _ in walk.places]
        self._sizes = list(map(len, self._mappings))
        self.loose = walk.loose
        self.known = all(
            getattr(type(layer), name) is getattr(keras.layers.Layer, name)
            for layer in layers
            for name in ("variables", "trainable_variables", "trainable")
        )
        self._values = self._read()
        self._ids = list(map(id, self._values))

    def holds(self) -> bool:
        """Return `True` if the model is still the same, apart from the values of its weights."""
        try:
            ids = list(map(id, chain.from_iterable(map(call, self._readers))))
        except (KeyError, ValueError, TypeError):  # an empty cell of a closure, or an attribute that is gone
            return False
        if ids != self._ids and not self._equal():
            return False
        if list(map(len, self._mappings)) != self._sizes and not self._same_names():
            return False
        return not self._arrays or all(map(_same_numbers, self._arrays))

    def _same_names(self) -> bool:
        """Return `True` if the places that have more or fewer entries have none that the code reads."""
        if any(names & place.keys() != present for place, names, present in self._places):
            return False
        self._sizes = list(map(len, self._mappings))
        return True

    def changed_names(self) -> list[str]:
        """Return the names of attributes, globals and the like that are not what they were."""
        names, start = [], 0
        for position, reader in enumerate(self._readers):
            values = list(reader())
            before, start = self._values[start : start + len(values)], start + len(values)
            pairs = zip(self._labels.get(position, ()), before[1:], values[1:], strict=False)
            names += [name for name, old, new in pairs if old is not new]
        return names

    def _read(self) -> list[Any]:
        try:
            return list(chain.from_iterable(map(call, self._readers)))
        except (KeyError, ValueError, TypeError):
            return []

    def _equal(self) -> bool:
        """Return `True` if all that is not the same object is an equal number or string."""
        now = self._read()
        if len(now) != len(self._values):
            return False
        for old, new in zip(self._values, now, strict=True):
            if old is not new and not (type(old) is type(new) and type(old) in reach.PLAIN and old == new):
                return False
        self._values, self._ids = now, list(map(id, now))
        return True


def _same_numbers(pair: tuple[Any, bytes]) -> bool:
    array, before = pair
    return bool(array.tobytes() == before)


def _parts(layers: list[Any]) -> list[reach.Reader]:
    """Return readers of the layers and variables that a model consists of, and of which are trainable.

    Asking Keras for `model.trainable_variables` walks the model in Python at every call; these readers run in C.
    """
    variables = [*chain.from_iterable(map(_TRAINABLE, layers)), *chain.from_iterable(map(_NON_TRAINABLE, layers))]

    def of_all(lists: Callable[[Any], Any]) -> reach.Reader:
        return lambda: chain.from_iterable(map(lists, layers))

    return [*map(of_all, (_INNER_LAYERS, _TRAINABLE, _NON_TRAINABLE)), partial(map, _FLAG, variables)]
