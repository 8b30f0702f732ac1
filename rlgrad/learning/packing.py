"""Many small arrays as one argument of a compiled program: passing a tensor costs more than its numbers."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.core.nested import leaves, map_leaves, with_leaves

_WORD = np.dtype(np.int32)


class WordPacking:
    """Pack a tree of arrays, bit by bit, into one vector of 32-bit words. Arrays of other widths, such as bytes, stay apart.

    Args:
        tree: of arrays; all later trees have its structure, shapes and dtypes.
    """

    def __init__(self, tree: Any) -> None:
        self._tree = map_leaves(lambda x: True, tree)  # its structure alone
        self._kinds = [(x.shape, x.dtype) for x in map(np.asarray, leaves(tree))]
        packed = [kind for kind in self._kinds if _packed(kind[1])]
        ends = np.cumsum([0, *(_count(*kind) for kind in packed)]).tolist()
        self._words = np.zeros(ends[-1], _WORD)
        # One view of the words for each array, in its own type, to be written at each call; `None` for those that stay apart.
        views = iter(
            _viewed(self._words[begin:end], *kind) for kind, begin, end in zip(packed, ends, ends[1:], strict=True)
        )
        self._views = [next(views) if _packed(dtype) else None for _, dtype in self._kinds]

    def pack(self, tree: Any) -> list[tf.Tensor]:
        """Return the tensors that `unpack` takes.

        Raises:
            ValueError: a shape or a dtype differs from the first tree's.
        """
        arrays = [x if isinstance(x, np.ndarray) else np.asarray(x) for x in leaves(tree)]
        apart = []
        for x, (shape, dtype), view in zip(arrays, self._kinds, self._views, strict=True):
            if x.shape != shape or x.dtype != dtype:
                raise ValueError(
                    f"The program was compiled for arrays {dtype} {shape}, and got {x.dtype} {x.shape}: make another Learner."
                )
            if view is None:
                apart.append(x)
            else:
                view[...] = x
        return [tf.constant(self._words), *map(tf.constant, apart)]

    def unpack(self, words: tf.Tensor, *others: tf.Tensor) -> Any:
        """Return the tree, inside a program."""
        unpacked, at, rest = [], 0, iter(others)
        for shape, dtype in self._kinds:
            if not _packed(dtype):
                unpacked.append(next(rest))
                continue
            count = _count(shape, dtype)
            unpacked.append(_unpacked(words[at : at + count], shape, dtype))
            at += count
        return with_leaves(self._tree, unpacked)


def _packed(dtype: np.dtype[Any]) -> bool:
    return dtype.itemsize in (4, 8) or dtype == np.bool_


def _count(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the number of words of an array."""
    return math.prod(shape) * (dtype.itemsize // 4 or 1)


def _viewed(words: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Return the words as an array of this kind: a bool is a whole word."""
    return words.view(_WORD if dtype == np.bool_ else dtype).reshape(shape)


def _unpacked(words: tf.Tensor, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tf.Tensor:
    if dtype == np.bool_:
        return tf.reshape(words, shape) != 0
    return tf.bitcast(tf.reshape(words, (*shape, *([2] if dtype.itemsize == 8 else []))), dtype)
