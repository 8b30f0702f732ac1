"""The arrays of an input that a question differentiates with respect to: `inputs=`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import tensorflow as tf

from rlgrad.gradients.questions.inputs import Inputs


@dataclass(frozen=True)
class ChosenInputs:
    """Some leaves of an input.

    Args:
        positions: the leaves, by position.
        names: how the caller writes each leaf of the whole input.
        entries: how `inputs=` says each leaf of the whole input.
        tree: the caller's tree of those chosen, with the position of each leaf in its place; of the whole input if none is.
    """

    positions: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    entries: tuple[Any, ...] = ()
    tree: Any = ()

    def packed(self, results: Sequence[Any]) -> Any:
        """Return results, one for each of `positions`, in the caller's tree."""
        return _filled(self.tree, dict(zip(self.positions, results, strict=True)))

    def unpacked(self, tree: Any, what: str) -> list[tuple[str, Any]]:
        """Return the arrays of a tree like that of the results, one for each of `positions`, with the name of each.

        Raises:
            ValueError: the tree has other parts; or two arrays for one part of the input.
        """
        found = dict[int, tuple[str, Any]]()
        for position, name, part in _matched(self.tree, tree, what):
            if position in found:
                raise ValueError(f"{what} has two arrays for {self.names[position]}: inputs= chooses it twice.")
            found[position] = (name, part)
        return [found[position] for position in self.positions]


NO_INPUTS = ChosenInputs()


def no_inputs_of(prepared: Inputs) -> ChosenInputs:
    """Return none of the leaves of an input, with what `choose_inputs` needs to choose some later."""
    return ChosenInputs(names=prepared.names, tree=prepared.given)


def choose_inputs(whole: ChosenInputs, leaves: Sequence[Any], expected: Any, inputs: Any) -> ChosenInputs:
    """Return the leaves that `inputs=` means.

    Args:
        whole: the names and the tree of the whole input.
        leaves: its tensors.
        expected: see `keras_internals.expected_inputs`.
        inputs: `None`: all leaves, which must then be floating-point. A key, the name of a `keras.Input`, a path of keys
            ("a/b"), or a position in a list or tuple; or a list of these.

    Raises:
        TypeError: a leaf that is not floating-point; an entry that is no name or position.
        ValueError: a name or position that the input does not have.
    """
    given = whole.tree
    entries = tuple(_entry(path) for _, path in sorted(_paths(given), key=lambda found: found[0]))
    if inputs is None:
        tree = given
    elif isinstance(inputs, list | tuple):
        if not inputs:
            raise ValueError("inputs=[] selects nothing. Leave inputs= out to select all inputs.")
        tree = {entry: _find(given, expected, entry, entries) for entry in inputs}
    else:
        tree = _find(given, expected, inputs, entries)
    positions = tuple(sorted({position for position, _ in _paths(tree)}))
    _require_floating(whole.names, leaves, positions, entries)
    return ChosenInputs(positions, whole.names, entries, tree)


def _find(given: Any, expected: Any, entry: Any, entries: Sequence[Any]) -> Any:
    """Return the part of the caller's tree that one entry of `inputs=` means."""
    if isinstance(entry, str):
        found = _at_path(given, (entry,))
        if found is None:
            found = _at_path(given, entry.split("/"))
        if found is not None:
            return found
        by_name = [
            i for i, reference in enumerate(tf.nest.flatten(expected)) if getattr(reference, "name", "") == entry
        ]
        if len(by_name) == 1:
            return by_name[0]
    elif isinstance(entry, bool) or not hasattr(entry, "__index__"):
        raise TypeError(
            f"inputs= takes a key or an Input's name, a position, or a list of these; got {type(entry).__name__}."
        )
    elif isinstance(given, dict):
        raise ValueError(f"inputs={entry}, but x is a dict: name its keys, {_listed(entries)}.")
    else:
        parts = given if isinstance(given, list | tuple) else (given,)
        if -len(parts) <= entry.__index__() < len(parts):
            return parts[entry.__index__()]
    close = get_close_matches(str(entry), [str(known) for known in entries], n=1)
    meant = f"Did you mean {close[0]!r}?" if close else f"There are: {_listed(entries)}."
    raise ValueError(f"The input has no part {entry!r}. {meant}")


