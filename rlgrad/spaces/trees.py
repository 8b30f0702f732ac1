"""Observations may be trees: storage for them and a few functions over them, a plain array being the fast path."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import Space

from rlgrad.spaces.branches import leaves
from rlgrad.spaces.encoder import Encoder
from rlgrad.spaces.table import encoder_tree, find_encoder


def storage(space: Space[Any], leading: tuple[int, ...]) -> Any:
    """Return zeros for one observation of `space` at each index of `leading`.

    Args:
        space: a single environment's observation space: Box, Discrete, MultiDiscrete, MultiBinary, a space that has an
            encoder, or a Dict or Tuple of these.
        leading: the leading shape, such as `(T, N)`.

    Returns:
        A tree like the space, each array `leading + leaf shape`: float32 where the space is floating, else the space's
        own dtype.

    Raises:
        ValueError: a leaf has no encoder. The message says what to wrap the environment in.
    """

    def zeros(encoder: Encoder) -> Any:
        shape, dtype = encoder.layout()
        return np.zeros((*leading, *shape), dtype)

    return map_arrays(zeros, encoder_tree(space))


def ranges(space: Space[Any], name: str = "observation") -> dict[str, tuple[Any, Any]]:
    """Return the lowest and highest stored value of each leaf that has a range, by the name that `arrays` gives it."""
    known = {}
    for path, leaf in leaves(space):
        encoder = find_encoder(leaf)
        limits = None if encoder is None else encoder.range()
        if limits is not None:
            known[name + "".join(f"[{key!r}]" for key in path)] = limits
    return known


def put_one(store: Any, index: tuple[int, int], value: Any) -> None:
    """Copy one environment's observation into `store[row, slot]`."""
    if isinstance(store, np.ndarray):
        store[index] = value
    elif isinstance(store, dict):
        for key, inner in store.items():
            put_one(inner, index, value[key])
    else:
        for inner, part in zip(store, value, strict=True):
            put_one(inner, index, part)


def map_arrays(function: Callable[..., Any], *trees: Any) -> Any:
    """Return the tree of `function(array, …)` over the arrays at the same place in each tree."""
    first = trees[0]
    if isinstance(first, dict):
        return {key: map_arrays(function, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, tuple | list):
        parts = [map_arrays(function, *parts) for parts in zip(*trees, strict=True)]
        return parts if isinstance(first, list) else tuple(parts)
    return function(*trees)


def arrays(tree: Any, name: str) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yield each array of a tree with a readable name: `name`, or `name['key'][0]` inside one."""
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from arrays(inner, f"{name}[{key!r}]")
    elif isinstance(tree, tuple):
        for index, inner in enumerate(tree):
            yield from arrays(inner, f"{name}[{index}]")
    else:
        yield name, tree


def slot_of(tree: Any, slot: int) -> Any:
    """Return one slot's part of an array of observations, or of a tree of arrays."""
    if isinstance(tree, dict):
        return {key: slot_of(inner, slot) for key, inner in tree.items()}
    if isinstance(tree, tuple):
        return tuple(slot_of(inner, slot) for inner in tree)
    return tree[slot]
