"""The form of a closed form: a rule that turns one call of a layer into one factor for each of the layer's variables."""

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
        inputs: the layer's input, (N, …); of a recurrent cell, a tuple of the tensors that its products were made from.
        cotangent: ∂f/∂z, float (N, …), z being what the layer computed before its activation (`layer.activation`); a
            tuple where there are several z.
        values: its variables' values, by attribute name.
        rerun: `rerun({"gamma": tensor, …})` is z with these values in place of the variables' own.
    """

    layer: Any
    inputs: Any
    cotangent: Any
    values: Mapping[str, Any]
    rerun: Callable[[Mapping[str, Any]], Any]


Rule = Callable[[LayerCall], Mapping[str, Factor]]


@dataclass(frozen=True)
class LayerRun:
    """One run of a layer, in which its z were watched.

    Args:
        inputs: the tensors from which z was computed: one, or a tuple of them.
        z: the result on which the layer's variables act directly, or a tuple of them.
        outputs: tensors with one row per sample that decide what the layer returns.
        assemble: makes of `outputs` what the layer returns.
    """

    inputs: Any
    z: Any
    outputs: tuple[Any, ...]
    assemble: Callable[..., Any]


# runner(layer, call, watch, *args, **kwargs) computes what the layer's own call(*args, **kwargs) does, and hands each z
# to `watch` before anything is computed from it.
Runner = Callable[..., LayerRun]


def run_own_call(
    layer: Any, call: Callable[..., Any], watch: Callable[[Any], None], *args: Any, **kwargs: Any
) -> LayerRun:
    """Run a layer whose z is the result of its own call without its activation, as most layers' is."""
    with keras_internals.split_activation(layer) as activation:
        z = call(*args, **kwargs)
    watch(z)
    inputs = args[0] if args else next(iter(kwargs.values()))
    return LayerRun(inputs, z, (z,), (lambda z: z) if activation is None else activation)


@dataclass(frozen=True)
class RegisteredRule:
    """A rule, the attributes of the layer that hold the variables it covers, and how to run the layer."""

    rule: Rule
    attributes: tuple[str, ...]
    run: Runner = run_own_call
