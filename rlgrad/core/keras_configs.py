"""Configs of Keras objects that may come from another person: what they may name, and how much memory their weights may take.

Keras's own safe mode refuses code that is known to be in a config. This goes the other way: Keras's layers, initializers,
optimizers and the like may be named, and classes that this process has registered; nothing else is looked up at all.
"""

import contextlib
import math
import operator
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import keras

_PUBLIC = (
    "keras.activations",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.losses",
    "keras.metrics",
    "keras.optimizers",
    "keras.optimizers.schedules",
    "keras.random",
    "keras.regularizers",
)
_MODELS = {"Sequential", "Functional", "Model", "DTypePolicy", "Variable"}
# Layers that hold code, or read files.
REFUSED = frozenset(
    {
        "Lambda",
        "TFSMLayer",
        "TorchModuleWrapper",
        "JaxLayer",
        "FlaxLayer",
        "StringLookup",
        "IntegerLookup",
        "TextVectorization",
    }
)
_PLAIN = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}
_LARGEST = 10_000_000
_IDENTITIES = ("seed", "shared_object_id")  # numbers that are no sizes


def require_plain(config: Any, home: str | None = None) -> None:
    """Raise a ValueError if a config names anything but Keras's own building blocks and registered classes, or a huge size.

    Args:
        config: as Keras serializes an object, read from JSON or YAML.
        home: the module of Keras in which a class without a module is looked up, as people write it. `None`: none is.
    """
    if isinstance(config, Mapping):
        if "class_name" in config:
            _require_known(config, home)
        for name, value in config.items():
            if type(value) is int and abs(value) > _LARGEST and name not in _IDENTITIES:
                raise ValueError(f"{name} is at most {_LARGEST:,} there, got {value}.")
            require_plain(value, home)
    elif isinstance(config, list | tuple):
        for value in config:
            if type(value) is int and abs(value) > _LARGEST:
                raise ValueError(f"A size is at most {_LARGEST:,} there, got {value}.")
            require_plain(value, home)


def _require_known(config: Mapping[str, Any], home: str | None) -> None:
    name, module, registered = (config.get(key) for key in ("class_name", "module", "registered_name"))
    if name in _PLAIN or _is_registered(registered) or _is_registered(name):
        return
    known = (
        (module in _PUBLIC and name not in REFUSED)
        or (module == "builtins" and name == "function")  # one of Keras's own, by its name
        or (module == "keras" and name in _MODELS)
        or (module is None and home is not None and _has(home, name))
        or (isinstance(module, str) and module.startswith(("keras.src.ops.", "keras.src.models.")))
    )
    if not known:
        raise ValueError(f"It names {module}.{name}, which is neither a building block of Keras nor registered here.")


def _has(home: str, name: Any) -> bool:
    """Return True if a public module of Keras has a class of this name, in any case of letters."""
    names = vars(operator.attrgetter(home.removeprefix("keras."))(keras))
    return str(name).lower() in {known.lower() for known, thing in names.items() if isinstance(thing, type)}


def _is_registered(name: Any) -> bool:
    return isinstance(name, str) and keras.saving.get_registered_object(name) is not None


@contextlib.contextmanager
def weights_within(most: int) -> Iterator[None]:
    """Raise a ValueError for the first weight that a layer adds beyond a number of bytes, before its memory is taken.

    Args:
        most: bytes that all weights together may have which this thread makes in the context, at four bytes a number.
    """
    thread, taken = threading.get_ident(), 0
    add_weight = keras.layers.Layer.add_weight

    def counted(layer: Any, shape: Any = None, *arguments: Any, **options: Any) -> Any:
        nonlocal taken
        if threading.get_ident() == thread and shape is not None:
            taken += 4 * math.prod([shape] if isinstance(shape, int) else [size or 1 for size in shape])
            if taken > most:
                raise ValueError(
                    f"The network's weights need more than {most / 2**30:.1f} GiB, a quarter of the memory, at layer "
                    f"{layer.name!r}: make the layers smaller."
                )
        return add_weight(layer, shape, *arguments, **options)

    keras.layers.Layer.add_weight = counted
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight
