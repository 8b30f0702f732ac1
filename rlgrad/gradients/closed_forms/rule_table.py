"""The table of rules by layer class: those for Keras's own layers, and those that users add."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlgrad.core import keras_internals
from rlgrad.gradients.closed_forms import layer_rules, recurrent_rules
from rlgrad.gradients.closed_forms.rules import RegisteredRule, Rule

_RULES: dict[type, RegisteredRule] = layer_rules.RULES | recurrent_rules.RULES
_generations = [0]


def register_rule(layer_class: type, *attributes: str) -> Callable[[Rule], Rule]:
    """Make a function the closed form of a layer class; a decorator.

    Args:
        layer_class: the class of the layers. A subclass may compute something else, and needs a rule of its own.
        attributes: the names of the layer's attributes that hold the variables covered. Variables that are left out take
            the vectorized route.

    Returns:
        A decorator for a function from a `LayerCall` to a factor (`gradients.Direct`, `OuterProduct`, `Lookup`) for each
        attribute that holds a variable. It may raise `NotImplementedError` with a reason, to leave this layer to the
        vectorized route; `plan` shows the reason.

    Raises:
        TypeError: `layer_class` is not a class, or `attributes` are missing.

    Example:
        >>> @register_rule(Scale, "scale")
        ... def scale_rule(call):
        ...     return {"scale": gradients.Direct(call.cotangent * call.inputs)}
    """
    if not isinstance(layer_class, type) or not attributes:
        raise TypeError("register_rule takes a layer class and the names of the attributes that hold its variables.")

    def register(rule: Rule) -> Rule:
        _RULES[layer_class] = RegisteredRule(rule, attributes)
        _generations.append(len(_generations))
        return rule

    return register


def generation() -> int:
    """Return a number that changes when a rule is registered."""
    return _generations[-1]


@dataclass(frozen=True)
class Coverage:
    """A layer, its rule or the reason why it has none, and the variables that the rule covers, by attribute name."""

    layer: Any
    rule: RegisteredRule | str
    variables: dict[str, Any]


def rule_for(layer: Any) -> RegisteredRule | str:
    """Return the layer's rule, or the reason why there is none."""
    return _coverage(layer, keras_internals.altered(layer)).rule


def look_up(model: Any) -> list[Coverage]:
    """Return for each of `all_layers` its rule, and the variables that this covers."""
    layers = keras_internals.all_layers(model)
    return [
        _coverage(layer, reason)
        for layer, reason in zip(layers, list(map(keras_internals.altered, layers)), strict=True)
    ]


def _coverage(layer: Any, reason: str | None) -> Coverage:
    rule = _RULES.get(type(layer))
    if rule is None:
        return Coverage(layer, f"no closed form for {type(layer).__name__}", {})
    if reason is not None:
        return Coverage(layer, reason, {})
    variables = {name: getattr(layer, name, None) for name in rule.attributes}
    return Coverage(layer, rule, {name: variable for name, variable in variables.items() if variable is not None})
