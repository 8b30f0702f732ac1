"""Trees of tensors in which `None` stands for what is not filled. To `tf.nest` alone, `None` is a leaf like a tensor."""

from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf


def leaves(tree: Any) -> list[Any]:
    """Return the leaves of a tree, without its `None`s."""
    return [leaf for leaf in tf.nest.flatten(tree) if leaf is not None]


def with_leaves(tree: Any, new: Iterable[Any]) -> Any:
    """Return a tree with other leaves, and `None` where it has `None`: `with_leaves(tree, leaves(tree))` is `tree`."""
    remaining = iter(new)
    return tf.nest.map_structure(lambda leaf: None if leaf is None else next(remaining), tree)


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return the tree of `function(leaf)`, and `None` where the tree has `None`."""
    return with_leaves(tree, map(function, leaves(tree)))
