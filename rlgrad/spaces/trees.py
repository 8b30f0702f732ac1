"""Observations may be trees (Dict and Tuple spaces): a few functions over them, a plain array being the fast path."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import Space, spaces

_ADVICE: dict[type, str] = {
    spaces.Text: "encode the text, with gymnasium.wrappers.TransformObservation",
    spaces.Sequence: "pad it to a fixed length, with gymnasium.wrappers.TransformObservation",
    spaces.Graph: "encode it in arrays of fixed shape, with gymnasium.wrappers.TransformObservation",
    spaces.OneOf: "make it a Tuple of a choice and its parts, with gymnasium.wrappers.TransformObservation",
}


def storage(space: Space[Any], leading: tuple[int, ...]) -> Any:
    """Zeros for one observation of `space` at each index of `leading`.

    Args:
        space: a single environment's observation space: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple
            of these.
        leading: the leading shape, such as `(T, N)`.

    Returns:
        A tree like the space, each array `leading + leaf shape`: float32 where the space is floating, else the space's
        own dtype.

    Raises:
        ValueError: a space that has no fixed shape, with what to wrap it in.
    """
    _require_fixed_shape(space)
    return _zeros(space, leading)


def _zeros(space: Space[Any], leading: tuple[int, ...]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _zeros(inner, leading) for key, inner in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_zeros(inner, leading) for inner in space)
    dtype = np.float32 if np.issubdtype(space.dtype, np.floating) else space.dtype
    return np.zeros((*leading, *(space.shape or ())), dtype)


def _require_fixed_shape(space: Space[Any]) -> None:
    refused = _shapeless(space)
    if refused is None:
        return
    otherwise = "encode it in arrays, with gymnasium.wrappers.TransformObservation"
    advice = next((text for kind, text in _ADVICE.items() if isinstance(refused, kind)), otherwise)
    kept = [key for key, inner in space.items() if _shapeless(inner) is None] if isinstance(space, spaces.Dict) else []
    if kept:
        advice = f'leave it out, with the wrapper "FilterObservation(filter_keys={kept})", or {advice}'
    raise ValueError(
        "Observations are Box, Discrete, MultiDiscrete or MultiBinary spaces, or a Dict or Tuple of these; "
        f"{refused} is not supported: {advice}."
    )


def _shapeless(space: Space[Any]) -> Space[Any] | None:
    """The first leaf of a space that has no fixed shape."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.values() if isinstance(space, spaces.Dict) else space
        return next((leaf for leaf in map(_shapeless, inner) if leaf is not None), None)
    fixed = isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    return None if fixed else space


def put_one(store: Any, index: tuple[int, int], value: Any) -> None:
    """Copies one environment's observation into `store[row, slot]`."""
    if isinstance(store, np.ndarray):
        store[index] = value
    elif isinstance(store, dict):
        for key, inner in store.items():
            put_one(inner, index, value[key])
    else:
        for inner, part in zip(store, value, strict=True):
            put_one(inner, index, part)


def map_arrays(function: Callable[..., Any], *trees: Any) -> Any:
    """The tree of `function(array, …)` over the arrays at the same place in each tree."""
    first = trees[0]
    if isinstance(first, dict):
        return {key: map_arrays(function, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, tuple | list):
        parts = [map_arrays(function, *parts) for parts in zip(*trees, strict=True)]
        return parts if isinstance(first, list) else tuple(parts)
    return function(*trees)


def arrays(tree: Any, name: str) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Each array of the tree with a readable name: `name`, or `name['key'][0]` inside one."""
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from arrays(inner, f"{name}[{key!r}]")
    elif isinstance(tree, tuple):
        for index, inner in enumerate(tree):
            yield from arrays(inner, f"{name}[{index}]")
    else:
        yield name, tree


def slot_of(tree: Any, slot: int) -> Any:
    """One slot's part: of an array of observations, or of a tree of arrays."""
    if isinstance(tree, dict):
        return {key: slot_of(inner, slot) for key, inner in tree.items()}
    if isinstance(tree, tuple):
        return tuple(slot_of(inner, slot) for inner in tree)
    return tree[slot]


def ranges(space: Space[Any], name: str = "observation") -> dict[str, tuple[Any, Any]]:
    """The lowest and the highest value of each part of a space that holds choices, by the name that `arrays` gives it."""
    if isinstance(space, spaces.Dict):
        return {key: r for part, inner in space.items() for key, r in ranges(inner, f"{name}[{part!r}]").items()}
    if isinstance(space, spaces.Tuple):
        return {key: r for i, inner in enumerate(space) for key, r in ranges(inner, f"{name}[{i}]").items()}
    if isinstance(space, spaces.Discrete):
        return {name: (int(space.start), int(space.start + space.n) - 1)}
    if isinstance(space, spaces.MultiDiscrete):
        return {name: (space.start, space.start + space.nvec - 1)}
    return {name: (0, 1)} if isinstance(space, spaces.MultiBinary) else {}
