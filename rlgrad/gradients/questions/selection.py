"""From names, positions and objects that a caller writes to the Keras variables and layers that they mean."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import keras
import tensorflow as tf

from rlgrad.core import keras_internals


@dataclass(frozen=True)
class Selection:
    """Chosen variables, in the order of `model.trainable_variables`, with the key that each has in results.

    Args:
        variables: Keras variables (or `tf.Variable`s).
        keys: each variable's `path`, made unique.
        explicit: the caller named the variables, so each must be connected to the output.
    """

    variables: tuple[Any, ...]
    keys: tuple[str, ...]
    explicit: bool


NO_WEIGHTS = Selection((), (), explicit=False)


def select_weights(model: Any, weights: Any) -> Selection:
    """Return the variables that `weights=` means.

    Args:
        model: a built Keras model.
        weights: `None` (all trainable variables), a layer's name, the end of a variable's path, a position in
            `model.layers`, a layer, a variable, or a list of these.

    Raises:
        TypeError: it is none of these.
        ValueError: a name that nothing has; a layer without trainable weights; an integer variable; no weights at all.
    """
    if weights is None:
        chosen = list(model.trainable_variables)
        if not chosen:
            raise ValueError(
                f"Model {model.name!r} has no trainable weights. Set trainable=True on it, or name variables: "
                "weights=[…]."
            )
        keyed = _keyed(chosen)
        return Selection(tuple(v for v, _ in keyed), tuple(key for _, key in keyed), explicit=False)
    chosen = []
    for item in weights if isinstance(weights, list | tuple) else [weights]:
        chosen += _resolve(model, item)
    if not chosen:
        raise ValueError("weights=[] selects nothing. Leave weights= out to select all trainable weights.")
    for variable in chosen:
        if not tf.as_dtype(variable.dtype).is_floating:
            raise ValueError(
                f"Variable {_path(variable)!r} has dtype {tf.as_dtype(variable.dtype).name}; only floating-point "
                "variables have a gradient (seeds, counters and quantized kernels have none)."
            )
    return _selection(model, chosen)


def select_layer(model: Any, layer: Any) -> Any:
    """Return the layer that `layer=` means: a name at any depth, a position in `model.layers`, or the layer itself.

    Raises:
        TypeError: it is none of these.
        ValueError: the model has no such layer, or several of that name.
    """
    if isinstance(layer, keras.layers.Layer):
        if not any(layer is known for known in keras_internals.all_layers(model)):
            raise ValueError(f"Layer {layer.name!r} is not part of model {model.name!r}.")
        return layer
    if isinstance(layer, str):
        found = _layers_named(model, layer)
        if found is None:
            raise ValueError(
                _unknown(model, "layer", layer, [known.name for known in keras_internals.all_layers(model)])
            )
        return found
    return _layer_at(model, layer, "layer")


def keys_of(model: Any) -> list[tuple[Any, str]]:
    """Return all variables of a model, trainable ones first, each with its key.

    The key is the variable's path; a second variable of the same path has `#2` after it.
    """
    return _keyed([*model.trainable_variables, *model.variables])


def _keyed(variables: Iterable[Any]) -> list[tuple[Any, str]]:
    keyed: list[tuple[Any, str]] = []
    count: dict[str, int] = {}
    seen: set[int] = set()
    for variable in variables:
        if id(variable) in seen:
            continue
        seen.add(id(variable))
        path = _path(variable)
        count[path] = count.get(path, 0) + 1
        keyed.append((variable, path if count[path] == 1 else f"{path}#{count[path]}"))
    return keyed


def _selection(model: Any, chosen: Sequence[Any]) -> Selection:
    """Return variables that the caller named, in the order of `keys_of`."""
    wanted = {id(variable) for variable in chosen}
    keyed = [(variable, key) for variable, key in keys_of(model) if id(variable) in wanted]
    known = {id(variable) for variable, _ in keyed}
    taken = {key for _, key in keyed}
    for variable in chosen:  # the model does not track some variables, such as those of a function that it calls
        if id(variable) not in known:
            known.add(id(variable))
            key, number = _path(variable), 2
            while key in taken:
                key, number = f"{_path(variable)}#{number}", number + 1
            taken.add(key)
            keyed.append((variable, key))
    return Selection(tuple(v for v, _ in keyed), tuple(k for _, k in keyed), explicit=True)


def _resolve(model: Any, item: Any) -> list[Any]:
    if isinstance(item, keras.Variable | tf.Variable):
        return [item]
    if isinstance(item, keras.layers.Layer):
        return _weights_of(item)
    if isinstance(item, str):
        layer = _layers_named(model, item)
        if layer is not None:
            return _weights_of(layer)
        matches = [variable for variable, key in keys_of(model) if key == item or key.endswith("/" + item)]
        floating = [variable for variable in matches if tf.as_dtype(variable.dtype).is_floating]
        if matches:
            return floating or matches
        names = [known.name for known in keras_internals.all_layers(model)] + [key for _, key in keys_of(model)]
        raise ValueError(_unknown(model, "layer or weight", item, names))
    return _weights_of(_layer_at(model, item, "weights"))


def _weights_of(layer: Any) -> list[Any]:
    variables = list(layer.trainable_variables)
    if not variables:
        frozen = [_path(variable) for variable in layer.variables if tf.as_dtype(variable.dtype).is_floating]
        hint = f" Its variables {frozen} are not trainable; name them one by one if you mean them." if frozen else ""
        raise ValueError(f"Layer {layer.name!r} has no trainable weights.{hint}")
    return variables


def _layers_named(model: Any, name: str) -> Any:
    found = [layer for layer in keras_internals.all_layers(model) if layer.name == name]
    if len(found) > 1:
        raise ValueError(
            f"{len(found)} layers of model {model.name!r} are called {name!r}. Pass the layer itself instead."
        )
    return found[0] if found else None


def _layer_at(model: Any, position: Any, argument: str) -> Any:
    if isinstance(position, bool) or not hasattr(position, "__index__"):
        raise TypeError(
            f"{argument}= takes a layer's name, its position in model.layers, or the layer"
            f"{', a variable, or a list of these' if argument == 'weights' else ''}; got {type(position).__name__}."
        )
    layers = model.layers
    index = position.__index__()
    if not -len(layers) <= index < len(layers):
        raise ValueError(
            f"{argument}={index}, but model {model.name!r} has {len(layers)} layers (0 … {len(layers) - 1})."
        )
    return layers[index]


def _unknown(model: Any, kind: str, name: str, names: Iterable[str]) -> str:
    known = list(dict.fromkeys(names))
    close = get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else f" There are: {', '.join(map(repr, known))}."
    return f"Model {model.name!r} has no {kind} {name!r}.{hint}"


def _path(variable: Any) -> str:
    return str(variable.path if isinstance(variable, keras.Variable) else variable.name)
