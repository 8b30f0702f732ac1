"""The names that Python code reads: the attributes and globals that can shape what a function computes."""

import dis
import functools
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

# Code that calls one of these may read any attribute.
_READERS_OF_ALL = {"vars", "locals", "globals", "eval", "exec", "__dict__", "attrgetter", "getmembers"}


@dataclass(frozen=True)
class Names:
    """Names that one code object reads, with the code nested in it.

    Args:
        attributes: names of attributes of any object.
        globals: names of globals.
        every: the code may read attributes whose names it computes.
    """

    attributes: frozenset[str]
    globals: frozenset[str]
    every: bool


@functools.lru_cache(maxsize=4096)
def names_of(code: types.CodeType) -> Names:
    """Return the names that a code object reads. Names that it only writes are not among them."""
    attributes: set[str] = set()
    global_names: set[str] = set()
    for each in _nested(code):
        for instruction in dis.get_instructions(each):
            kind, name = instruction.opname, instruction.argval
            if not kind.startswith("LOAD") or not isinstance(name, str):
                continue
            if "ATTR" in kind or "METHOD" in kind:
                attributes.add(name)
            elif kind in ("LOAD_GLOBAL", "LOAD_NAME"):
                global_names.add(name)
    every = bool(_READERS_OF_ALL & (attributes | global_names))
    if "getattr" in global_names:
        constants = [c for each in _nested(code) for c in each.co_consts if isinstance(c, str) and c.isidentifier()]
        attributes.update(constants)
        # A name that is put together, as in f"scale_{i}", can be any.
        every = every or not constants or any(_builds_strings(each) for each in _nested(code))
    return Names(frozenset(attributes), frozenset(global_names), every)


def without_compilation(function: Any) -> Any:
    """Return the Python function behind a `tf.function`, with the control flow that AutoGraph makes of it."""
    try:
        return tf.autograph.to_graph(function.python_function)
    except Exception:  # without its source code, say: then TensorFlow did not convert it either
        return function.python_function


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _builds_strings(code: types.CodeType) -> bool:
    return any(i.opname in ("BUILD_STRING", "FORMAT_VALUE", "FORMAT_SIMPLE") for i in dis.get_instructions(code))
