"""The strings that stand below assignments in Python source, where they say what was assigned."""

import ast
import inspect
import sys
from itertools import pairwise
from textwrap import dedent
from types import ModuleType
from typing import Any, get_origin


def described(owner: type | ModuleType) -> dict[str, str]:
    """Return the strings below assignments in a class's or module's own source, by name."""
    tree = ast.parse(dedent(inspect.getsource(owner)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else tree.body
    return {
        name: inspect.cleandoc(below.value.value)
        for above, below in pairwise(body)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
        for name in _assigned(above)
    }


def kind(value: Any) -> str:
    """Class, exception, function or data, which an alias of a type is too."""
    if isinstance(value, type) and not get_origin(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isroutine(value) else "data"


def description(name: str, value: Any) -> str:
    """Return the docstring of a public name of rlgrad, or for data the string below its assignment, wherever that is."""
    if kind(value) != "data":
        return inspect.getdoc(value) or ""
    modules = [m for n, m in sorted(sys.modules.items()) if n.startswith("rlgrad") and vars(m).get(name) is value]
    return next((text for m in modules if (text := described(m).get(name))), "")


def _assigned(statement: ast.stmt) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]
