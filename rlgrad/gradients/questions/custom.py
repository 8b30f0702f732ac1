"""The output that a user's function computes, of what the model returned, or of that and of targets."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from rlgrad.gradients.questions.arrays import dense_tensor, is_scalar, rows_of
from rlgrad.gradients.questions.heads import Heads, require_floating, shape_text
from rlgrad.gradients.questions.recipes import Arrays


@dataclass(frozen=True)
class Custom:
    """A user's function of what the model returned. It may capture anything, so no program of it is kept.

    Args:
        function: the function.
        layout: the tree of the targets, which are its second argument, as text; `None` if it has one argument.
        structure: this tree, with a `None` in place of each array.
    """

    function: Callable[..., Any]
    layout: str | None = None
    structure: Any = field(default=None, compare=False)
    cacheable = False

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return the targets as tensors, each with a row per sample."""
        tensors = [dense_tensor(array, "The target") for array in arrays]
        for tensor in tensors:
            if tensor.shape.rank == 0:
                raise ValueError(
                    "A target has one row for each sample, got a single number. A function can capture it."
                )
        return tensors

    def call(self, returned: Any, arrays: Arrays) -> Any:
        """Return what the function returns."""
        if self.layout is None:
            return self.function(returned)
        targets = [next(arrays)[1] for _ in tf.nest.flatten(self.structure)]
        return self.function(returned, tf.nest.pack_sequence_as(self.structure, targets))

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Call the function, and require a floating-point tensor that kept the batch axis."""
        value = self.call(heads.returned, arrays)
        require_floating(value, "What the function given as output= returned")
        reference = tf.nest.flatten(heads.returned)[0]
        expected = reference.shape[:1]
        if value.shape.rank == 0 or not value.shape[:1].is_compatible_with(expected):
            raise ValueError(
                f"The function given as output= returned shape {shape_text(value.shape)} from an output of shape "
                f"{shape_text(reference.shape)}: the batch axis is gone. Return one number per sample; sums and means "
                "over samples are what sample_weight= is for. (Per-sample gradients call the function with one row at "
                "a time: an array with a row per sample is passed as target=, and the function then takes two arguments.)"
            )
        if value.shape.rank == 2 and value.shape[1] == 1 and not per_unit:
            return tf.squeeze(value, 1)
        return value


def target_leaves(target: Any) -> tuple[list[Any], Any]:
    """Return the arrays of a tree of targets, in which lists of plain numbers are arrays, and the tree without them."""
    tree = _with_arrays(target)
    return tf.nest.flatten(tree), tf.nest.map_structure(lambda _: None, tree)


def require_arguments(function: Callable[..., Any], count: int) -> None:
    """Raise if a function given as `output=` cannot be called with one argument, or with two if there are targets.

    Raises:
        TypeError: with the arguments that it takes.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a built-in function; calling it will tell
    name = getattr(function, "__name__", type(function).__name__)
    if list(signature.parameters)[:2] == ["y_true", "y_pred"]:
        raise TypeError(
            f"Keras' losses take the labels first: give lambda y, target: {name}(target, y), and target=labels."
        )
    try:
        signature.bind(*[None] * count)
    except TypeError:
        if count == 1:
            message = "and there is no target=. A function of (y, target) needs one; other numbers it can capture."
        else:
            message = "but with target= it is called with two, the model's output and the targets."
        raise TypeError(f"The function {name} takes the arguments {signature}, {message}") from None


def _with_arrays(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _with_arrays(part) for name, part in tree.items()}
    if isinstance(tree, list | tuple):
        if all(map(is_scalar, tf.nest.flatten(tree))):
            return rows_of(tree)
        parts = [_with_arrays(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree
