"""Configs of Keras objects that may come from another person: what they may name, and how much memory their weights may take.

Keras's own safe mode refuses code that is known to be in a config. This goes the other way: Keras's layers, initializers,
optimizers and the like may be named, and classes that this process has registered; nothing else is looked up at all.
"""

import contextlib
import inspect
import math
import operator
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

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


def reason_of(error: BaseException) -> str:
    """Return why Keras could not call a layer: its message without the frame around it, the arguments and the colours."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error)).partition("Arguments received by")[0]
    parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    told = [part for part in parts if part and not part.startswith("Exception encountered when calling")]
    return " ".join(told) or type(error).__name__


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
        called = name if module is None else f"{module}.{name}"
        raise ValueError(f"It names {called}, which is neither a building block of Keras nor registered here.")


def _has(home: str, name: Any) -> bool:
    """Return True if a public module of Keras has a class of this name, in any case of letters."""
    names = vars(operator.attrgetter(home.removeprefix("keras."))(keras))
    return str(name).lower() in {known.lower() for known, thing in names.items() if isinstance(thing, type)}


def _is_registered(name: Any) -> bool:
    return isinstance(name, str) and keras.saving.get_registered_object(name) is not None


def rebuilt(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return a new layer of the same config, whose weights are to be set."""
    return type(layer).from_config(_portable(layer.get_config()))


def _portable(config: Any, key: str = "") -> Any:
    """Return a layer's config without initializers of other packages, which a reader would need."""
    if isinstance(config, dict):
        own = key.endswith("initializer") and not str(config.get("module")).startswith("keras.")
        return "zeros" if own else {name: _portable(value, name) for name, value in config.items()}
    return [_portable(value) for value in config] if isinstance(config, list) else config


def _another(model: keras.Model) -> keras.Model:
    """Return a model made like this one."""
    if isinstance(model, keras.Sequential) or type(model).__module__.partition(".")[0] == "keras":
        return keras.models.clone_model(model, clone_function=rebuilt)
    if len(inspect.signature(type(model)).parameters) == 0:  # its config would have arguments that it does not take
        made: keras.Model = type(model)()
        return made
    return keras.models.clone_model(model)


def twin(model: keras.Model) -> keras.Model:
    """Return a model of its own layers with the same weights.

    Raises:
        ValueError: Keras cannot copy it.
    """
    try:
        copied = _another(model)
        if not copied.built:
            copied.build_from_config(model.get_build_config())
        copied.set_weights(model.get_weights())
    except (AttributeError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"Keras cannot copy {type(model).__name__} {model.name!r}, as it copies a functional model, or a class with "
            f"get_config and build. {reason_of(error)}"
        ) from error
    return copied


class Portable(NamedTuple):
    """A model as plain data, for another process.

    Attributes:
        config: of the model.
        classes: that the config names and Keras does not know there, by their names in it.
        weights: of the model.
    """

    config: dict[str, Any]
    classes: dict[str, Any]
    weights: list[Any]

    def model(self) -> keras.Model:
        """Return the model."""
        with keras.saving.custom_object_scope(self.classes):
            model: keras.Model = keras.saving.deserialize_keras_object(self.config, safe_mode=False)
        model.set_weights(self.weights)
        return model


def portable(model: keras.Model) -> Portable:
    """Return a model as plain data.

    Raises:
        ValueError: Keras cannot describe it.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"Keras cannot describe {type(model).__name__} {model.name!r}, as it describes a functional model, or a class with "
            f"get_config, so it cannot be sent to another process. {reason_of(error)}"
        ) from error
    return Portable(config, dict(_own_classes(config)), model.get_weights())


def _own_classes(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the classes that a config names and that are not Keras's, by each of their names."""
    if isinstance(config, list | tuple):
        for part in config:
            yield from _own_classes(part)
    if not isinstance(config, Mapping):
        return
    name, registered, module = (config.get(key) for key in ("class_name", "registered_name", "module"))
    if isinstance(name, str) and not str(module or "keras").startswith("keras"):
        found = keras.saving.get_registered_object(registered) or getattr(sys.modules.get(str(module)), name, None)
        yield from ((known, found) for known in (name, registered) if known is not None and found is not None)
    for part in config.values():
        yield from _own_classes(part)


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
            here = 4 * math.prod([shape] if isinstance(shape, int) else [size or 1 for size in shape])
            taken += here
            if taken > most:
                raise ValueError(
                    f"The network's weights need more than {most / 2**30:.1f} GiB, a quarter of the memory: those of layer "
                    f"{layer.name!r}, shape {shape}, take {here / 2**30:.1f} GiB. Make the layers smaller, or the spaces: each "
                    "choice of a Discrete one takes a row of weights."
                )
        return add_weight(layer, shape, *arguments, **options)

    keras.layers.Layer.add_weight = counted
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight
