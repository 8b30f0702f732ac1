"""Running a model so that it is left as it was, also where its `call` counts, draws, assigns or keeps what it computed."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import tensorflow as tf
from tensorflow.types.experimental import PolymorphicFunction

from rlgrad.core import keras_internals, snapshots
from rlgrad.core.code_names import without_compilation
from rlgrad.core.reach import STORED, is_library
from rlgrad.core.tensorflow_internals import trace

_LISTS = (list, dict, set)


class _Attempts(set[tuple[int, ...]]):
    """The groups of layers, by their ids, that running the model did not build."""


def build_layers(model: Any, call: Callable[[Any], Any], structure: Any, signature: Iterable[Any]) -> None:
    """Let the layers that get their weights in their first call have them, by tracing the model once, on no numbers.

    Args:
        model: a built Keras model; a layer inside of it may not be built.
        call: calls the model on its input.
        structure: the tree of the model's input, with a `None` in place of each leaf.
        signature: a `tf.TensorSpec` for each leaf.
    """
    layers = keras_internals.all_layers(model)
    unbuilt = tuple(id(layer) for layer in layers if not layer.built)
    if not unbuilt or unbuilt in snapshots.kept_with(model, _Attempts):
        return

    def run(leaves: list[Any]) -> list[Any]:
        call(tf.nest.pack_sequence_as(structure, leaves))
        return []

    # The model raises its own errors again when it runs on the caller's numbers.
    with tf.init_scope(), keras_internals.kept_losses([model, *layers]), contextlib.suppress(Exception):
        trace(run, list(signature))
    left = tuple(id(layer) for layer in keras_internals.all_layers(model) if not layer.built)
    snapshots.kept_with(model, _Attempts).add(left)


@contextlib.contextmanager
def untouched(model: Any, in_place: Iterable[tuple[Any, Any]] = ()) -> Iterator[Mapping[int, Any]]:
    """Leave the model as it was after it runs inside this context.

    Assignments to its variables are seen by the rest of the run and then dropped, so a counter does not count and a seed
    stays: each run draws the same numbers. Attributes that the run sets get their earlier values. Methods that are a
    `tf.function` run as a part of what is being traced; TensorFlow would otherwise use an earlier trace of theirs, which
    knows neither the values in `in_place` nor the tape that watches.

    Args:
        model: a Keras model.
        in_place: Keras variables that have another value meanwhile, each with that value.

    Yields:
        The values that Keras variables have instead of their own, those that the run assigned included, by their ids.
    """
    layers = [model, *keras_internals.all_layers(model)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(keras_internals.kept_losses(layers))
        stack.enter_context(_kept_attributes(layers))
        stack.enter_context(_kept_values(snapshots.current(model).loose))
        stack.enter_context(_inlined(layers))
        yield stack.enter_context(keras_internals.values_in_place(in_place))


@contextlib.contextmanager
def _kept_attributes(layers: list[Any]) -> Iterator[None]:
    """Restore the attributes that a run sets, and the lists that it changes; apart from Keras's own books."""
    books = keras_internals.bookkeeping() | {STORED}
    before = []
    for layer in layers:
        own = {name: value for name, value in vars(layer).items() if name not in books}
        lists = [(value, _copy(value)) for value in own.values() if isinstance(value, _LISTS)]
        before.append((layer, layer.built, own, lists))
    try:
        yield
    finally:
        for layer, built, own, lists in before:
            if built == layer.built:  # else the run has made its weights
                _restore(vars(layer), own, books)
                for value, copy in lists:
                    _refill(value, copy)


def _restore(attributes: dict[str, Any], before: dict[str, Any], books: frozenset[str]) -> None:
    for name in [name for name in attributes if name not in before and name not in books]:
        del attributes[name]
    for name, value in before.items():
        if attributes.get(name) is not value:
            attributes[name] = value


def _copy(value: Any) -> Any:
    return dict(value.items()) if isinstance(value, dict) else list(value)


def _refill(value: Any, before: Any) -> None:
    """Give a list, dict or set its earlier contents, past what a subclass does on changes."""
    now = _copy(value)
    same = list(map(id, now)) == list(map(id, before))
    if isinstance(value, dict):
        if not same or any(now[key] is not before[key] for key in before):
            dict.clear(value)
            dict.update(value, before)
    elif not same and isinstance(value, list):
        list.clear(value)
        list.extend(value, before)
    elif not same:
        set.clear(value)
        set.update(value, before)


@contextlib.contextmanager
def _kept_values(variables: list[Any]) -> Iterator[None]:
    """Give variables that are not Keras's their earlier values."""
    before = [(variable, tf.identity(variable.read_value())) for variable in variables]
    yield
    for variable, value in before:
        variable.assign(value)


@contextlib.contextmanager
def _inlined(layers: list[Any]) -> Iterator[None]:
    """While this context is open, methods that are a `tf.function` run as the Python function that they were made of."""
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for layer in layers:
        if is_library(type(layer).__module__):  # a TFSMLayer runs what was saved, of which there is no Python code
            continue
        attributes = vars(layer)
        for name, function in _compiled_methods(layer):
            if name not in attributes or isinstance(attributes[name], PolymorphicFunction):
                replaced.append((attributes, name, attributes.get(name)))
                attributes[name] = function
    try:
        yield
    finally:
        for attributes, name, own in reversed(replaced):
            del attributes[name]
            if own is not None:
                attributes[name] = own


def _compiled_methods(layer: Any) -> Iterator[tuple[str, Any]]:
    for name, own in vars(layer).items():
        if isinstance(own, PolymorphicFunction):
            yield name, without_compilation(own)
    found = set()
    for cls in type(layer).__mro__:
        if cls in keras_internals.base_classes():
            break
        for name, own in vars(cls).items():
            if name not in found and isinstance(own, PolymorphicFunction):
                yield name, partial(without_compilation(own), layer)
            found.add(name)
