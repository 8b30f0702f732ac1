"""What a closed form is: a rule that turns one call of a layer into one factor for each of the layer's variables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlgrad.gradients.factors import Factor


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer, as a rule sees it.

    Args:
        layer: the Keras layer.
        inputs: what it was given, (N, …).
        cotangent: ∂f/∂z, float (N, …), z being what the layer computed before its activation (`layer.activation`).
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
class Registered:
    """A rule and the attributes of the layer whose variables it covers."""

    rule: Rule
    attributes: tuple[str, ...]
