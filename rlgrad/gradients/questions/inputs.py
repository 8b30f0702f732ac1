"""A model's input as tensors: converted to the dtypes that the model takes, its shape checked before the model runs."""

import weakref
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.gradients.questions.heads import shape_text


def numbers(value: Any) -> Any:
    """`value` as a tensor. Python's own numbers become float64: TensorFlow would cut 0.3 to float32 before any cast."""
    if isinstance(value, tf.Tensor):
        return value
    plain = isinstance(value, float) or (
        isinstance(value, list | tuple) and not any(map(tf.is_tensor, tf.nest.flatten(value)))
    )
    return tf.convert_to_tensor(np.asarray(value) if plain else value)


@dataclass(frozen=True)
class Inputs:
    """An input tree, flattened.

    Args:
        leaves: tensors, each with a batch axis first.
        structure: the tree with a `None` in place of each leaf.
        signature: one `tf.TensorSpec` per leaf, its first axis open; further axes are open where the model's are.
        integer_leaves: names of leaves that came as integers, which have no gradient.
    """

    leaves: tuple[Any, ...]
    structure: Any
    signature: tuple[Any, ...]
    integer_leaves: tuple[str, ...]

    @property
    def batch_size(self) -> int | None:
        """Number of rows of the first leaf, where it is known."""
        return None if not self.leaves or self.leaves[0].shape.rank is None else self.leaves[0].shape[0]


_SEEN: "weakref.WeakKeyDictionary[Any, dict[Any, Inputs]]" = weakref.WeakKeyDictionary()
_MAX_SEEN = 64


def pack(structure: Any, leaves: Any) -> Any:
    """The tree again."""
    return tf.nest.pack_sequence_as(structure, list(leaves))


def prepare(model: Any, x: Any) -> Inputs:
    """Checks and converts a model's input.

    Args:
        model: a built Keras model.
        x: an array (N, …), or a dict or list of such arrays for a model with several inputs.

    Raises:
        TypeError: a leaf is no array of numbers.
        ValueError: another structure, rank or width than the model's; a missing batch axis; leaves of unequal length.
    """
    expected = keras_internals.expected_inputs(model)
    single = isinstance(x, np.ndarray | tf.Tensor) and not isinstance(expected, dict | list | tuple)
    if not single or not x.shape:
        return _prepare(model, x, expected)
    # What was found right once for an array of this shape and dtype is right again: calls are often repeated.
    seen = _SEEN.setdefault(model, {})
    key = (id(expected), type(x), x.dtype, tuple(x.shape))
    found = seen.get(key)
    if found is None:
        found = _prepare(model, x, expected)
        if len(seen) >= _MAX_SEEN:
            seen.clear()
        seen[key] = replace(found, leaves=())
        return found
    return replace(found, leaves=(converted(x, found.signature[0].dtype),))


def converted(leaf: Any, dtype: Any) -> Any:
    """An array as a tensor of that dtype."""
    if isinstance(leaf, np.ndarray):
        return tf.convert_to_tensor(leaf.astype(dtype.as_numpy_dtype, copy=False))
    return leaf if leaf.dtype is dtype else tf.cast(leaf, dtype)


def _prepare(model: Any, x: Any, expected: Any) -> Inputs:
    if isinstance(x, list | tuple) and all(_is_number(leaf) for leaf in tf.nest.flatten(x)):
        x = np.asarray(x)
    if expected is not None:
        x = _in_the_structure_of(expected, x, model)
    flat = tf.nest.flatten(x)
    references = [None] * len(flat) if expected is None else tf.nest.flatten(expected)
    names = leaf_names(x)
    leaves = tuple(
        _convert(leaf, reference, name, model) for leaf, reference, name in zip(flat, references, names, strict=True)
    )
    integers = tuple(name for name, leaf in zip(names, flat, strict=True) if not _is_floating(leaf))
    sizes = {leaf.shape[0] for leaf in leaves if leaf.shape.rank is not None and leaf.shape[0] is not None}
    if len(sizes) > 1:
        rows = ", ".join(f"{name}: {leaf.shape[0]}" for name, leaf in zip(names, leaves, strict=True))
        raise ValueError(f"All inputs need the same number of rows (axis 0); got {rows}.")
    signature = tuple(_spec(leaf, reference) for leaf, reference in zip(leaves, references, strict=True))
    return Inputs(leaves, tf.nest.map_structure(lambda _: None, x), signature, integers)


