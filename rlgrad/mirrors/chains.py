"""A chain of layers as functions of NumPy arrays, from a description that another process can be sent."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Function = Callable[[Array], Any]

ACTIVATIONS: dict[str, Function] = {
    "linear": lambda x: x,
    "tanh": lambda x: np.tanh(x, out=x),
    "relu": lambda x: np.maximum(x, 0.0, out=x),
}


class Stage(NamedTuple):
    """One layer.

    Attributes:
        kind: a key of `STAGES`.
        option: of the kind.
        weights: number of arrays that it takes.
    """

    kind: str
    option: Any = None
    weights: int = 0


class Chain(NamedTuple):
    """Layers one after the other, and how their numbers lie in one vector.

    Attributes:
        stages: the layers.
        shapes: of all arrays in the vector: the layers' first, then others that belong to the policy.
    """

    stages: tuple[Stage, ...]
    shapes: tuple[tuple[int, ...], ...]

    def at(self, packed: Array) -> tuple[Function, list[Array]]:
        """Return the chain as a function of NumPy arrays, (N, in) to (N, out), and the other arrays.

        Args:
            packed: all numbers, float32 (P,).
        """
        numbers = iter([packed[begin:end].reshape(shape) for begin, end, shape in places(self.shapes)])
        stages = [
            STAGES[kind](option, [next(numbers) for _ in range(weights)]) for kind, option, weights in self.stages
        ]

        def forward(x: Array) -> Array:
            for stage in stages:
                x = stage(x)
            return x

        return forward, list(numbers)


@functools.cache
def places(shapes: tuple[tuple[int, ...], ...]) -> list[tuple[int, int, tuple[int, ...]]]:
    """Return where each array begins and ends in the vector, with its shape."""
    ends = [0, *itertools.accumulate(map(math.prod, shapes))]
    return list(zip(ends, ends[1:], shapes, strict=False))


def standardize(limit: float, mean: Array, deviation: Array) -> Function:
    """Return clip((x − mean) / deviation, ±limit) as a function of x."""
    low, high = np.float32(-limit), np.float32(limit)

    def standardized(x: Array) -> Array:
        standard: Array = (x - mean) / deviation
        np.maximum(standard, low, out=standard)
        np.minimum(standard, high, out=standard)
        return standard

    return standardized


def _dense(activation: str, weights: Sequence[Array]) -> Function:
    kernel, activate = weights[0], ACTIVATIONS[activation]
    if len(weights) == 1:
        return lambda x: activate(x.dot(kernel))
    bias = weights[1]

    def dense(x: Array) -> Array:
        x = x.dot(kernel)  # half a microsecond where `x @ kernel` takes one
        x += bias
        result: Array = activate(x)
        return result

    return dense


def _norm(epsilon: float, weights: Sequence[Array]) -> Function:
    small = np.float32(epsilon)

    def centered(x: Array) -> Array:
        # Sums that are divided: `mean` gives the same numbers, and takes four times as long for a single row.
        count = np.float32(x.shape[-1])
        centered = x - np.add.reduce(x, axis=-1, keepdims=True) / count
        variance = np.add.reduce(np.square(centered), axis=-1, keepdims=True) / count
        result: Array = centered / np.sqrt(variance + small)
        return result

    if not weights:
        return centered
    scale, shift = weights

    def normalize(x: Array) -> Array:
        result: Array = centered(x) * scale + shift
        return result

    return normalize


def _leaky(slope: float, _: Sequence[Array]) -> Function:
    factor = np.float32(slope)
    return lambda x: np.where(x > 0.0, x, factor * x)


def _duel(x: Array) -> Array:
    advantages = x[:, 1:]
    result: Array = x[:, :1] + advantages - advantages.mean(axis=1, keepdims=True)
    return result


STAGES: dict[str, Callable[[Any, Sequence[Array]], Function]] = {
    "dense": _dense,
    "norm": _norm,
    "leaky": _leaky,
    "activation": lambda name, _: ACTIVATIONS[name],
    "flatten": lambda *_: lambda x: x.reshape(len(x), -1),
    "reshape": lambda shape, _: lambda x: x.reshape(len(x), *shape),
    "duel": lambda *_: _duel,
}
"""By kind of layer: a function of arrays, from the option and the weights of one."""
