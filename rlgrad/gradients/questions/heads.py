"""The tensors that a model returned in one pass, by name, with checks that need no numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.core import keras_internals

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass
class Heads:
    """A model's (or one layer's) outputs.

    Args:
        model: the model that ran.
        returned: what it returned: a tensor, or a dict or list of them.
        is_layer: `returned` is a layer's output, not the model's.
        batch_size: the number of samples, where it is known when tracing; for messages.
        ranges: integers that are not known while tracing, and are to be checked later: the position of the array, the
            count, and what they are.
        units: the number of axes of units that the value of an output has after its batch axes; set by recipes of vectors.
    """

    model: Any
    returned: Any
    is_layer: bool = False
    batch_size: int | None = None
    ranges: list[tuple[int, int, str]] = field(default_factory=list)
    units: int = 0

    @cached_property
    def by_name(self) -> dict[str, Any]:
        """The outputs by name; a single one has the name `""`."""
        if isinstance(self.returned, dict):
            return dict(self.returned)
        if isinstance(self.returned, list | tuple):
            names = keras_internals.output_names(self.model, len(self.returned))
            return dict(zip(names, self.returned, strict=True))
        return {"": self.returned}

    @property
    def distribution(self) -> Any:
        """The model's own distribution over actions, or `None`."""
        return None if self.is_layer else getattr(self.model, "distribution", None)

    @cached_property
    def batch_rank(self) -> int:
        """The number of leading batch axes: 1, or as many as the parameters of a policy's own distribution have."""
        if self.distribution is not None and "policy" in self.by_name:
            return batch_rank_of(self.distribution, self.by_name["policy"])
        return 1

    def find(self, name: str | None) -> Any:
        """Return the output of this name (of a dict inside a dict: `"policy/mean"`); without a name the only one.

        Raises:
            ValueError: no output has this name; or no name was given and there are several outputs.
        """
        if name is None:
            if len(self.by_name) == 1:
                return next(iter(self.by_name.values()))
            raise ValueError(
                f"{self._who} has several outputs: {', '.join(map(repr, self.by_name))}. Name one, as in "
                f"output={next(iter(self.by_name), 'name')!r}, or pass a function of all of them."
            )
        found: Any = self.by_name
        if name not in found:
            for part in name.split("/"):
                if not isinstance(found, dict) or part not in found:
                    raise ValueError(self._no_such_head(name))
                found = found[part]
            return found
        return found[name]

    def tensor(self, name: str | None) -> Any:
        """Return the output of this name, a floating-point tensor with a batch axis.

        Raises:
            TypeError: it is not floating-point.
            ValueError: it is not one tensor.
        """
        found = self.find(name)
        if isinstance(found, dict | list | tuple):
            inner = list(found) if isinstance(found, dict) else list(range(len(found)))
            raise ValueError(
                f"Output {name!r} consists of {inner}. Name one of them, as in output={f'{name}/{inner[0]}'!r}, or use "
                "LogProb(actions) or Entropy()."
            )
        require_floating(found, f"Output {name!r}" if name else "The output")
        if found.shape.rank is not None and found.shape.rank < self.batch_rank:
            raise ValueError(
                f"Output {name!r} has shape {found.shape}, without a batch axis: one row per sample is needed."
            )
        return found

    def parameters(self, name: str | None) -> Any:
        """Return the parameters of the model's distribution: output `name`, else `"policy"`, else the only output."""
        if name is None and "policy" in self.by_name:
            return self.by_name["policy"]
        if name is None and {"mean", "log_std"} <= set(self.by_name):
            return self.by_name
        if name is None and len(self.by_name) > 1:
            raise ValueError(
                f"{self._who} has the outputs {', '.join(map(repr, self.by_name))} and none is called 'policy'. Say "
                f"which one holds the distribution's parameters: head={next(iter(self.by_name))!r}."
            )
        return self.find(name)

    def require_range(self, position: int, array: Any, count: int | None, what: str) -> None:
        """Check that integers lie in 0 … count − 1: now if they are known, else add them to `ranges`."""
        if count is None:
            return
        if tf.get_static_value(array) is not None:
            check_range(array, count, what)
        else:
            self.ranges.append((position, count, what))

    @property
    def _who(self) -> str:
        return "The layer" if self.is_layer else f"Model {getattr(self.model, 'name', '')!r}"

    def _no_such_head(self, name: str) -> str:
        names = list(self.by_name)
        close = get_close_matches(name, names, n=1)
        if names == [""]:
            return f"{self._who} has one output, without a name; got output={name!r}. Leave output= out."
        meant = f" Did you mean {close[0]!r}?" if close else ""
        return f"{self._who} has no output {name!r}, only {', '.join(map(repr, names))}.{meant}"


def batch_rank_of(distribution: Any, parameters: Any) -> int:
    """Return the number of batch axes of a distribution's parameters.

    Raises:
        ValueError: it is not known.
    """
    if hasattr(distribution, "batch_rank"):
        return int(distribution.batch_rank(parameters))
    # Another library's distribution says it by the shape of its entropy.
    rank = distribution.entropy(parameters).shape.rank
    if rank is None:
        raise ValueError("The policy's output has an unknown number of axes; give it a shape (tf.ensure_shape).")
    return int(rank)


def check_range(array: Any, count: int, what: str) -> None:
    """Raise if an integer of `array` lies outside 0 … count − 1; a single number may also count from the end.

    Raises:
        ValueError: with the range that came.
    """
    known = np.asarray(array) if tf.executing_eagerly() else tf.get_static_value(array)
    if known is None or known.size == 0:
        return
    if known.ndim == 0:
        if not -count <= known < count:
            raise ValueError(f"{what} are 0 … {count - 1}, or −1 … −{count} from the end; got {int(known)}.")
        return
    # Read as unsigned, a negative number is larger than any count: one pass finds both.
    if np.maximum.reduce(known.view(_UNSIGNED[known.dtype.itemsize]), axis=None) >= count:
        low, high = int(known.min()), int(known.max())
        raise ValueError(f"{what} are 0 … {count - 1}, got values from {low} to {high}.")


def require_floating(tensor: Any, what: str) -> None:
    """Raise if `tensor` is not a floating-point tensor: nothing else has a gradient.

    Raises:
        TypeError: with what it is.
    """
    if not tf.is_tensor(tensor):
        raise TypeError(
            f"{what} is a {type(tensor).__name__}, not a tensor: it left TensorFlow (through NumPy?), and has no "
            "gradient."
        )
    if not tensor.dtype.is_floating:
        raise TypeError(
            f"{what} has dtype {tensor.dtype.name}; only floating-point outputs have a gradient (argmax, one_hot and "
            "casts to integers have none)."
        )


def shape_text(shape: Any, batch_size: int | None = None) -> str:
    """Write a static shape for a message; the batch size, if known, takes the place of an unknown first axis."""
    if shape.rank is None:
        return "an unknown shape"
    axes: Sequence[Any] = list(shape)
    if axes and axes[0] is None and batch_size is not None:
        axes = [batch_size, *axes[1:]]
    return "(" + ", ".join("?" if a is None else str(a) for a in axes) + ("," if len(axes) == 1 else "") + ")"
