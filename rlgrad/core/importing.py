"""Importing TensorFlow and Keras: without garbage collection, and not before something of them is needed."""

import contextlib
import gc
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Switch garbage collection off meanwhile.

    An import makes several hundred thousand objects that all stay. The collector would go through them again and again, which
    takes a fifth of the import's time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class _Lazy(ModuleType):
    """A module that is imported when something of it is first asked for. Being a module, it ends what walks over objects."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)  # so that this function is not called for it again
        return value


def lazy(name: str) -> Any:
    """Return a module that is imported when something of it is first asked for."""
    return _Lazy(name)