def _in_the_structure_of(expected: Any, x: Any, model: Any) -> Any:
    """`x` arranged as the model's own inputs are; a dict by input names is accepted in place of a list."""
    if isinstance(x, dict) and isinstance(expected, list | tuple):
        names = [reference.name for reference in expected]
        if set(names) <= set(x):
            return type(expected)(x[name] for name in names)
    if isinstance(expected, dict) and isinstance(x, dict) and set(expected) <= set(x):
        return {name: x[name] for name in expected}
    if isinstance(expected, list | tuple) and isinstance(x, list | tuple) and len(expected) == len(x):
        return type(expected)(x)
    if not isinstance(expected, dict | list | tuple) and not isinstance(x, dict | list | tuple):
        return x
    if not isinstance(expected, dict | list | tuple) and isinstance(x, list | tuple) and len(x) == 1:
        return x[0]
    raise ValueError(f"Model {model.name!r} takes {_describe(expected)}; got {_describe(x)}.")


def _convert(leaf: Any, reference: Any, name: str, model: Any) -> Any:
    if isinstance(leaf, keras.KerasTensor):
        raise TypeError(f"Input {name} is symbolic (a KerasTensor). Gradients need numbers: pass an array.")
    dtype = None if reference is None else tf.as_dtype(reference.dtype)
    if not tf.is_tensor(leaf):
        array = np.asarray(leaf)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"Input {name} is an array of {array.dtype}, not of numbers.")
        if dtype is None and array.dtype == np.float64:
            dtype = tf.as_dtype(keras.config.floatx())
        leaf = tf.convert_to_tensor(array if dtype is None else array.astype(dtype.as_numpy_dtype))
    elif dtype is not None and leaf.dtype != dtype:
        leaf = tf.cast(leaf, dtype)
    _check_shape(leaf, reference, name, model)
    return leaf


def _check_shape(leaf: Any, reference: Any, name: str, model: Any) -> None:
    if leaf.shape.rank is None:
        return
    if reference is None:
        if leaf.shape.rank == 0:
            raise ValueError(f"Input {name} is a single number; a batch axis is missing: shape (N, …).")
        return
    wanted = tf.TensorShape([None, *reference.shape[1:]])
    if leaf.shape.is_compatible_with(wanted):
        return
    text = "(" + ", ".join(["N", *("?" if axis is None else str(axis) for axis in wanted[1:])])
    text += ",)" if wanted.rank == 1 else ")"
    if wanted[1:].is_compatible_with(leaf.shape):
        advice = "The batch axis is missing: pass x[None] for one sample."
    elif leaf.shape.rank > wanted.rank and wanted[1:].is_compatible_with(
        leaf.shape[leaf.shape.rank - wanted.rank + 1 :]
    ):
        advice = "There are several leading axes: flatten them into one."
    else:
        advice = "Its axes after the first must be those of the model's Input."
    raise ValueError(f"Model {model.name!r} takes input {name} of shape {text}, got {shape_text(leaf.shape)}. {advice}")


def _spec(leaf: Any, reference: Any) -> Any:
    if leaf.shape.rank is None:
        return tf.TensorSpec(None, leaf.dtype)
    axes = leaf.shape[1:] if reference is None else reference.shape[1:]
    return tf.TensorSpec([None, *axes], leaf.dtype)


def leaf_names(x: Any) -> list[str]:
    """How to write each leaf of a tree: `x`, or `x['a']`, in the order of `tf.nest.flatten`."""
    if not isinstance(x, dict | list | tuple):
        return ["x"]
    return ["x" + "".join(f"[{key!r}]" for key in path) for path in _paths(x)]


def _paths(x: Any) -> list[tuple[Any, ...]]:
    """Paths of a tree's leaves in the order of `tf.nest.flatten`, which sorts the keys of a dict."""
    if isinstance(x, dict):
        return [(key, *rest) for key in sorted(x) for rest in _paths(x[key])]
    if isinstance(x, list | tuple):
        return [(i, *rest) for i, inner in enumerate(x) for rest in _paths(inner)]
    return [()]


def _describe(tree: Any) -> str:
    if isinstance(tree, dict):
        return f"a dict with the keys {sorted(tree)}"
    if isinstance(tree, list | tuple):
        return f"a list of {len(tree)} arrays"
    return "one array"


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float | np.number)


def _is_floating(leaf: Any) -> bool:
    if tf.is_tensor(leaf):
        return bool(leaf.dtype.is_floating)
    return bool(np.issubdtype(np.asarray(leaf).dtype, np.floating))
