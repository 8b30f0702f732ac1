"""Everything in Python that a model's code can read: found by following the names in the code through objects.

Only names that the code of `call`, and of the functions that it reaches, contains can shape what a model computes. So an
attribute that no code reads, such as a counter of training steps, does not count as a part of the model.
"""

import functools
import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.types.experimental import PolymorphicFunction

from rlgrad.core import keras_internals
from rlgrad.core.code_names import names_of

MAX_ARRAY_BYTES = 65536  # of NumPy arrays whose numbers are compared
# Values of these types say the same if they are equal.
PLAIN = {type(None), bool, int, float, complex, str, bytes}
STORED = "_rlgrad_kept"  # where a model keeps what rlgrad knows about it
_LIBRARIES = {"keras", "tensorflow", "numpy", "ml_dtypes", "h5py", "gymnasium", "jax", "torch", "builtins"}
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
_NOT_CALLED_BY_MODELS = {"__init__", "__new__", "__repr__", "__str__", "__init_subclass__", "__del__"}
_NOT_CALLED_BY_MODELS |= {"__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"}
_ASSIGNING = {"assign", "assign_add", "assign_sub", "scatter_update", "scatter_add", "scatter_sub", "scatter_nd_update"}
_MISSING = object()
_CONTENTS = attrgetter("cell_contents")

Reader = Callable[[], Iterable[Any]]


class Walk:
    """One walk over everything that a model's code can reach by the names that it reads.

    Args:
        names: names of attributes that the code reads. The walk adds those of the functions that it meets; if there are new
            ones, it has to be repeated.

    Attributes:
        readers: return the objects that stand somewhere now.
        labels: the names that a reader of a mapping reads, by its position among the readers.
        places: mappings, the names that the code reads in them, and those of these names that they have.
        arrays: small NumPy arrays, each with its bytes.
        loose: variables of TensorFlow's own that the code may assign to.
    """

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self._names_of_layers = (names - keras_internals.bookkeeping()) | keras_internals.ATTRIBUTES_THAT_SHAPE_CALLS
        self.every = "*" in names
        self.readers: list[Reader] = []
        self.labels: dict[int, list[str]] = {}
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
            self.labels[len(self.readers)] = listed
            # The getter of one name returns what it finds, of several a tuple of it: the first is asked for twice.
            self.readers.append(functools.partial(itemgetter(listed[0], *listed), place))
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
            if not is_library(thing.__name__) and "site-packages" not in (getattr(thing, "__file__", None) or ""):
                self._read(vars(thing), self.names)
        elif isinstance(thing, type):
            self._visit_class(thing)
        elif (function := function_of(thing)) is not None:
            self._visit_callable(thing, function)
        elif not is_library(type(thing).__module__):
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
                self.readers.append(functools.partial(_slot, thing, name))
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
            if not is_library(each.__module__):
                self._read(own, self.names | implicit)
                continue
            for name in read:  # a library's class does not change, but its code reads what its instances have
                self._note(function_of(own[name]))

    def _visit_container(self, thing: Any) -> None:
        if isinstance(thing, dict):
            self.readers.append(lambda: chain(thing, thing.values()))
            self._take(*thing.values())
        elif not isinstance(thing, tuple):
            self.readers.append(functools.partial(iter, thing))
            self._take(*thing)
        else:
            self._take(*thing)

    def _visit_callable(self, thing: Any, function: types.FunctionType) -> None:
        owner = getattr(thing, "__self__", None)
        if owner is not None:
            self._take(owner)
        if isinstance(thing, functools.partial):
            self._take(thing.func, *thing.args, *thing.keywords.values())
        if is_library(function.__module__ or ""):
            return
        if function is not thing:
            self._take(function)
            return
        self._note(function)
        reads = names_of(function.__code__)
        self._read(function.__globals__, reads.globals)
        if function.__closure__:
            self.readers.append(functools.partial(map, _CONTENTS, function.__closure__))
            self._take(*(_contents(cell) for cell in function.__closure__))
        self.readers.append(lambda: (function.__code__, function.__defaults__, function.__kwdefaults__))
        self._take(function.__defaults__, function.__kwdefaults__)

    def _note(self, function: Any) -> None:
        if function is not None:
            reads = names_of(function.__code__)
            self.names |= reads.attributes
            if reads.every and not is_library(function.__module__ or ""):
                self.names.add("*")


def walk_over(model: Any) -> Walk:
    """Walk over a model, and over everything that its code reads, until no more names are found."""
    layers, names = [model, *keras_internals.all_layers(model)], {"call"}
    while True:
        before = len(names)
        walk = Walk(names)
        walk.run(model, layers)
        if len(names) == before:
            if not (walk.every or names & _ASSIGNING):
                walk.loose = []
            return walk


def function_of(thing: Any) -> types.FunctionType | None:
    """Return the Python function behind a method, a property, a `tf.function` or another wrapper; `None` if there is none."""
    for _ in range(8):
        if isinstance(thing, types.FunctionType):
            return thing
        if isinstance(thing, types.MethodType | classmethod | staticmethod):
            thing = thing.__func__
        elif isinstance(thing, property):
            thing = thing.fget
        elif isinstance(thing, functools.partial | functools.cached_property):
            thing = thing.func
        elif isinstance(thing, PolymorphicFunction):
            thing = thing.python_function
        elif isinstance(thing, functools._lru_cache_wrapper):
            thing = thing.__wrapped__
        else:
            return None
    return None


def _slot(thing: Any, name: str) -> tuple[Any]:
    return (getattr(thing, name, _MISSING),)


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def is_library(module: Any) -> bool:
    """Return `True` if objects of this module are taken for parts that do not change."""
    # Classes of compiled extensions may have a descriptor in the place of the name.
    return not isinstance(module, str) or module.split(".", 1)[0] in _LIBRARIES
