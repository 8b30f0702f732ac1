"""Importing TensorFlow and Keras without garbage collection."""

import contextlib
import gc
from collections.abc import Iterator


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
