"""Frozen records of hyper-parameters. Agents and updates are such records."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, dataclass_transform

from rlgrad.core.checks import close_names
from rlgrad.core.schedules import Schedule, anneal, require_schedule
from rlgrad.core.settings import as_declared, hints

__all__ = ["Record", "Schedule", "anneal", "fields"]


@dataclass_transform(frozen_default=True, kw_only_default=True)
class _Transformed:
    """Carry the decorator for type checkers: on a class with fields of its own it would hide them."""


class Record(_Transformed):
    """A class whose subclasses are frozen, keyword-only dataclasses, without a decorator."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the subclass a dataclass. Raise for an override without an annotation, which dataclasses would ignore."""
        super().__init_subclass__(**kwargs)
        own = set(cls.__dict__)
        records: list[Any] = [base for base in cls.__mro__[1:] if dataclasses.is_dataclass(base)]
        inherited = {field.name for base in records for field in dataclasses.fields(base)}  # class variables are none
        for name in inherited & cls.__dict__.keys() - inspect.get_annotations(cls).keys():
            raise TypeError(
                f"{cls.__name__}.{name} is a hyper-parameter and needs its type to be overridden: "
                f"write `{name}: {type(cls.__dict__[name]).__name__} = {cls.__dict__[name]!r}`."
            )
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        if "__init__" not in own:
            _take_as_declared(cls)

    @classmethod
    def as_given(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of fields from what was given for them, as the fields declare them."""
        return as_declared(given, cls)


def _take_as_declared(cls: type[Any]) -> None:
    """Let a dataclass take its fields as people have them: numbers of NumPy, `1e5` and `"1000"` for counts, lists for tuples.

    Its fields then hold what a file can hold, and a value of another type is refused where it is given.
    """
    init = cls.__init__

    @functools.wraps(init)
    def converted(self: Any, **given: Any) -> None:
        for name in given.keys() - inspect.signature(init).parameters.keys():
            raise TypeError(_unknown(cls, name))
        init(self, **cls.as_given(given))
        kind: Any = cls  # one that mypy can hash
        for name in _schedules(kind):
            require_schedule(getattr(self, name), name)

    cls.__init__ = converted


def _unknown(cls: type[Any], name: str) -> str:
    """Return a sentence about a field that a record does not have: where it is, or which was meant."""
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    for place, value in defaults.items():
        if name in getattr(type(value), "__dataclass_fields__", {}):
            example = f"{cls.__name__}({place}={type(value).__name__}({name}=…))"
            return f"{cls.__name__} has no field {name!r}: its {place} has, as in {example}."
    return f"{cls.__name__} has no field {name!r}. {close_names(name, defaults)}"


def fields(record: Any) -> dict[str, Any]:
    """Return a record's field values by name. Records inside it stay records."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


@functools.lru_cache(maxsize=256)
def _schedules(cls: Any) -> tuple[str, ...]:
    """Return the names of the fields that hold schedules."""
    return tuple(name for name, hint in hints(cls).items() if hint == Schedule)
