"""Many small arrays as one argument of a compiled program: passing a tensor costs more than its numbers."""

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

    def pack(self, tree: Any) -> list[tf.Tensor]:
        """Return the tensors that `unpack` takes.

        Raises:
            ValueError: a shape or a dtype differs from the first tree's.
        """
        arrays = [np.asarray(x) for x in leaves(tree)]
        if [(x.shape, x.dtype) for x in arrays] != self._kinds:
            got, (shape, dtype) = next(
                pair for pair in zip(arrays, self._kinds, strict=False) if (pair[0].shape, pair[0].dtype) != pair[1]
            )
            raise ValueError(
                f"The program was compiled for arrays {dtype} {shape}, and got {got.dtype} {got.shape}: make another Learner."
            )
        words = np.concatenate([_words(x) for x in arrays if _packed(x.dtype)])
        return [tf.constant(words), *(tf.constant(x) for x in arrays if not _packed(x.dtype))]

    def unpack(self, words: tf.Tensor, *others: tf.Tensor) -> Any:
        """Return the tree, inside a program."""
        unpacked, at, rest = [], 0, iter(others)
        for shape, dtype in self._kinds:
            if not _packed(dtype):
                unpacked.append(next(rest))
                continue
            count = int(np.prod(shape)) * (dtype.itemsize // 4 or 1)
            unpacked.append(_unpacked(words[at : at + count], shape, dtype))
            at += count
        return with_leaves(self._tree, unpacked)


def _packed(dtype: np.dtype[Any]) -> bool:
    return dtype.itemsize in (4, 8) or dtype == np.bool_


def _words(x: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(x).reshape(-1)
    return flat.astype(_WORD) if x.dtype == np.bool_ else flat.view(_WORD)


def _unpacked(words: tf.Tensor, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tf.Tensor:
    if dtype == np.bool_:
        return tf.reshape(words, shape) != 0
    return tf.bitcast(tf.reshape(words, (*shape, *([2] if dtype.itemsize == 8 else []))), dtype)
