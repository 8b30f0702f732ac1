"""From docstrings as they are written here to reStructuredText."""

import re
from typing import Any

SECTIONS = ("Args:", "Returns:", "Raises:", "Attributes:", "Example:")


def is_undescribed_field(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Return True for a named tuple's field with Python's own docstring. `None`: let other handlers decide."""
    return True if (getattr(value, "__doc__", None) or "").startswith("Alias for field number") else None


def as_rst(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """In docstrings backticks mark code, indented lines an equation, and nothing else is markup.

    So what reStructuredText would read as emphasis, substitution or reference is escaped, as in (N, *shape) and |g|.
    """
    in_section, in_block, result = False, False, []
    if what in ("attribute", "property"):
        result += ["..", ""]  # an empty comment: napoleon takes what is before a colon in the first line for a type
    for line in lines:
        if line and not line.startswith(" "):
            in_section, in_block = line in SECTIONS, False
        if line.startswith(" ") and not in_section and not in_block:
            in_block = True
            result += ["::", ""]
        literal = in_block or line.lstrip().startswith((">>>", "..."))
        text = (
            ":returns:" if line == "Returns:" else escaped(line)
        )  # a field, whose text napoleon would split at a colon
        result.append(line if literal else text)
    lines[:] = result


def escaped(line: str) -> str:
    """A line in which only backticks are markup."""
    parts = line.split("`")
    parts[::2] = [re.sub(r"([*|\\]|_(?!\w))", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"`{code}`" if code.startswith(".") else code for code in parts[1::2]]  # `.x` would refer to any x
    return re.sub(r"(^\s*|: )(\w)\.$", r"\1\2\\.", "`".join(parts))  # "N." alone would begin a list
