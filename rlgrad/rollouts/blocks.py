"""The slots of a run, numbered over all processes that play some of them.

What a slot plays must not depend on the process that plays it. Its seeds and its random numbers follow from its number. What a
network says of its observation follows from that observation, but for the last bits: matrix products round in another way for
one row than for eight. So rows are always computed in the same groups of slots, whichever of these a process plays.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rlgrad.spaces.trees import map_arrays

_ROWS = 256  # most rows of a group: more gain nothing in a matrix product


@dataclass(frozen=True)
class Block:
    """Slots `first` … `first + count − 1` of `total`."""

    first: int
    count: int
    total: int

    @property
    def slots(self) -> range:
        """Numbers of the slots."""
        return range(self.first, self.first + self.count)


def blocks(total: int, parts: int) -> list[Block]:
    """Return so many blocks of `total` slots, whose sizes differ by one at most."""
    ends = [total * part // parts for part in range(parts + 1)]
    return [Block(begin, end - begin, total) for begin, end in pairwise(ends)]


def in_groups(act: Callable[..., Any], block: Block, *, in_numpy: bool) -> Callable[..., Any]:
    """Return an actor for the observations of a block, which computes the rows of whole groups.

    Args:
        act: from trees of arrays (rows, …) to a tree of arrays (rows, …), or (1, …) where all rows have the same.
        block: the slots whose rows it is given.
        in_numpy: `act` computes in NumPy. A compiled program takes all slots at once, as one that is made for them.
    """
    if block.count == block.total and not (in_numpy and block.total > _ROWS):
        return act
    groups = blocks(block.total, math.ceil(block.total / _ROWS) if in_numpy else 1)
    own = [
        group for group in groups if group.first < block.first + block.count and block.first < group.first + group.count
    ]
    if own == [block]:
        return act

    def acting(*trees: Any) -> Any:
        said = []
        for group in own:
            begin, end = max(group.first, block.first), min(group.first + group.count, block.first + block.count)
            padded = [_placed(tree, group, begin, end, block.first) for tree in trees]
            at = begin - group.first
            said.append(map_arrays(lambda y, at=at, rows=end - begin: _rows(y, at, rows), act(*padded)))
        return said[0] if len(said) == 1 else map_arrays(_joined, *said)

    return acting


def _placed(tree: Any, group: Block, begin: int, end: int, first: int) -> Any:
    """Return rows (group.count, …): those of slots begin … end − 1, of a tree that begins with slot `first`, else zeros."""

    def place(x: Any) -> Any:
        rows = np.zeros((group.count, *x.shape[1:]), x.dtype)
        rows[begin - group.first : end - group.first] = x[begin - first : end - first]
        return rows

    return map_arrays(place, tree)


def _rows(y: Any, at: int, rows: int) -> Any:
    return y if len(y) == 1 else y[at : at + rows]


def _joined(*parts: Any) -> Any:
    # One row that is the same for all, such as log standard deviations, stays one.
    return parts[0] if all(len(part) == 1 for part in parts) and len(parts) > 1 else np.concatenate(parts)
