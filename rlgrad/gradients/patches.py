"""What each position of a convolution sees of its input."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import tensorflow as tf


def patches(x: Any, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], padding: str) -> Any:
    """The input under the kernel, for each of the convolution's output positions.

    Slices, one per element of the kernel: they work for any number of spatial axes, strides together with dilation, in
    float64, and under XLA.

    Args:
        x: float (N, *spatial, C), the spatial sizes known.
        kernel: sizes of the kernel.
        strides: one per spatial axis.
        dilation: one per spatial axis.
        padding: `"valid"`, `"same"` (TensorFlow's: the odd one goes after) or `"causal"` (all before).

    Returns:
        float (N, *positions, prod(kernel), C).

    Raises:
        NotImplementedError: a spatial size is not known when tracing.
    """
    sizes = [int(size) for size in known(x.shape[1:-1])]
    if padding != "valid":
        before_after = [
            _padding(size, k, s, d, padding) for size, k, s, d in zip(sizes, kernel, strides, dilation, strict=True)
        ]
        if any(before or after for before, after in before_after):
            x = tf.pad(x, [(0, 0), *before_after, (0, 0)])
            sizes = [size + before + after for size, (before, after) in zip(sizes, before_after, strict=True)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    counts = [(size - r) // s + 1 for size, r, s in zip(sizes, reach, strides, strict=True)]
    if all(k == 1 for k in kernel) and all(s == 1 for s in strides):
        return tf.expand_dims(x, -2)
    parts = []
    for offset in product(*map(range, kernel)):
        window = tuple(
            slice(o * d, o * d + (count - 1) * s + 1, s)
            for o, d, count, s in zip(offset, dilation, counts, strides, strict=True)
        )
        parts.append(x[(slice(None), *window, slice(None))])
    return tf.stack(parts, axis=-2)


def known(shape: Any) -> list[int]:
    """The sizes of a shape.

    Raises:
        NotImplementedError: one is not known when tracing.
    """
    if shape.rank is None or any(size is None for size in shape):
        raise NotImplementedError(f"its input has sizes that are not known: {shape}")
    return list(shape)


def _padding(size: int, kernel: int, stride: int, dilation: int, padding: str) -> tuple[int, int]:
    reach = (kernel - 1) * dilation
    if padding == "causal":
        return reach, 0
    positions = -(-size // stride)
    missing = max(0, (positions - 1) * stride + reach + 1 - size)
    return missing // 2, missing - missing // 2
