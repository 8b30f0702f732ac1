"""A model's input as tensors of the dtypes that the model takes, with shapes that are checked before the model runs."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad.gradients.questions.heads import shape_text


def as_tensor(value: Any) -> Any:
    """Return `value` as a tensor. Python's numbers become float64: TensorFlow would round 0.3 to float32 before a cast."""
    if isinstance(value, tf.Tensor):
        return value
    plain = isinstance(value, float) or (
        isinstance(value, list | tuple) and not any(map(tf.is_tensor, tf.nest.flatten(value)))
    )
    return tf.convert_to_tensor(np.asarray(value) if plain else value)


def as_weight(sample_weight: Any) -> Any:
    """Return sample weights as a floating-point tensor."""
    weight = as_tensor(sample_weight)
    return weight if weight.dtype.is_floating else tf.cast(weight, tf.float64)


@dataclass(frozen=True)
class Inputs:
    """An input tree, flattened.

    Args:
        leaves: tensors, each with a batch axis first.
        structure: the tree, with a `None` in place of each leaf.
        signature: a `tf.TensorSpec` for each leaf, its first axis open; further axes are open where the model's are.
        integer_leaves: names of the leaves that came as integers, which have no gradient.
        batch_size: the number of rows of the first leaf, if it is known.
    """

    leaves: tuple[Any, ...]
    structure: Any
    signature: tuple[Any, ...]
    integer_leaves: tuple[str, ...]
    batch_size: int | None


def prepare(model: Any, x: Any, expected: Any) -> Inputs:
    """Check and convert a model's input.

    Args:
        model: a built Keras model.
        x: an array (N, …), or a dict or list of such arrays for a model with several inputs.
        expected: see `keras_internals.expected_inputs`.

    Raises:
        TypeError: a leaf is not an array of numbers.
        ValueError: another structure, rank or width than the model's; a missing batch axis; leaves of unequal length.
    """
    if isinstance(x, list | tuple) and all(_is_number(leaf) for leaf in tf.nest.flatten(x)):
        x = np.asarray(x)
    if expected is not None:
        x = _arrange(x, expected, model)
    flat = tf.nest.flatten(x)
    references = [None] * len(flat) if expected is None else tf.nest.flatten(expected)
    names = leaf_names(x)
    leaves = tuple(
        _checked_tensor(leaf, reference, name, model)
        for leaf, reference, name in zip(flat, references, names, strict=True)
    )
    integers = tuple(name for name, leaf in zip(names, flat, strict=True) if not _is_floating(leaf))
    sizes = {leaf.shape[0] for leaf in leaves if leaf.shape.rank is not None and leaf.shape[0] is not None}
    if len(sizes) > 1:
        rows = ", ".join(f"{name}: {leaf.shape[0]}" for name, leaf in zip(names, leaves, strict=True))
        raise ValueError(f"All inputs need the same number of rows (axis 0); got {rows}.")
    signature = tuple(_spec(leaf, reference) for leaf, reference in zip(leaves, references, strict=True))
    batch_size = None if not leaves or leaves[0].shape.rank is None else leaves[0].shape[0]
    return Inputs(leaves, tf.nest.map_structure(lambda _: None, x), signature, integers, batch_size)


def convert(leaf: Any, dtype: Any) -> Any:
    """Return an array as a tensor of this dtype."""
    if isinstance(leaf, np.ndarray):
        return tf.convert_to_tensor(leaf.astype(dtype.as_numpy_dtype, copy=False))
    return leaf if leaf.dtype is dtype else tf.cast(leaf, dtype)


def _arrange(x: Any, expected: Any, model: Any) -> Any:
    """Return `x` in the structure of the model's own inputs; a dict by input names is accepted in place of a list."""
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


def _checked_tensor(leaf: Any, reference: Any, name: str, model: Any) -> Any:
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
    """Return how a caller writes each leaf of a tree, `x` or `x['a']`, in the order of `tf.nest.flatten`."""
    if not isinstance(x, dict | list | tuple):
        return ["x"]
    return ["x" + "".join(f"[{key!r}]" for key in path) for path in _paths(x)]


def _paths(x: Any) -> list[tuple[Any, ...]]:
    """Return the paths of a tree's leaves in the order of `tf.nest.flatten`, which sorts the keys of a dict."""
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
