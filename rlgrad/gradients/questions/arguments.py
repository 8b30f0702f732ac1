"""How a model takes its input: as one argument of its `call`, or as several.

A subclassed model whose `call` requires several inputs, `call(self, x, t)`, takes a tuple or list of them in this order, or a
dict by the arguments' names. A `call` with one required input takes x as it is; its optional inputs can be given in a dict
by the arguments' names, `{"x": …, "mask": …}`.
"""

import inspect
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Arguments:
    """The inputs that a model's `call` has.

    Args:
        positional: names of those that may be given by position, in order: `training` is never given so.
        required: names of those without a default.
        known: names of all.
    """

    positional: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


# By the function behind a model's `call`.
_ARGUMENTS: "weakref.WeakKeyDictionary[Any, Arguments]" = weakref.WeakKeyDictionary()


def spread(model: Any, x: Any) -> Any:
    """Return x as a tuple or dict of the arguments of the model's `call`; `None` if x is its one argument.

    Raises:
        ValueError: `call` requires several inputs, and x is not a tuple, list or dict of these.
    """
    arguments = arguments_of(model)
    several = len(arguments.required) > 1
    if isinstance(x, Mapping) and (several or len(x) > 1):
        given = {name: part for name, part in x.items() if part is not None}
        if set(arguments.required) <= set(given) <= set(arguments.known):
            return given
    if not several:
        return None
    count = len(x) if isinstance(x, list | tuple) else 0
    if 0 < count <= len(arguments.positional) and set(arguments.required) <= set(arguments.positional[:count]):
        return tuple(x)
    names = arguments.required
    by_position = f"x=({', '.join(names)}) or " if set(names) <= set(arguments.positional) else ""
    by_name = "x={" + ", ".join(f"{name!r}: …" for name in names) + "}"
    raise ValueError(
        f"Model {model.name!r} takes several inputs, call({', '.join(arguments.known)}). Pass {by_position}{by_name}; got "
        f"{_describe(x)}."
    )


def call_model(model: Any, x: Any, spread: bool, training: bool = False) -> Any:
    """Return what the model returns for x; with `spread`, x is a tuple or dict of the arguments of its `call`."""
    if not spread:
        return model(x, training=training)
    return model(**x, training=training) if isinstance(x, Mapping) else model(*x, training=training)


def arguments_of(model: Any) -> Arguments:
    """Return the inputs that a model's `call` has, without `self` and `training`."""
    call = model.call
    function = getattr(call, "__func__", call)
    try:
        if function not in _ARGUMENTS:
            _ARGUMENTS[function] = _read(call)
        return _ARGUMENTS[function]
    except TypeError:  # cannot be hashed, or not be referred to weakly
        return _read(call)


def _read(call: Any) -> Arguments:
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return Arguments()
    every = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    before = next((i for i, p in enumerate(every) if p.name == "training"), len(every))
    named = [p for p in every if p.name != "training"]
    return Arguments(
        tuple(p.name for p in every[:before] if p.kind is p.POSITIONAL_OR_KEYWORD),
        tuple(p.name for p in named if p.default is p.empty),
        tuple(p.name for p in named),
    )


def _describe(x: Any) -> str:
    if isinstance(x, Mapping):
        return f"a dict with the keys {sorted(map(str, x))}"
    if isinstance(x, list | tuple):
        return f"a {type(x).__name__} of {len(x)}"
    return "one array"
