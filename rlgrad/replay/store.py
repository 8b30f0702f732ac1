"""The rows of all slots, in variables. Stacks of frames are stored a frame a row, and put together again where they are read.

Rows of all slots are numbered slot · rows + row. One more row takes what is written nowhere.

A stack of k frames shows the last k. So if rows of a slot hold the newest frame each, the stack of row i is rows i − k + 1 … i.
Where an episode begins, the older frames of its first stack have k − 1 rows of their own before it, whatever they show.
"""

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from rlgrad.core import capacity
from rlgrad.core.checks import require
from rlgrad.replay.priorities import sizes
from rlgrad.replay.records import Replay

NUMBERS = {
    "log_probs": tf.TensorSpec((None,), tf.float32),
    "rewards": tf.TensorSpec((None,), tf.float32),
    "flags": tf.TensorSpec((None,), tf.uint8),
}
"""What a row holds besides an observation and an action."""


class Store:
    """The contents of rows, by name: trees of variables (rows of all slots and one more, …).

    Args:
        specs: by name, trees of `tf.TensorSpec` (None, …).
        stacks: frames of each leaf of the observations, in the order of `tf.nest`; `None` for a leaf that is no stack.
        slots: N.
        rows: of each slot.

    Attributes:
        tree: the variables.
        spare: the number of the row that takes what is written nowhere.
        before: rows that the first stack of an episode needs before its own.
        faults: of each stack, steps after which it did not show the frames before it, int32 (stacks,).
    """

    def __init__(self, specs: Mapping[str, Any], stacks: list[int | None], slots: int, rows: int) -> None:
        self.slots, self.rows, self.spare = slots, rows, slots * rows
        self._stacks = {"observations": stacks}
        self._specs = specs
        self.before = max((k for k in stacks if k is not None), default=1) - 1
        stored = {**specs, "observations": as_stored(specs["observations"], stacks)}
        self.tree = tf.nest.map_structure(lambda spec: variable((self.spare + 1, *spec.shape[1:]), spec.dtype), stored)
        self.faults = variable((sum(k is not None for k in stacks),), tf.int32)

    @property
    def columns(self) -> dict[str, tf.Variable]:
        """The variables by name."""
        return {f"{name}/{i}": v for name, tree in self.tree.items() for i, v in enumerate(tf.nest.flatten(tree))}

    def number(self, row: Any, valid: Any) -> Any:
        """Return the numbers of rows, int32 (…, N), counted around; of those that are not valid, that of the spare row."""
        return tf.where(valid, tf.range(self.slots) * self.rows + row % self.rows, self.spare)

    def put(self, numbers: Any, values: Mapping[str, Any]) -> None:
        """Write values (…, *leaf shape), by name, to the rows of these numbers (…)."""
        indices = tf.reshape(numbers, (-1,))
        for name, tree in values.items():
            for column, x, k in self._leaves(name, tree):
                rows = x if k is None else _frame(x, k - 1, numbers)
                rows = tf.reshape(rows, (-1, *column.shape[1:]))
                column.scatter_update(tf.IndexedSlices(rows, indices))

    def put_before(self, row: Any, valid: Any, observations: Any) -> None:
        """Write the older frames of stacks into the rows before these rows (T, N)."""
        for column, x, k in self._leaves("observations", observations):
            newest = (k or 1) - 1
            for back in range(1, newest + 1):
                indices = tf.reshape(self.number(row - back, valid), (-1,))
                rows = tf.reshape(_frame(x, newest - back, row), (-1, *column.shape[1:]))
                column.scatter_update(tf.IndexedSlices(rows, indices))

    def take(self, name: str, numbers: Any) -> Any:
        """Return what rows of these numbers (…) hold: a tree of (…, *leaf shape)."""
        base, row = numbers // self.rows * self.rows, numbers % self.rows

        def taken(column: tf.Variable, k: int | None) -> Any:
            if k is None:
                return tf.gather(column, numbers)
            stack = (row[..., None] + tf.range(1 - k, 1)) % self.rows
            return tf.gather(column, tf.minimum(base[..., None] + stack, self.spare))

        stacks = self._stacks.get(name) or [None] * len(tf.nest.flatten(self.tree[name]))
        leaves = map(taken, tf.nest.flatten(self.tree[name]), stacks)
        return tf.nest.pack_sequence_as(self.tree[name], list(leaves))

    def count_faults(self, observations: Any, successors: Any, valid: Any) -> None:
        """Count the steps, bool (T, N), whose successor's older frames are not their own newer ones."""
        wrong = []
        for (_, x, k), after in zip(
            self._leaves("observations", observations), tf.nest.flatten(successors), strict=True
        ):
            if k:
                equal = tf.reshape(x[:, :, 1:] == after[:, :, :-1], (*valid.shape, -1))
                wrong.append(tf.reduce_sum(tf.cast(valid & ~tf.reduce_all(equal, axis=-1), tf.int32)))
        if wrong:
            self.faults.assign_add(tf.stack(wrong))

    def require_stacks(self) -> None:
        """Raise a ValueError for observations that are not the stacks that they were said to be."""
        names = tf.nest.flatten(_names(self._specs["observations"], "observation"))
        stacked = [(name, k) for name, k in zip(names, self._stacks["observations"], strict=True) if k is not None]
        for (name, k), wrong in zip(stacked, self.faults.numpy().tolist(), strict=True):
            if wrong:
                raise ValueError(
                    f"{name} is no stack of the last {k} frames: {wrong:,} steps were followed by one whose older frames are "
                    "others. The replay stores a frame a step, so what it holds is wrong: say stacks=None."
                )

    def require_layout(self, values: Mapping[str, Any]) -> None:
        """Raise a ValueError for values (T, N, …), by name, that are of another type or shape than what is stored."""
        for name, tree in values.items():
            for spec, given in zip(tf.nest.flatten(self._specs[name]), tf.nest.flatten(tree), strict=True):
                expected, got = (spec.dtype.name, *spec.shape[1:]), (tf.as_dtype(given.dtype).name, *given.shape[2:])
                require(expected == got, name, f"{expected} in this replay", got)

    def _leaves(self, name: str, tree: Any) -> list[tuple[tf.Variable, Any, int | None]]:
        columns = tf.nest.flatten(self.tree[name])
        stacks = self._stacks.get(name) or [None] * len(columns)
        return list(zip(columns, map(tf.convert_to_tensor, tf.nest.flatten(tree)), stacks, strict=True))


