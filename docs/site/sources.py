"""Kinds of public names, and their descriptions in the source: docstrings, and strings below assignments."""

import inspect
import sys
from typing import Any, get_origin

from rlgrad.core.settings import descriptions


def kind(value: Any) -> str:
    """Return the kind of a value: class, exception, function or data. An alias of a type is data."""
    if isinstance(value, type) and not get_origin(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isroutine(value) else "data"


def description(name: str, value: Any) -> str:
    """Return what describes a public name of rlgrad: its docstring, or the string below the assignment of data."""
    if kind(value) != "data":
        return inspect.getdoc(value) or ""
    modules = [m for n, m in sorted(sys.modules.items()) if n.startswith("rlgrad") and vars(m).get(name) is value]
    return next((text for m in modules if (text := descriptions(m).get(name))), "")