def _at_path(tree: Any, path: Sequence[str]) -> Any:
    """Return the part of a tree at a path of keys and positions; `None` if there is none."""
    for key in path:
        if isinstance(tree, dict) and key in tree:
            tree = tree[key]
        elif isinstance(tree, list | tuple) and key.isdecimal() and int(key) < len(tree):
            tree = tree[int(key)]
        else:
            return None
    return tree


def _require_floating(
    names: Sequence[str], leaves: Sequence[Any], positions: Sequence[int], entries: Sequence[Any]
) -> None:
    """Raise if a chosen leaf is not made of floating-point numbers: nothing else has a gradient."""
    without = [i for i in positions if not leaves[i].dtype.is_floating]
    if not without:
        return
    what = ", ".join(f"{names[i]} ({leaves[i].dtype.name})" for i in without)
    floating = [entry for entry, leaf in zip(entries, leaves, strict=True) if leaf.dtype.is_floating]
    if floating:
        raise TypeError(
            f"Input {what} is not made of floating-point numbers, and nothing else has a gradient. Say what is to be "
            f"differentiated: inputs={(floating[0] if len(floating) == 1 else floating)!r}."
        )
    raise TypeError(
        f"Input {what} is not made of floating-point numbers, and nothing else has a gradient. A keras.Input of integers "
        "casts whatever is passed: give it dtype='float32' if its numbers are quantities. For token ids and images that "
        "the model itself turns into floats differentiate with respect to the layer that does: "
        "activation_gradient(model, x, at='embedding'), or its weights, gradient(model, x, weights='embedding'). An integer "
        "array of a model without a keras.Input is converted to float first."
    )


def _entry(path: tuple[Any, ...]) -> Any:
    """Return how `inputs=` says the leaf at a path."""
    return path[0] if len(path) == 1 else "/".join(map(str, path)) if path else 0


def _listed(entries: Sequence[Any]) -> str:
    return ", ".join(map(repr, entries))


def _paths(tree: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield the leaf positions that a tree holds, each with its path."""
    if isinstance(tree, dict):
        for key, part in tree.items():
            yield from ((position, (key, *path)) for position, path in _paths(part))
    elif isinstance(tree, list | tuple):
        for index, part in enumerate(tree):
            yield from ((position, (index, *path)) for position, path in _paths(part))
    else:
        yield tree, ()


def _matched(tree: Any, other: Any, name: str) -> Iterator[tuple[int, str, Any]]:
    """Yield the leaf positions of a tree, each with what another tree has there, and how that is written."""
    if isinstance(tree, dict):
        if not isinstance(other, Mapping) or set(other) != set(tree):
            got = f"the keys {sorted(map(str, other))}" if isinstance(other, Mapping) else type(other).__name__
            raise ValueError(f"{name} is a dict with exactly the keys {_listed(list(tree))}; got {got}.")
        for key, part in tree.items():
            yield from _matched(part, other[key], f"{name}[{key!r}]")
    elif isinstance(tree, list | tuple):
        if not isinstance(other, list | tuple) or len(other) != len(tree):
            raise ValueError(f"{name} is a {type(tree).__name__} of {len(tree)} arrays; got {type(other).__name__}.")
        for index, (part, own) in enumerate(zip(tree, other, strict=True)):
            yield from _matched(part, own, f"{name}[{index}]")
    else:
        yield tree, name, other


def _filled(tree: Any, results: dict[int, Any]) -> Any:
    """Return a tree with the result of each position in its place."""
    if isinstance(tree, dict):
        return {key: _filled(part, results) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        parts = [_filled(part, results) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return results[tree]
