"""Search spaces: what `rlgrad tune` may change, as plain data that agents declare.

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
from rlgrad.updates import Ascent, NaturalGradient, PerHead, TrustRegion, Update

__all__ = ["Range", "Space", "of_update", "parsed", "replaced", "value_at"]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if both are.

    Args:
        low: the smallest.
        high: the largest.
        log: spread evenly over their orders of magnitude.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Check that there is something between."""
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"A range goes up, and with log from above 0; got {self.low} to {self.high}.")


Space: TypeAlias = Mapping[str, Range | Sequence[Any]]
"""By dotted name, a range or a list of choices."""


def of_update(update: Update, name: str = "update") -> dict[str, Range | Sequence[Any]]:
    """Ranges for how far an update moves the weights: learning rates and bounds on the divergence.

    Args:
        update: whose fields decide which of them there are.
        name: of the agent's field that holds it.
    """
    match update:
        case PerHead():
            return of_update(update.policy, f"{name}.policy") | of_update(update.value, f"{name}.value")
        case NaturalGradient() | TrustRegion() if update.target_kl is not None:
            return {f"{name}.target_kl": Range(1e-3, 1e-1, log=True)}
        case Ascent() if not isinstance(update.optimizer, str):
            return {}  # the rate is the given optimizer's own
    return {f"{name}.learning_rate": Range(1e-5, 1e-1, log=True)}


def value_at(record: Any, name: str) -> Any:
    """The value of a dotted name.

    Raises:
        ValueError: there is none; says what was meant.
    """
    for part in name.split("."):
        names = [field.name for field in dataclasses.fields(record)] if dataclasses.is_dataclass(record) else []
        check_keys({part: None}, names, f"part of {name!r}:")
        record = getattr(record, part)
    return record


def replaced(record: Any, values: Mapping[str, Any]) -> Any:
    """A record with other values at dotted names.

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
    own |= {head: replaced(getattr(record, head), below) for head, below in inner.items()}
    return dataclasses.replace(record, **own)


def parsed(text: str) -> tuple[str, Range | Sequence[Any] | None]:
    """`name=low:high`, `name=low:high:log`, `name=a,b,c` or `name` alone, as a name and what it may be, if that is said.

    Raises:
        ValueError: it is none of these.
    """
    name, equals, said = text.partition("=")
    name = name.strip().lstrip("-").replace("-", "_")
    if not equals:
        return name, None
    parts = said.split(":")
    if len(parts) == 1:
        try:
            choices = [_number(choice) for choice in yaml.safe_load(f"[{said}]")]
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
    """Text that is a number, which YAML does not say of 1e-3."""
    for kind in (int, float) if isinstance(value, str) else ():
        with contextlib.suppress(ValueError):
            return kind(value)
    return value
