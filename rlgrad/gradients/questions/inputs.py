"""A model's input as tensors of the dtypes that the model takes, with shapes that are checked before the model runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, repeat
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.gradients.questions.arguments import spread
from rlgrad.gradients.questions.arrays import dense_tensor, is_scalar, rows_of
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
    """Return sample weights as a floating-point tensor.

    Raises:
        TypeError: they are not numbers.
    """
    try:
        weight = as_tensor(sample_weight)
    except (TypeError, ValueError):
        kind = type(sample_weight).__name__
        raise TypeError(f"sample_weight holds one number for each value of the output; got a {kind}.") from None
    if weight.dtype.is_floating:
        return weight
    if not (weight.dtype.is_integer or weight.dtype.is_bool):
        raise TypeError(f"sample_weight holds numbers, got an array of {weight.dtype.name}.")
    return tf.cast(weight, tf.float64)


@dataclass(frozen=True)
class Inputs:
    """An input tree, flattened.

    Args:
        leaves: tensors, each with a batch axis first.
        structure: the tree that the model takes, with a `None` in place of each leaf.
        given: the tree that the caller gave, with the position of each leaf among `leaves` in its place.
        names: how the caller writes each leaf, `x` or `x['a']`.
        signature: a `tf.TensorSpec` for each leaf, its first axis open; further axes are open where the model's are.
        spread: the tree is a tuple or dict of several arguments of the model's `call`.
        batch_size: the number of rows of the first leaf, if it is known.
    """

    leaves: tuple[Any, ...]
    structure: Any
    given: Any
    names: tuple[str, ...]
    signature: tuple[Any, ...]
    spread: bool
    batch_size: int | None


def prepare(model: Any, x: Any, expected: Any) -> Inputs:
    """Check and convert a model's input.

    Args:
        model: a built Keras model.
        x: an array (N, …), or a dict or list of such arrays for a model with several inputs (see `arguments`).
        expected: see `keras_internals.expected_inputs`.

    Raises:
        TypeError: a leaf is not an array.
        ValueError: another structure, rank or width than the model's; a missing batch axis; leaves of unequal length.
    """
    several = None if expected is not None else spread(model, x)
    tree = _arrange(x, expected, model) if several is None else _parts(several)
    flat = tf.nest.flatten(tree)
    references = [None] * len(flat) if expected is None else tf.nest.flatten(expected)
    given = _given(x, tree, expected)
    by_name = isinstance(given, dict) and isinstance(tree, list | tuple)
    names = [f"x[{name!r}]" for name in given] if by_name else leaf_names(given)
    leaves = tuple(
        _checked_tensor(leaf, reference, name, model)
        for leaf, reference, name in zip(flat, references, names, strict=True)
    )
    sizes = {leaf.shape[0] for leaf in leaves if leaf.shape.rank is not None and leaf.shape[0] is not None}
    if len(sizes) > 1:
        rows = ", ".join(f"{name}: {leaf.shape[0]}" for name, leaf in zip(names, leaves, strict=True))
        raise ValueError(f"All inputs need the same number of rows (axis 0); got {rows}.")
    signature = tuple(_spec(leaf, reference) for leaf, reference in zip(leaves, references, strict=True))
    batch_size = None if not leaves or leaves[0].shape.rank is None else leaves[0].shape[0]
    structure = _labelled(tree, repeat(None))
    return Inputs(leaves, structure, given, tuple(names), signature, several is not None, batch_size)


def convert(leaf: Any, dtype: Any) -> Any:
    """Return an array as a tensor of this dtype."""
    if isinstance(leaf, np.ndarray):
        return tf.convert_to_tensor(leaf.astype(dtype.as_numpy_dtype, copy=False))
    return leaf if leaf.dtype is dtype else tf.cast(leaf, dtype)


def _arrange(x: Any, expected: Any, model: Any) -> Any:
    """Return `x` in the structure of the model's own inputs; a dict by input names is accepted in place of a list."""
    tree = x
    if isinstance(expected, list | tuple) and isinstance(x, Mapping):
        names = [reference.name for reference in tf.nest.flatten(expected)]
        if len(names) == len(expected) and set(names) <= set(x):
            tree = [x[name] for name in names]
    if expected is None:
        return rows_of(x) if _is_list_of_scalars(x) else _parts(x)
    if _is_leaf(expected) and isinstance(x, list | tuple) and len(x) == 1 and not _is_list_of_scalars(x):
        tree = x[0]
    try:
        return _matched(tree, expected)
    except _MismatchError:
        raise ValueError(f"Model {model.name!r} takes {_describe(expected)}; got {_describe(x)}.") from None


