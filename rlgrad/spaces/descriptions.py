"""Gymnasium's spaces as plain data, as JSON can hold it, and back."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import Space, spaces

_MOST = 10**7  # numbers in one space, more than any observation has; a file may say more


def describe(space: Space[Any]) -> dict[str, Any] | None:
    """Return a space as plain data; `None` for one that is, or has inside, a space of another kind than Gymnasium's own."""
    kind = type(space).__name__
    if type(space) is not getattr(spaces, kind, None) or kind not in _FIELDS:
        return None
    found = {"type": kind} | _FIELDS[kind](space)
    inner = found.get("parts", [])
    parts = inner.values() if isinstance(inner, dict) else inner
    plain = not isinstance(inner, dict) or all(isinstance(name, str) for name in inner)
    return found if plain and all(part is not None for part in parts) else None


def _of_box(space: Any) -> dict[str, Any]:
    shape, dtype = list(space.shape), str(space.dtype)
    return {"shape": shape, "dtype": dtype, "low": _bound(space.low), "high": _bound(space.high)}


_FIELDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "Box": _of_box,
    "Discrete": lambda space: {"n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)},
    "MultiDiscrete": lambda space: {
        "nvec": space.nvec.tolist(),
        "start": space.start.tolist(),
        "dtype": str(space.dtype),
    },
    "MultiBinary": lambda space: {"n": list(space.shape)},
    "Dict": lambda space: {"parts": {name: describe(part) for name, part in space.spaces.items()}},
    "Tuple": lambda space: {"parts": [describe(part) for part in space.spaces]},
}


def described(content: Any) -> Space[Any]:
    """Return the space that `describe` gave this data of.

    Raises:
        ValueError: it is no such data, or its space is larger than any.
    """
    try:
        return _space(content)
    except (KeyError, TypeError, ValueError, AssertionError, OverflowError, RecursionError) as error:
        raise ValueError(f"This describes no space: {type(error).__name__}: {error}") from error


def _space(content: Mapping[str, Any]) -> Space[Any]:
    kind = content["type"]
    if kind == "Box":
        shape, dtype = tuple(content["shape"]), np.dtype(content["dtype"])
        if math.prod(shape) > _MOST:
            raise ValueError(f"{math.prod(shape):,} numbers")
        low, high = (np.broadcast_to(np.array(content[end], np.float64), shape) for end in ("low", "high"))
        return spaces.Box(low.astype(dtype), high.astype(dtype), shape, dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(content["n"], start=content["start"], dtype=np.dtype(content["dtype"]).type)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(
            np.array(content["nvec"]), dtype=np.dtype(content["dtype"]).type, start=np.array(content["start"])
        )
    if kind == "MultiBinary":
        if math.prod(content["n"]) > _MOST:
            raise ValueError(f"{math.prod(content['n']):,} numbers")
        return spaces.MultiBinary(content["n"] if len(content["n"]) > 1 else content["n"][0])
    if kind == "Dict":
        return spaces.Dict({str(name): _space(part) for name, part in content["parts"].items()})
    if kind == "Tuple":
        return spaces.Tuple([_space(part) for part in content["parts"]])
    raise ValueError(f"there is no kind {kind!r}")


def _bound(array: Any) -> Any:
    """Return the bounds as text or numbers: one if all are the same. JSON has no infinities, which are texts."""
    same = array.size > 0 and bool((array == array.flat[0]).all())
    return _written(array.flat[0].item() if same else array.tolist())


def _written(value: Any) -> Any:
    if isinstance(value, list):
        return [_written(each) for each in value]
    return value if math.isfinite(value) else str(value)
