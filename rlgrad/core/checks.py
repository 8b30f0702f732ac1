"""Checks of arguments, with messages that say what was expected."""

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def require(condition: bool, name: str, expected: str, value: Any) -> None:
    """Raise a ValueError unless `condition` holds: "`name` is `expected`, got `value`."."""
    if not condition:
        raise ValueError(f"{name} is {expected}, got {value!r}.")


def require_above(record: Any, *, at_least: Mapping[str, float], above: Mapping[str, float]) -> None:
    """Raise a ValueError for the first field of a record that is too small. Fields that are `None` pass.

    Args:
        record: with a field for each name.
        at_least: by name, the smallest value that passes.
        above: by name, the largest value that does not pass.
    """
    for name, bound in at_least.items():
        value = getattr(record, name)
        require(value is None or value >= bound, name, f"at least {bound}", value)
    for name, bound in above.items():
        value = getattr(record, name)
        require(value is None or value > bound, name, f"above {bound}", value)


def require_at_most(record: Any, **most: int) -> None:
    """Raise a ValueError for the first field of a record that is beyond what anything is trained with. `None` passes."""
    for name, bound in most.items():
        value = getattr(record, name)
        require(value is None or value <= bound, name, f"at most {bound:,}", value)


def path_of(value: Any, name: str) -> Path:
    """Return a path that a user gave, its `~` replaced.

    Raises:
        TypeError: it is another object. Of a run the message tells its folder.
    """
    if isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)):
        return Path(value).expanduser()
    inside = getattr(value, "path", None)
    hint = f" Its folder is its attribute path, {str(inside)!r}." if isinstance(inside, str | Path) else ""
    raise TypeError(f"{name} is a path, such as 'runs/a', got {value!r}.{hint}")


def close_names(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the known names that are near to a wrong one, or with all of them if none is."""
    known = list(known)
    same = [each for each in known if each.lower() == name.lower()]
    near = same or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {', '.join(sorted(known)) or 'none'}."


def check_keys(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Raise a ValueError for the first key that is not known, with the known ones that are near to it."""
    known = list(known)
    for key in given:
        if key not in known:
            raise ValueError(f"Unknown {what} {key!r}. {close_names(str(key), known)}")