def as_stored(spec: Any, stacks: list[int | None]) -> Any:
    """Return the specs of what a row holds of observations.

    Raises:
        ValueError: a leaf that is said to be a stack of so many frames has another leading axis.
    """
    stored = []
    names = tf.nest.flatten(_names(spec, "observation"))
    for name, leaf, k in zip(names, tf.nest.flatten(spec), stacks, strict=True):
        if k is not None and (k < 2 or leaf.shape.rank < 2 or leaf.shape[1] != k):
            raise ValueError(f"{name} has the shape {tuple(leaf.shape[1:])}, which is no stack of {k} frames.")
        stored.append(leaf if k is None else tf.TensorSpec((None, *leaf.shape[2:]), leaf.dtype))
    return tf.nest.pack_sequence_as(spec, stored)


def _names(tree: Any, name: str) -> Any:
    """Return the tree of the names of a tree's leaves."""
    if isinstance(tree, Mapping):
        return {key: _names(inner, f"{name}[{key!r}]") for key, inner in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(_names(inner, f"{name}[{i}]") for i, inner in enumerate(tree))
    return name


def stacks_of(spec: Any, stacks: Any) -> list[int | None]:
    """Return the numbers of frames of the leaves of observations.

    Args:
        spec: of the observations.
        stacks: a tree like it, of integers or `None`; or `None`: nothing is stacked.
    """
    leaves = tf.nest.flatten(spec)
    if stacks is None:
        return [None] * len(leaves)
    tf.nest.assert_same_structure(spec, stacks)
    return list(tf.nest.flatten(stacks))


def rows_of(settings: Replay, num_envs: int) -> int:
    """Return the rows of each slot."""
    return -(-settings.capacity // num_envs)


def size_of(settings: Replay, observation_spec: Any, action_spec: Any, num_envs: int, *, stacks: Any = None) -> int:
    """Return the bytes of a ring, without making it. The arguments are those of `Ring`."""
    total = num_envs * rows_of(settings, num_envs) + 1
    frames = stacks_of(observation_spec, stacks)
    specs = tf.nest.flatten([as_stored(observation_spec, frames), action_spec, NUMBERS])
    specs += [tf.TensorSpec((None,), tf.int32)] if settings.hindsight else []
    stored = sum(int(spec.dtype.size) * math.prod(spec.shape[1:]) for spec in specs)
    order = 4 * sum(sizes(total)) + 4 if settings.prioritized else 4 * total
    numbered = 4 * num_envs if settings.hindsight else 0
    return int(total * stored + 20 * num_envs + numbered + order + 4 * sum(k is not None for k in frames))


def require_room(
    settings: Replay, observation_spec: Any, action_spec: Any, num_envs: int, *, stacks: Any = None
) -> None:
    """Raise a ValueError for a ring that is larger than the memory. The arguments are those of `Ring`."""
    size = size_of(settings, observation_spec, action_spec, num_envs, stacks=stacks)
    capacity.require_room(size, f"A replay of {settings.capacity:,} steps takes", "lower replay.capacity")


def variable(shape: tuple[int, ...], dtype: Any) -> tf.Variable:
    """Return a variable of zeros that no optimizer moves."""
    return tf.Variable(tf.zeros(shape, dtype), trainable=False)


def first_of(x: Any, rows: Any) -> Any:
    """Return one row of each column of a tensor (T, N, …), given by rows (N,): (N, …)."""
    columns = tf.range(x.shape[1])
    flat = tf.reshape(x, (-1, *x.shape[2:]))
    return tf.gather(flat, rows * x.shape[1] + columns)


def last_of(values: Any, valid: Any) -> Any:
    """Return the value of the last valid row of each column, bool (N,), False where there is none."""
    place = tf.where(valid, tf.range(valid.shape[0])[:, None], -1)
    return tf.reduce_any(values & (place == tf.reduce_max(place, axis=0)) & valid, axis=0)


def _frame(x: Any, index: int, numbers: Any) -> Any:
    """Return one frame of stacks (…, k, *frame shape), whose leading axes are those of `numbers`."""
    return tf.gather(x, index, axis=len(numbers.shape))