class _MismatchError(Exception):
    """An input has another structure than the model's."""


def _matched(x: Any, expected: Any) -> Any:
    """Return `x` with one array for each of the model's inputs; lists of plain numbers become arrays."""
    if isinstance(expected, dict):
        if not isinstance(x, Mapping) or not set(expected) <= set(x):
            raise _MismatchError
        return {name: _matched(x[name], inner) for name, inner in expected.items()}
    if isinstance(expected, list | tuple):
        if not isinstance(x, list | tuple) or len(x) != len(expected):
            raise _MismatchError
        return type(expected)(_matched(part, inner) for part, inner in zip(x, expected, strict=True))
    if _is_list_of_scalars(x):
        return rows_of(x)
    if not _is_leaf(x):
        raise _MismatchError
    return x


def _parts(x: Any) -> Any:
    """Return the tree `x` of a model that does not say what it takes, in which lists of plain numbers become arrays."""
    if isinstance(x, Mapping):
        return {name: _parts(part) for name, part in x.items()}
    if isinstance(x, list | tuple):
        parts = [rows_of(part) if _is_list_of_scalars(part) else _parts(part) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return x


def _given(x: Any, tree: Any, expected: Any) -> Any:
    """Return the caller's tree with the position of each leaf in its place."""
    if isinstance(tree, list | tuple) and isinstance(x, Mapping):
        return {reference.name: position for position, reference in enumerate(tf.nest.flatten(expected))}
    if _is_leaf(tree):
        return [0] if isinstance(x, list | tuple) and not _is_list_of_scalars(x) else 0
    return _labelled(tree, count())


def _labelled(tree: Any, labels: Iterator[Any]) -> Any:
    """Return a tree with labels in place of its leaves, in the order of `tf.nest.flatten` (whose own way takes longer)."""
    if isinstance(tree, dict):
        labelled = {key: _labelled(tree[key], labels) for key in sorted(tree)}
        return {key: labelled[key] for key in tree}
    if isinstance(tree, list | tuple):
        parts = [_labelled(part, labels) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return next(labels)


def _checked_tensor(leaf: Any, reference: Any, name: str, model: Any) -> Any:
    dtype = None if reference is None else tf.as_dtype(reference.dtype)
    tensor = dense_tensor(leaf, f"Input {name}", dtype, declared=reference is not None)
    _check_shape(tensor, reference, name, model)
    return tensor


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
    if _is_leaf(x):
        return ["x"]
    return ["x" + "".join(f"[{key!r}]" for key in path) for path in _paths(x)]


def named_leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree called `name`, each with how a caller writes it."""
    if isinstance(tree, Mapping):
        for key, part in tree.items():
            yield from named_leaves(part, f"{name}[{key!r}]")
    elif isinstance(tree, list | tuple):
        for index, part in enumerate(tree):
            yield from named_leaves(part, f"{name}[{index}]")
    else:
        yield name, tree


def _paths(x: Any) -> list[tuple[Any, ...]]:
    """Return the paths of a tree's leaves in the order of `tf.nest.flatten`, which sorts the keys of a dict."""
    if isinstance(x, dict):
        return [(key, *rest) for key in sorted(x) for rest in _paths(x[key])]
    if isinstance(x, list | tuple):
        return [(i, *rest) for i, inner in enumerate(x) for rest in _paths(inner)]
    return [()]


def _describe(tree: Any) -> str:
    if isinstance(tree, Mapping):
        return f"a dict with the keys {sorted(tree)}"
    if isinstance(tree, list | tuple):
        return f"a list of {len(tree)} arrays"
    return "one array"


def _is_leaf(x: Any) -> bool:
    return not isinstance(x, Mapping | list | tuple)


def _is_list_of_scalars(x: Any) -> bool:
    return isinstance(x, list | tuple) and all(map(is_scalar, tf.nest.flatten(x)))
