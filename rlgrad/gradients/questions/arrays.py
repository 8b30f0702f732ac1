"""One array of a caller's input or target as a dense tensor or NumPy array, whatever kind of array it came as."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_SEVERAL_BATCHES = (tf.data.Dataset, tf.data.Iterator, keras.utils.PyDataset, Iterator)


def dense_array(leaf: Any, name: str, *, declared: bool = True) -> Any:
    """Return an array as a `tf.Tensor` or NumPy array of numbers, truth values or strings.

    Args:
        leaf: a tensor, a variable, or anything that NumPy makes an array of.
        name: how the caller writes it, for messages.
        declared: the model declares this input, so that its layers take a dense tensor for a sparse one.

    Raises:
        TypeError: it is not an array.
        ValueError: its rows have different lengths.
    """
    if isinstance(leaf, tf.Tensor):
        return leaf
    if isinstance(leaf, keras.Variable | tf.Variable):
        return tf.convert_to_tensor(leaf)
    if isinstance(leaf, tf.SparseTensor):
        if not declared:
            raise TypeError(
                f"{name} is a SparseTensor, and the model has no keras.Input that says how it takes one. Pass "
                "tf.sparse.to_dense(…)."
            )
        return tf.sparse.to_dense(tf.sparse.reorder(leaf))
    _require_array(leaf, name)
    array = rows_of(leaf) if isinstance(leaf, list | tuple) else np.asarray(leaf)
    if array.dtype.kind == "O" and array.size and all(isinstance(item, str | bytes) for item in array.flat):
        return array
    if array.dtype.kind not in "fiubUS" and not _is_small_float(array.dtype):
        raise TypeError(f"{name} is an array of {array.dtype}, not of numbers.")
    return array


def rows_of(numbers: Any) -> Any:
    """Return nested lists of plain numbers as an array.

    Raises:
        ValueError: lists of different lengths.
    """
    try:
        return np.asarray(numbers)
    except ValueError:
        raise ValueError("The input is a list whose rows have different lengths. Pad them to one length.") from None


def is_string(array: Any) -> bool:
    """Return `True` for an array or tensor of strings."""
    return bool(array.dtype == tf.string) if isinstance(array, tf.Tensor) else array.dtype.kind in "USO"


def dense_tensor(leaf: Any, name: str, dtype: Any = None, *, declared: bool = True) -> Any:
    """Return an array as a dense tensor.

    Args:
        leaf: see `dense_array`.
        name: see `dense_array`.
        dtype: the dtype to cast to, as Keras casts. `None`: the array's own, but Keras's default for float64 arrays.
        declared: see `dense_array`.

    Raises:
        TypeError: it is not an array, or strings came for numbers, or numbers for strings.
        ValueError: its rows have different lengths.
    """
    array = dense_array(leaf, name, declared=declared)
    if dtype is not None and is_string(array) != (dtype == tf.string):
        came = "strings" if is_string(array) else f"an array of {tf.as_dtype(array.dtype).name}"
        raise TypeError(f"{name} is {came}, not of {'strings' if dtype == tf.string else 'numbers'}.")
    if isinstance(array, tf.Tensor):
        return array if dtype is None or array.dtype == dtype else tf.cast(array, dtype)
    if dtype is None and array.dtype == np.float64:
        dtype = tf.as_dtype(keras.config.floatx())
    return tf.convert_to_tensor(array if dtype is None else array.astype(dtype.as_numpy_dtype))


def is_scalar(leaf: Any) -> bool:
    """Return `True` for a number or string of Python or NumPy, as they are in lists."""
    return isinstance(leaf, int | float | str | bytes | np.generic)


def _require_array(leaf: Any, name: str) -> None:
    if isinstance(leaf, keras.KerasTensor):
        raise TypeError(f"{name} is symbolic (a KerasTensor). Gradients need numbers: pass an array.")
    if isinstance(leaf, tf.RaggedTensor):
        raise TypeError(
            f"{name} is a RaggedTensor. Gradients are of dense arrays: pad it with .to_tensor(), and mask what was added."
        )
    if isinstance(leaf, _SEVERAL_BATCHES):
        raise TypeError(
            f"{name} is a {type(leaf).__name__}, which holds batches. Pass one of them, without its labels, as an array: "
            "for batch, labels in dataset: gradient(model, batch)."
        )
    if leaf is None or callable(leaf):
        raise TypeError(f"{name} is {'None' if leaf is None else 'a ' + type(leaf).__name__}, not an array.")


def _is_small_float(dtype: Any) -> bool:
    """Return `True` for bfloat16 and the 8-bit floats, which NumPy does not know."""
    try:
        return bool(tf.as_dtype(dtype).is_floating)
    except TypeError:
        return False
