"""Search spaces: what `rlgrad tune` may change, as plain data that agents and updates declare.

A space maps dotted names to a `Range` or to a list of choices:

    {"gamma": [0.95, 0.99], "update.learning_rate": Range(1e-5, 1e-1, log=True)}
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from rlgrad.core.checks import check_keys

__all__ = ["Range", "Space", "parse_search", "under", "value_at", "with_values"]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; integers if both are.

    Args:
        low: the smallest.
        high: the largest.
        log: spread them evenly over orders of magnitude.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Check that there are numbers in between."""
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"A range goes up, and with log from above 0; got {self.low} to {self.high}.")


Space: TypeAlias = Mapping[str, Range | Sequence[Any]]
"""By dotted name, a range or a list of choices."""


def under(name: str, space: Space) -> dict[str, Range | Sequence[Any]]:
    """Return the search space of a field's own fields, as one of the record that has the field."""
    return {f"{name}.{inner}": values for inner, values in space.items()}


def value_at(record: Any, name: str) -> Any:
    """Return the value of a dotted name.

    Raises:
        ValueError: there is no such name; says what was meant.
    """
    for part in name.split("."):
        names = [field.name for field in dataclasses.fields(record)] if dataclasses.is_dataclass(record) else []
        check_keys({part: None}, names, f"part of {name!r}:")
        record = getattr(record, part)
    return record


def with_values(record: Any, values: Mapping[str, Any]) -> Any:
    """Return a record with other values at dotted names.

    Raises:
        ValueError: the values contradict each other.
    """
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            own[head] = tuple(value) if isinstance(value, list) else value
    own |= {head: with_values(getattr(record, head), below) for head, below in inner.items()}
    return dataclasses.replace(record, **own)


def parse_search(text: str) -> tuple[str, Range | Sequence[Any] | None]:
    """Return the name in a text, and the range or choices; `None` if it is the name alone.

    Args:
        text: `name=low:high`, `name=low:high:log`, `name=a,b,c` or `name`.

    Raises:
        ValueError: the text is none of these.
    """
    name, equals, values = text.partition("=")
    name = name.strip().lstrip("-").replace("-", "_")
    if not equals:
        return name, None
    parts = values.split(":")
    if len(parts) == 1:
        try:
            choices = [_number(choice) for choice in yaml.safe_load(f"[{values}]")]
        except yaml.YAMLError as error:
            raise ValueError(f"{text!r} is no list of choices: name=a,b,c.") from error
        if len(choices) < 2:
            raise ValueError(f"{text!r} leaves nothing to choose: name=low:high, name=low:high:log, or name=a,b,c.")
        return name, choices
    ends = [_number(part) for part in parts[:2]]
    if len(parts) > 3 or parts[2:] not in ([], ["log"]) or not all(type(end) in (int, float) for end in ends):
        raise ValueError(f"{text!r} is no range: name=low:high, or name=low:high:log.")
    return name, Range(ends[0], ends[1], log=len(parts) == 3)


def _number(value: Any) -> Any:
    """Return the number that a text holds: YAML reads 1e-3 as a text. Anything else stays as it is."""
    for kind in (int, float) if isinstance(value, str) else ():
        with contextlib.suppress(ValueError):
            return kind(value)
    return value
