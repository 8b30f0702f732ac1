"""Settings that came from a file, looked at before anything is made of them: does each value fit the field it is for?"""

import dataclasses
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_NAMES: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "none",
    dict: "names with values",
    list: "a list",
    tuple: "a list",
}


def as_declared(
    given: Mapping[str, Any], cls: type[Any], names: Iterable[str] = (), prefix: str = ""
) -> dict[str, Any]:
    """The settings whose values fit the annotations of a dataclass's fields; numbers that came as text become numbers.

    Args:
        given: field by name. What is no field, or not annotated with types that a file can hold, stays as it is.
        cls: the dataclass.
        names: the fields to look at; none: all of them.
        prefix: of the names in messages, such as `agent.`.

    Raises:
        ValueError: a value that does not fit; names the field, and says what is expected.
    """
    hints, names = _hints(cls), set(names)
    return {
        key: value
        if key not in hints or (names and key not in names)
        else _fitting(value, hints[key], f"{prefix}{key}")
        for key, value in given.items()
    }


def mapping(value: Any, name: str) -> dict[str, Any]:
    """A setting that has settings of its own.

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


def _hints(cls: type[Any]) -> dict[str, Any]:
    try:
        hints = get_type_hints(cls)
    except (NameError, TypeError):  # names that only a type checker imports
        return {}
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _fitting(value: Any, hint: Any, name: str) -> Any:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        fits, converted = _fits(value, option)
        if fits:
            return converted
    expected = " or ".join(dict.fromkeys(map(_expected, options)))
    raise ValueError(f"{name} is {expected}, got {value!r}.")


def _fits(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value fits a type, and what it then is."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (int, float):
        converted = _number(value, hint)
        return converted is not None, converted
    if origin in (tuple, list) and arguments[1:] in ((), (...,)):
        each = [_fits(x, arguments[0]) for x in value] if isinstance(value, list | tuple) else [(False, None)]
        return all(fits for fits, _ in each), [converted for _, converted in each]
    if hint in (bool, str, type(None)):
        fits = isinstance(value, hint)
    elif origin is Literal:
        fits = isinstance(value, str | int) and value in arguments
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        fits = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    else:
        fits = True  # of a type that no file holds: whoever takes it may judge
    return fits, value


def _number(value: Any, kind: type[int] | type[float]) -> int | float | None:
    """The number that a value is, or that a text such as `1e-3` says, which YAML takes for a text; else none."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | str)
        or (kind is int and isinstance(value, float))
    ):
        return None
    try:
        return kind(value)
    except (ValueError, OverflowError):
        return None


def _expected(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (tuple, list):
        return f"a list, each {_expected(arguments[0])}"
    kind = dict if isinstance(origin, type) and issubclass(origin, Mapping) else hint
    return _NAMES.get(kind, str(hint))


def read(path: Any) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        path: a file, or what `importlib.resources` gives for one.

    Raises:
        ValueError: it holds something else; names the file.
    """
    import yaml  # here: `rlgrad.gradients` stands on this package, and needs TensorFlow and NumPy alone

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as YAML: {reason}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path} holds no settings: expected lines of `name: value`.")
    return content
