"""Walks over spaces. `branch` alone knows which spaces have parts, so leaves are all that the rest of rlgrad has to know."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gymnasium import Space, spaces

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Branch:
    """The parts of a space.

    Attributes:
        kind: what its values are, `dict` or `tuple`.
        parts: the spaces below it, by key or position, in the order of the space.
    """

    kind: type
    parts: dict[Any, Space[Any]]

    def build(self, values: Iterable[Any]) -> Any:
        """Return a value of the space from one of each part."""
        return dict(zip(self.parts, values, strict=True)) if self.kind is dict else tuple(values)


def branch(space: Space[Any]) -> Branch | None:
    """Return the parts of a Dict or Tuple space; `None` for a leaf."""
    if isinstance(space, spaces.Dict):
        return Branch(dict, dict(space.spaces))
    if isinstance(space, spaces.Tuple):
        return Branch(tuple, dict(enumerate(space.spaces)))
    return None


def leaves(space: Space[Any], path: Path = ()) -> list[tuple[Path, Space[Any]]]:
    """Return each leaf of a space with its path, the keys and positions that lead to it, in the order of the space."""
    parts = branch(space)
    if parts is None:
        return [(path, space)]
    return [leaf for key, part in parts.parts.items() for leaf in leaves(part, (*path, key))]


def branches(space: Space[Any], path: Path = ()) -> Iterator[tuple[Path, Branch]]:
    """Yield each Dict and Tuple of a space with its path, the outer ones first."""
    parts = branch(space)
    if parts is not None:
        yield path, parts
        for key, part in parts.parts.items():
            yield from branches(part, (*path, key))


def map_leaves(function: Callable[[Space[Any]], Any], space: Space[Any]) -> Any:
    """Return a tree like the values of a space, with `function(leaf)` in the place of each leaf's value."""
    parts = branch(space)
    if parts is None:
        return function(space)
    return parts.build([map_leaves(function, part) for part in parts.parts.values()])


def match(space: Space[Any], value: Any, name: str) -> Iterator[tuple[str, Space[Any], Any, str | None]]:
    """Pair the leaves of a space with the parts of a value, which may have another structure.

    Yields:
        Name, space and value of a leaf, and `None`; or of a Dict or Tuple whose parts cannot be found, and what is expected.
    """
    parts = branch(space)
    if parts is None:
        yield name, space, value, None
        return
    if parts.kind is dict:
        fits = hasattr(value, "keys") and all(key in value for key in parts.parts)
        expected = f"a dict with {', '.join(map(repr, parts.parts))}"
    else:
        fits = isinstance(value, tuple | list) and len(value) == len(parts.parts)
        expected = f"a tuple of {len(parts.parts)}"
    if not fits:
        yield name, space, value, expected
        return
    for key, part in parts.parts.items():
        yield from match(part, value[key], f"{name}[{key!r}]")
