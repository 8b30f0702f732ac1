"""The encoder of each leaf of an observation space: one registered here, an installed one, or one of rlgrad's own.

Of the leaf's class and its base classes, in this order, the first that has an encoder counts. A package brings encoders as
entry points of the group `rlgrad.encoders`, each the name of an `Encoder` class; a script calls `register_encoder`.
"""

import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from gymnasium import Space, spaces

from rlgrad.core import registry
from rlgrad.spaces.array_space import ArraySpace
from rlgrad.spaces.branches import branch, leaves, map_leaves
from rlgrad.spaces.encoder import Encoder
from rlgrad.spaces.kinds import KINDS

GROUP = "rlgrad.encoders"
Kind = TypeVar("Kind", bound=type[Encoder])
_ADVICE: dict[type, str] = {
    spaces.Text: "encode the text, with gymnasium.wrappers.TransformObservation",
    spaces.Sequence: "pad it to a fixed length, with gymnasium.wrappers.TransformObservation",
    spaces.Graph: "encode it in arrays of fixed shape, with gymnasium.wrappers.TransformObservation",
    spaces.OneOf: "make it a Tuple of a choice and its parts, with gymnasium.wrappers.TransformObservation",
}
_registered: dict[type[Space[Any]], type[Encoder]] = {}


def register_encoder(encoder: Kind, *, replace: bool = False) -> Kind:
    """Make this process use an encoder. Do it before environments and policies are made; `rlgrad.load` needs it again.

    Args:
        encoder: a subclass of `Encoder`.
        replace: let it take the place of another one that is registered for the same class of spaces.

    Returns:
        The class itself, so that this can decorate it.

    Raises:
        ValueError: another encoder is registered for that class of spaces.
    """
    served = _checked(encoder, getattr(encoder, "__name__", str(encoder))).serves
    other = _registered.get(served)
    # A notebook's cell that runs again defines the same class once more.
    if other is not None and not replace and _place(other) != _place(encoder):
        raise ValueError(
            f"{_place(other)} is registered for {served.__name__} already: pass replace=True to use {_place(encoder)} instead."
        )
    _registered[served] = encoder
    _kind_of.cache_clear()
    return encoder


def find_encoder(space: Space[Any]) -> Encoder | None:
    """Return the encoder of a leaf, `None` if there is none.

    Raises:
        ValueError: two installed packages serve it.
    """
    if isinstance(space, ArraySpace):
        return space.encoder
    served: Any = type(space)  # hashable, though its instances may not be
    kind = _kind_of(served, tuple(sys.path))
    return None if kind is None else kind(space)


def encoder_for(space: Space[Any]) -> Encoder:
    """Return the encoder of a leaf.

    Raises:
        ValueError: there is none; says what to wrap the environment in.
    """
    encoder = find_encoder(space)
    if encoder is None:
        raise _unsupported(space, space)
    return encoder


Encoder._look_up = encoder_for


def encoder_tree(space: Space[Any]) -> Any:
    """Return the tree of a space's encoders. Raise a ValueError if a leaf has none."""

    def encoder_of(leaf: Space[Any]) -> Encoder:
        encoder = find_encoder(leaf)
        if encoder is None:
            raise _unsupported(space, leaf)
        return encoder

    return map_leaves(encoder_of, space)


def foreign_encoders(space: Space[Any]) -> tuple[str, ...]:
    """Return the names of the encoders that a space uses and that do not ship with rlgrad."""
    used = [encoder_for(leaf) for _, leaf in leaves(space)]
    return tuple(dict.fromkeys(encoder_name(type(encoder)) for encoder in used if not is_ours(encoder)))


def require_used(kinds: Sequence[type[Encoder]], space: Space[Any]) -> None:
    """Raise a ValueError for an encoder that no leaf of a space uses."""
    used = {encoder_for(leaf).place for _, leaf in leaves(space)} if kinds else set()
    for kind in kinds:
        if _place(kind) not in used:
            raise ValueError(
                f"encoders names {encoder_name(kind)}, which serves {kind.serves.__name__}, and no part of {space} is encoded "
                "by it: leave it out."
            )


def is_ours(encoder: Encoder) -> bool:
    """Return whether an encoder is one that ships with rlgrad."""
    return type(encoder) in KINDS.values()


