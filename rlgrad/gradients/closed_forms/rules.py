"""What a closed form is: a rule that turns one call of a layer into one factor for each of the layer's variables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlgrad.core import keras_internals
from rlgrad.gradients.closed_forms.factors import Factor


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer, as a rule sees it.

    Args:
        layer: the Keras layer.
        inputs: what it was given, (N, …); of a recurrent cell, a tuple: what its products were computed from.
        cotangent: ∂f/∂z, float (N, …), z being what the layer computed before its activation (`layer.activation`); a
            tuple where there are several z.
        values: its variables' values, by attribute name.
        rerun: `rerun({"gamma": tensor, …})` is z with these values in place of its variables'.
    """

    layer: Any
    inputs: Any
    cotangent: Any
    values: Mapping[str, Any]
    rerun: Callable[[Mapping[str, Any]], Any]


Rule = Callable[[LayerCall], Mapping[str, Factor]]


@dataclass(frozen=True)
class Ran:
    """How one call of a layer went.

    Args:
        inputs: what the watched z were computed from: a tensor, or a tuple of them.
        said: tensors, one row per sample, that what the layer returns follows from.
        returns: makes of `said` what the layer returns.
    """

    inputs: Any
    said: tuple[Any, ...]
    returns: Callable[..., Any]


# run(layer, call, watch, *args, **kwargs) computes what call(*args, **kwargs), the layer's own, does, and gives each z,
# on which the layer's variables act directly, to `watch`.
Run = Callable[..., Ran]


def own_call(layer: Any, call: Callable[..., Any], watch: Callable[[Any], None], *args: Any, **kwargs: Any) -> Ran:
    """Most layers: z is what the layer itself computes when its activation is left out."""
    with keras_internals.split_activation(layer) as activation:
        z = call(*args, **kwargs)
    watch(z)
    inputs = args[0] if args else next(iter(kwargs.values()))
    return Ran(inputs, (z,), (lambda z: z) if activation is None else activation)


@dataclass(frozen=True)
class Registered:
    """A rule, the attributes of the layer whose variables it covers, and how the layer's z are found."""

    rule: Rule
    attributes: tuple[str, ...]
    run: Run = own_call
