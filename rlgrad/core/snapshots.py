"""Snapshots of a model: everything in Python that tracing it bakes into a graph, and a quick look whether that still holds.

A compiled gradient stays right as long as the model's weights change in value alone. Everything else that a trace reads
is a constant of the graph: layers, attributes, plain tensors, small NumPy arrays, which variables are trainable, and
what the Python functions of the model read from closures, globals and other objects. A snapshot holds a reader for each
place where such a thing stands. To look again costs some ten microseconds for a small model.

Not seen: numbers inside of large NumPy arrays, and state outside of Python objects (files, environment variables).
"""

import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import chain, repeat
from operator import attrgetter, call, itemgetter
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.code_names import function_of, names_of

MAX_ARRAY_BYTES = 65536  # of NumPy arrays whose numbers are compared
# Values of these types say the same if they are equal.
PLAIN = {type(None), bool, int, float, complex, str, bytes}
_LIBRARIES = {"keras", "tensorflow", "numpy", "ml_dtypes", "h5py", "gymnasium", "jax", "torch", "builtins"}
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
_NOT_CALLED_BY_MODELS = {"__init__", "__new__", "__repr__", "__str__", "__reduce__", "__init_subclass__", "__del__"}
_ASSIGNING = {"assign", "assign_add", "assign_sub", "scatter_update", "scatter_add", "scatter_sub", "scatter_nd_update"}
_MISSING = object()
MAX_SNAPSHOTS = 8
STORED = "_rlgrad_kept"  # where a model keeps what rlgrad knows about it
Kept = TypeVar("Kept")

_INNER_LAYERS = attrgetter("_layers")
_TRAINABLE, _NON_TRAINABLE = attrgetter("_trainable_variables"), attrgetter("_non_trainable_variables")
_FLAG = attrgetter("_trainable")
_CONTENTS, _FIRST = attrgetter("cell_contents"), itemgetter(0)

Reader = Callable[[], Iterable[Any]]


def kept_with(model: Any, make: Callable[[], Kept]) -> Kept:
    """Return the object that `make` made for this model, now or at an earlier call.

    The model itself holds it, so that both end together although the object may refer to the model.
    """
    store = vars(model).get(STORED)
    if store is None or store.owner() is not model:  # none, or that of a model whose attributes were copied
        store = vars(model)[STORED] = _Store(model)
    kept: Kept = store.things.get(make)
    if kept is None:
        kept = store.things[make] = make()
    return kept


class _Store:
    """What `kept_with` holds for one model; an object, since Keras looks into lists and dicts when it saves a model."""

    def __init__(self, model: Any) -> None:
        self.owner = weakref.ref(model)
        self.things: dict[Any, Any] = {}


def forget(model: Any) -> None:
    """Drop everything that `kept_with` holds for a model."""
    vars(model).pop(STORED, None)


