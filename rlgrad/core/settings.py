"""Declared settings: reading them from a file, what the fields of a dataclass take, and whether a value fits its field."""

import ast
import contextlib
import dataclasses
import inspect
import math
import sys
import types
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rlgrad.core import plain_files, yaml_documents

_NAMES: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    type(None): "null",
    dict: "a mapping of names to values",
    list: "a list",
    tuple: "a list",
}


def read(path: Any, *, follow: bool = True) -> dict[str, Any]:
    """Read the mapping that a YAML file holds.

    Args:
        path: a file, or a resource as `importlib.resources` gives it.
        follow: take the file that a link leads to. `False` for a file of a run's folder.

    Raises:
        ValueError: the file holds something else; the message names the file.
    """
    most = plain_files.SETTINGS
    encoded = plain_files.read_bytes(path, most, follow=follow) if isinstance(path, Path) else path.read_bytes()
    try:
        content = yaml_documents.load(encoded.decode())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path} holds no settings: expected lines of `name: value`.")
    return content


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings without mappings inside of them: `agent.gamma` for `gamma` of `agent`."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


@lru_cache(maxsize=256)
def hints(cls: Any) -> Mapping[str, Any]:
    """Return the types of a dataclass's fields by name, without those whose names only a type checker imports."""
    resolved: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        module = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        for name, annotation in inspect.get_annotations(base).items():
            resolved.pop(name, None)
            with contextlib.suppress(NameError, AttributeError, TypeError):
                one = types.SimpleNamespace(__annotations__={name: annotation})
                resolved |= get_type_hints(one, {**vars(base)}, module)  # the module's names win over the class's
    found = {field.name: resolved[field.name] for field in dataclasses.fields(cls) if field.name in resolved}
    return types.MappingProxyType(found)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types that a union joins, or the type alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def record_type(hint: Any) -> type[Any] | None:
    """Return the dataclass among the alternatives of a type; `None` if there is none."""
    return next(
        (kind for kind in alternatives(hint) if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None
    )


def kinds_beside_records(declared: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return types without their records, of the fields that may be a record or something plainer, and are the latter.

    Args:
        declared: the type of each field.
        values: of the same fields.
    """
    found: dict[str, Any] = {}
    for name, hint in declared.items():
        kinds, record = alternatives(hint), record_type(hint)
        if record is not None and len(kinds) > 1 and not isinstance(values[name], record):
            found[name] = Union[tuple(kind for kind in kinds if kind is not record)]  # noqa: UP007
    return found


@lru_cache(maxsize=256)
def descriptions(owner: type | types.ModuleType) -> Mapping[str, str]:
    """Return the strings that stand below the assignments of a class or module in its source, by assigned name."""
    try:
        tree = ast.parse(dedent(inspect.getsource(owner)))
    except (OSError, TypeError):  # compiled without its source, or typed into a console
        return types.MappingProxyType({})
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else tree.body
    found = {
        name: inspect.cleandoc(below.value.value)
        for above, below in pairwise(body)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
        for name in _assigned(above)
    }
    return types.MappingProxyType(found)


def _assigned(statement: ast.stmt) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def as_declared(given: Mapping[str, Any], cls: Any, prefix: str = "") -> dict[str, Any]:
    """Return settings as the fields of a dataclass declare them: numbers as Python's own, lists as tuples.

    A number may be one of NumPy, or be written as text; a count may be written as `1e5`. What is left is what YAML holds.

    Args:
        given: value by field name. A value stays as it is if no field has its name, or if the field's type is none that a
            file can hold, and no dataclass.
        cls: the dataclass.
        prefix: of the names in messages, such as `agent.`.

    Raises:
        ValueError: a value does not fit; the message names the field and what it takes.
    """
    declared = hints(cls)
    return {
        key: _fitting(value, declared[key], f"{prefix}{key}") if key in declared else plain(value)
        for key, value in given.items()
    }


def plain(value: Any) -> Any:
    """Return a value with Python's numbers in place of NumPy's, also inside of mappings, lists and tuples."""
    if type(value) is dict:
        return {plain(key): plain(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if hasattr(value, "dtype") and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def count(value: Any, name: str) -> int:
    """Return a count that a person gave: an integer of Python or NumPy, `1e5`, or either as text.

    Raises:
        ValueError: it is none; the message has its name.
    """
    converted: int = _fitting(value, int, name)
    return converted


def mapping(value: Any, name: str) -> dict[str, Any]:
    """Return a setting that has settings of its own as a new dict.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {_NAMES[dict]}, got {value!r}.")
    return dict(value)


def require_finite(record: Any, prefix: str = "") -> None:
    """Raise a ValueError for a number in a dataclass, or in one inside it, that is not finite and is not its default."""
    for field in dataclasses.fields(record):
        value, name = getattr(record, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            require_finite(value, f"{name}.")
        elif isinstance(value, float) and not math.isfinite(value) and value != field.default:
            raise ValueError(f"{name} is a finite number, got {value!r}.")


def _fitting(value: Any, hint: Any, name: str) -> Any:
    value = plain(value)
    options = alternatives(hint)
    for option in options:
        fits, converted = _fits(value, option)
        if fits:
            return converted
    expected = " or ".join(dict.fromkeys(map(_expected, options)))
    raise ValueError(f"{name} is {expected}, got {value!r}.")


def _fits(value: Any, hint: Any) -> tuple[bool, Any]:
    """Return whether a value fits a type, and the value as that type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (int, float):
        converted = _number(value, hint)
        return converted is not None, converted
    if origin in (tuple, list):
        value = value.tolist() if hasattr(value, "tolist") else value  # an array of NumPy
        if not isinstance(value, list | tuple):
            return False, value
        inner = arguments[:1] * len(value) if arguments[1:] in ((), (...,)) else arguments
        each = [_fits(x, kind) for x, kind in zip(value, inner, strict=False)]
        return len(value) == len(inner) and all(fits for fits, _ in each), origin(converted for _, converted in each)
    if hint in (bool, str, type(None)) or record_type(hint) is hint:
        fits = isinstance(value, hint)
    elif origin is Literal:
        fits = isinstance(value, str | int) and value in arguments
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        fits = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    else:
        fits = True  # a type that no file holds: the field's own class checks it
    return fits, value


def _number(value: Any, kind: type[int] | type[float]) -> int | float | None:
    """Return a value as a number, `None` if it is none. YAML takes `1e-3` for text, so text is read too."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        if kind is int and not isinstance(value, int):
            return _whole(value)
        return kind(value)
    return None


def _whole(value: float | str) -> int | None:
    """Return a number without a fraction, such as 1e5 or the text "1000", as an integer; `None` if it has one."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):  # in all digits, where a float would round
            return int(value)
    number = float(value)
    return int(number) if number.is_integer() else None


def _expected(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (tuple, list):
        many = "a list" if arguments[1:] in ((), (...,)) else f"a list of {len(arguments)}"
        return f"{many}, each {_expected(arguments[0])}"
    if (record := record_type(hint)) is not None:
        return f"{'an' if record.__name__[0] in 'AEIOU' else 'a'} {record.__name__}"
    kind = dict if isinstance(origin, type) and issubclass(origin, Mapping) else hint
    return _NAMES.get(kind, str(hint))
