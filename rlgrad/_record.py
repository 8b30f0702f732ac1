"""Frozen records of hyper-parameters: what agents and updates are."""

import dataclasses
import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, dataclass_transform


@dataclass_transform(frozen_default=True, kw_only_default=True)
class _Transformed:
    """Carries the decorator for type checkers: on a class with fields of its own it would hide them."""


class Record(_Transformed):
    """A frozen, keyword-only dataclass that its subclasses become without a decorator."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the subclass a dataclass; an override without an annotation, which dataclasses would ignore, raises."""
        super().__init_subclass__(**kwargs)
        records: list[Any] = [base for base in cls.__mro__[1:] if dataclasses.is_dataclass(base)]
        inherited = {field.name for base in records for field in dataclasses.fields(base)}  # class variables are none
        for name in inherited & cls.__dict__.keys() - inspect.get_annotations(cls).keys():
            raise TypeError(
                f"{cls.__name__}.{name} is a hyper-parameter and needs its type to be overridden: "
                f"write `{name}: {type(cls.__dict__[name]).__name__} = {cls.__dict__[name]!r}`."
            )
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def fields(record: Any) -> dict[str, Any]:
    """A record's field values by name, not descending into records inside it."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def require(condition: bool, name: str, expected: str, value: Any) -> None:
    """Raise a ValueError in the house form unless `condition` holds."""
    if not condition:
        raise ValueError(f"{name} is {expected}, got {value!r}.")


def close_names(name: str, known: Iterable[str]) -> str:
    """A sentence that names what `name` may have meant among `known`."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {', '.join(sorted(known)) or 'none'}."


def check_keys(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Raise a ValueError for the first key that is not known, saying what was meant."""
    known = list(known)
    for key in given:
        if key not in known:
            raise ValueError(f"Unknown {what} {key!r}. {close_names(str(key), known)}")
