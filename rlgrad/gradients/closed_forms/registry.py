"""Which rule belongs to which layer class: Keras's own, and those that users add."""

from collections.abc import Callable
from typing import Any

from rlgrad.core import keras_internals
from rlgrad.gradients.closed_forms import layer_rules, recurrent_rules
from rlgrad.gradients.closed_forms.rules import Registered, Rule

_RULES: dict[type, Registered] = layer_rules.RULES | recurrent_rules.RULES


def register_rule(layer_class: type, *attributes: str) -> Callable[[Rule], Rule]:
    """A decorator that makes a function the closed form of a layer class.

    Args:
        layer_class: of layers of exactly this class: a subclass may compute something else, and needs a rule of its own.
        attributes: names of the layer's attributes that hold the variables covered. Variables that are left out take
            the vectorized route.

    Returns:
        A decorator for a function from a `LayerCall` to a factor (`gradients.Direct`, `OuterProduct`, `Lookup`) for each
        attribute that holds a variable. It may raise `NotImplementedError` with a reason, to leave this layer to the
        vectorized route; `plan` shows the reason.

    Raises:
        TypeError: `layer_class` is no class, or `attributes` are missing.

    Example:
        >>> @register_rule(Scale, "scale")
        ... def scale_rule(call):
        ...     return {"scale": gradients.Direct(call.cotangent * call.inputs)}
    """
    if not isinstance(layer_class, type) or not attributes:
        raise TypeError("register_rule takes a layer class and the names of the attributes that hold its variables.")

    def register(rule: Rule) -> Rule:
        _RULES[layer_class] = Registered(rule, attributes)
        return rule

    return register


def rule_for(layer: Any) -> Registered | str:
    """The layer's rule, or why there is none."""
    found = _RULES.get(type(layer))
    if found is None:
        return f"no closed form for {type(layer).__name__}"
    return keras_internals.altered(layer) or found


def covered(layer: Any, registered: Registered) -> dict[str, Any]:
    """The layer's variables that a rule covers, by attribute name."""
    found = {name: getattr(layer, name, None) for name in registered.attributes}
    return {name: variable for name, variable in found.items() if variable is not None}