class _Known:
    """The snapshots of one model, the most recently current one first."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []


def current(model: Any) -> "Snapshot":
    """Return the snapshot that holds now: the same object each time that the model is in the same state."""
    known = kept_with(model, _Known).snapshots
    for index, snapshot in enumerate(known):
        if snapshot.holds():
            if index:
                known.insert(0, known.pop(index))
            return snapshot
    known.insert(0, Snapshot(model))
    del known[MAX_SNAPSHOTS:]
    return known[0]


class Snapshot:
    """A model as it is now.

    It keeps alive what it has seen, the model among it: keep it where it ends together with the model.

    Attributes:
        known: `False` for a model with a class that decides for itself what its variables are: it can decide by anything.
        loose: variables of TensorFlow's own, which are not Keras's, that the model's code may assign to.
    """

    def __init__(self, model: Any) -> None:
        layers = [model, *keras_internals.all_layers(model)]
        walk = _walked(model, layers)
        self._readers, self._arrays = [*_parts(layers), *walk.readers], walk.arrays
        self._places, self._sizes = walk.places, [len(place) for place, _, _ in walk.places]
        self.loose = walk.loose if walk.names & _ASSIGNING or walk.every else []
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
        except (ValueError, TypeError):  # an empty cell of a closure, or an attribute that is gone
            return False
        if ids != self._ids and not self._equal():
            return False
        if list(map(len, map(_FIRST, self._places))) != self._sizes and not self._same_names():
            return False
        return all(map(_same_numbers, self._arrays))

    def _same_names(self) -> bool:
        """Return `True` if the places that have more or fewer entries have none that the code reads."""
        if any(names & place.keys() != present for place, names, present in self._places):
            return False
        self._sizes = [len(place) for place, _, _ in self._places]
        return True

    def _read(self) -> list[Any]:
        try:
            return list(chain.from_iterable(map(call, self._readers)))
        except (ValueError, TypeError):
            return []

    def _equal(self) -> bool:
        """Return `True` if all that is not the same object is an equal number or string."""
        now = self._read()
        if len(now) != len(self._values):
            return False
        for old, new in zip(self._values, now, strict=True):
            if old is not new and not (type(old) is type(new) and type(old) in PLAIN and old == new):
                return False
        self._values, self._ids = now, list(map(id, now))
        return True


def _same_numbers(pair: tuple[Any, bytes]) -> bool:
    array, before = pair
    return bool(array.tobytes() == before)


def _parts(layers: list[Any]) -> list[Reader]:
    """Return readers of the layers and variables that a model consists of, and of which are trainable.

    Asking Keras for `model.trainable_variables` walks the model in Python at every call; this walk is one of C.
    """

    def variables() -> Iterable[Any]:
        found = [*chain.from_iterable(map(_TRAINABLE, layers)), *chain.from_iterable(map(_NON_TRAINABLE, layers))]
        return chain(found, map(_FLAG, found))

    return [lambda: chain.from_iterable(map(_INNER_LAYERS, layers)), variables]


class _Walk:
    """One walk over everything that the model's code can reach by the names that it reads.

    Args:
        names: names of attributes that the code reads. The walk adds those of the functions that it meets; if there are new
            ones, it has to be repeated.
    """

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self._names_of_layers = (names - keras_internals.bookkeeping()) | keras_internals.ATTRIBUTES_THAT_SHAPE_CALLS
        self.every = "*" in names
        self.readers: list[Reader] = []
        self.places: list[tuple[Mapping[str, Any], AbstractSet[str], AbstractSet[str]]] = []
        self.arrays: list[tuple[Any, bytes]] = []
        self.loose: list[Any] = []
        self._seen: dict[int, Any] = {}
        self._classes: set[type] = set()
        self._waiting: list[Any] = []

    def run(self, model: Any, layers: list[Any]) -> None:
        """Visit the layers, the model's distribution, and everything reachable from them."""
        self._waiting += layers
        distribution = getattr(model, "distribution", None)
        if hasattr(distribution, "__dict__"):  # its methods are called by name, not by the model's code
            self._read(vars(distribution), frozenset(vars(distribution)))
        while self._waiting:
            thing = self._waiting.pop()
            if id(thing) not in self._seen:
                self._seen[id(thing)] = thing
                self._visit(thing)

    def _take(self, *values: Any) -> None:
        self._waiting += [value for value in values if type(value) not in PLAIN]

    def _read(self, place: Mapping[str, Any], names: AbstractSet[str]) -> None:
        """Read those entries of a mapping that have one of these names, now or later, and visit what stands there."""
        present = names & place.keys()
        self.places.append((place, names, present))
        if present:
            listed = sorted(present)
            self.readers.append(partial(map, place.get, listed, repeat(_MISSING)))
            self._take(*map(place.get, listed))

    def _visit(self, thing: Any) -> None:
        if isinstance(thing, keras.layers.Layer):
            self._visit_layer(thing)
        elif isinstance(thing, np.ndarray):
            if thing.nbytes <= MAX_ARRAY_BYTES and thing.dtype != object:
                self.arrays.append((thing, thing.tobytes()))
        elif isinstance(thing, tf.Variable):
            self.loose.append(thing)
        elif isinstance(thing, _CONTAINERS):
            self._visit_container(thing)
        elif isinstance(thing, types.ModuleType):
            if not _is_library(thing.__name__) and "site-packages" not in (getattr(thing, "__file__", None) or ""):
                self._read(vars(thing), self.names)
        elif isinstance(thing, type):
            self._visit_class(thing)
        elif function_of(thing) is not None:
            self._visit_callable(thing)
        elif not _is_library(type(thing).__module__):
            self._visit_object(thing)

    def _visit_layer(self, layer: Any) -> None:
        own, books, always = vars(layer), keras_internals.bookkeeping(), keras_internals.ATTRIBUTES_THAT_SHAPE_CALLS
        self._read(own, (set(own) - {STORED} - books) | always if self.every else self._names_of_layers)
        self._visit_class(type(layer))

    def _visit_object(self, thing: Any) -> None:
        attributes = getattr(thing, "__dict__", {})
        self._read(attributes, frozenset(attributes) if self.every else self.names)
        slots = [name for cls in type(thing).__mro__ for name in _names(getattr(cls, "__slots__", ()))]
        for name in slots:
            if (name in self.names or self.every) and hasattr(thing, name):
                self.readers.append(lambda name=name: (getattr(thing, name, _MISSING),))
                self._take(getattr(thing, name))
        self._visit_class(type(thing))

    def _visit_class(self, cls: type) -> None:
        """Visit the attributes and methods that a class, and those that it inherits from, have under the names."""
        for each in cls.__mro__:
            if each in self._classes or each in keras_internals.base_classes() or each.__module__ == "builtins":
                continue
            self._classes.add(each)
            own = vars(each)
            implicit = {n for n in own if n[:2] == n[-2:] == "__" and callable(own[n])} - _NOT_CALLED_BY_MODELS
            read = (self.names & own.keys()) | implicit
            if not _is_library(each.__module__):
                self._read(own, self.names | implicit)
                continue
            for name in read:  # a library's class does not change, but its code reads what its instances have
                self._note(function_of(own[name]))

    def _visit_container(self, thing: Any) -> None:
        if isinstance(thing, dict):
            self.readers.append(lambda: chain(thing, thing.values()))
            self._take(*thing.values())
        elif not isinstance(thing, tuple):
            self.readers.append(partial(iter, thing))
            self._take(*thing)
        else:
            self._take(*thing)

    def _visit_callable(self, thing: Any) -> None:
        owner = getattr(thing, "__self__", None)
        if owner is not None:
            self._take(owner)
        if isinstance(thing, partial):
            self._take(thing.func, *thing.args, *thing.keywords.values())
        function = function_of(thing)
        if function is None or _is_library(function.__module__ or ""):
            return
        if function is not thing:
            self._take(function)
            return
        self._note(function)
        reads = names_of(function.__code__)
        self._read(function.__globals__, reads.globals)
        if function.__closure__:
            self.readers.append(partial(map, _CONTENTS, function.__closure__))
            self._take(*(_contents(cell) for cell in function.__closure__))
        self.readers.append(lambda: (function.__code__, function.__defaults__, function.__kwdefaults__))
        self._take(function.__defaults__, function.__kwdefaults__)

    def _note(self, function: Any) -> None:
        if function is not None:
            reads = names_of(function.__code__)
            self.names |= reads.attributes
            if reads.every and not _is_library(function.__module__ or ""):
                self.names.add("*")


def _walked(model: Any, layers: list[Any]) -> _Walk:
    names: set[str] = {"call"}
    while True:
        before = len(names)
        walk = _Walk(names)
        walk.run(model, layers)
        if len(names) == before:
            return walk


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _is_library(module: str) -> bool:
    return module.split(".", 1)[0] in _LIBRARIES