def encoder_name(kind: type[Encoder]) -> str:
    """Return the name by which `use_encoders` finds an encoder in another process."""
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        return f"({kind.__name__}, registered by a script)"
    return registry.name_of(GROUP, kind)


def use_encoders(names: Iterable[str]) -> list[type[Encoder]]:
    """Make this process use the encoders of some names, and return their classes.

    Args:
        names: entry points of the group `rlgrad.encoders`, `file.py:Name`, `module:Name`, or what `encoder_name` gave.

    Raises:
        ValueError: there is no such encoder, or another one is registered for the same spaces; says what to do.
    """
    kinds = []
    for name in names:
        registered = next((kind for kind in _registered.values() if encoder_name(kind) == name), None)
        if registered is not None:
            kinds.append(registered)
            continue
        if name.startswith("("):
            raise ValueError(
                f"Observations are encoded by {name}, which this process does not have: call "
                "rlgrad.spaces.register_encoder with that class first."
            )
        try:
            kind = _checked(registry.find(GROUP, name), name)
        except ValueError as error:
            raise ValueError(
                f"Observations are encoded by {name!r}, which cannot be found. {error} Install the package that brings it, or "
                "call rlgrad.spaces.register_encoder with its class first."
            ) from error
        if kind.serves in _registered or _installed().get(kind.serves) != {name: kind}:
            register_encoder(kind)
        kinds.append(kind)
    return kinds


@lru_cache(maxsize=256)
def _kind_of(space: Any, path: tuple[str, ...]) -> type[Encoder] | None:
    """Return the encoder class for a class of spaces, with the packages on a path. Cached: some callers ask at each step."""
    del path
    classes = space.__mro__
    kind = next((_registered[cls] for cls in classes if cls in _registered), None)
    if kind is None:
        installed = _installed()
        kind = next((_only(installed[cls]) for cls in classes if cls in installed), None)
    return next((KINDS[cls] for cls in classes if cls in KINDS), None) if kind is None else kind


def _installed() -> dict[type[Space[Any]], dict[str, type[Encoder]]]:
    """Load the encoders of installed packages: by the spaces that they serve, then by name."""
    table: dict[type[Space[Any]], dict[str, type[Encoder]]] = {}
    for name, point in registry.installed(GROUP).items():
        kind = _checked(point.load(), name)
        table.setdefault(kind.serves, {})[name] = kind
    return table


def _only(kinds: dict[str, type[Encoder]]) -> type[Encoder]:
    first, *others = kinds.values()
    if others:
        raise ValueError(
            f"Several installed encoders serve {first.serves.__name__}, {', '.join(kinds)}: choose one, by its name in "
            "`encoders` of the config or with rlgrad.spaces.register_encoder."
        )
    return first


def _checked(kind: Any, name: str) -> type[Encoder]:
    if not (isinstance(kind, type) and issubclass(kind, Encoder)):
        raise ValueError(f"The encoder {name} is a subclass of rlgrad.spaces.Encoder, got {kind!r}.")
    served = getattr(kind, "serves", None)
    if not (isinstance(served, type) and issubclass(served, Space)):
        raise ValueError(
            f"The encoder {name} says in `serves` which class of gymnasium.Space it takes, got {served!r}."
        )
    return kind


def _place(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _unsupported(space: Space[Any], leaf: Space[Any]) -> ValueError:
    otherwise = "encode it in arrays, with gymnasium.wrappers.TransformObservation"
    advice = next((text for kind, text in _ADVICE.items() if isinstance(leaf, kind)), otherwise)
    parts = branch(space)
    kept = [] if parts is None or parts.kind is not dict else [k for k, s in parts.parts.items() if _is_supported(s)]
    if kept:
        advice = f'leave it out, with the wrapper "FilterObservation(filter_keys={kept})", or {advice}'
    return ValueError(
        "Observations are Box, Discrete, MultiDiscrete or MultiBinary spaces, or a Dict or Tuple of these; "
        f"{leaf} is not supported: {advice}. Or write an encoder for it (docs/encoders.md)."
    )


def _is_supported(space: Space[Any]) -> bool:
    return all(find_encoder(leaf) is not None for _, leaf in leaves(space))
