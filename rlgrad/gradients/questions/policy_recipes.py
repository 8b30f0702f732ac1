"""The recipes of outputs that are about a distribution over actions: log π(a|s) and the entropy."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.reach import PLAIN
from rlgrad.distributions import Categorical
from rlgrad.gradients.questions.heads import Heads, require_floating, shape_text
from rlgrad.gradients.questions.recipes import Arrays


class Same:
    """A wrapper for an object that cannot be hashed by value; it equals only wrappers of the same object, unchanged.

    Args:
        wrapped: the object.
        attributes: compare its attributes too: numbers and strings by value, other objects by identity.
    """

    def __init__(self, wrapped: Any, attributes: bool = False) -> None:
        self.wrapped = wrapped
        own = vars(wrapped) if attributes and hasattr(wrapped, "__dict__") else {}
        self._attributes = {name: value if type(value) in PLAIN else Same(value) for name, value in own.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.wrapped is self.wrapped and other._attributes == self._attributes

    def __hash__(self) -> int:
        return id(self.wrapped)


def by_value(thing: Any) -> Any:
    """Return `thing` if it is hashed by value, as frozen dataclasses are; else a wrapper for it as it is now."""
    own: Any = type(thing).__hash__
    if thing is None or own not in (None, object.__hash__):
        with contextlib.suppress(TypeError):  # a frozen dataclass that holds what cannot be hashed
            hash(thing)
            return thing
    return Same(thing, attributes=True)


def unwrap(thing: Any) -> Any:
    """Return the argument that `by_value` was given."""
    return thing.wrapped if isinstance(thing, Same) else thing


@dataclass(frozen=True)
class LogProbability:
    """log π(a|s)."""

    head: str | None
    distribution: Any
    cacheable = True

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return the actions, checked by the distribution if it is known before the model runs."""
        distribution = unwrap(self.distribution)
        if distribution is None:
            distribution = getattr(model, "distribution", None)
        if distribution is not None:
            return [distribution.check_actions(arrays[0])]
        actions = arrays[0] if isinstance(arrays[0], tf.Tensor) else tf.convert_to_tensor(arrays[0])
        if not actions.dtype.is_integer:
            raise TypeError(
                f"LogProb got {actions.dtype.name} actions for a model that does not say what its output means. Pass "
                "the distribution: LogProb(actions, rlgrad.distributions.DiagonalGaussian()), or integer actions for a "
                "categorical one."
            )
        return [actions]

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Return the log-probability of the actions under the model's output."""
        parameters, distribution = distribution_of(self, heads)
        position, actions = next(arrays)
        _require_event(actions, parameters, distribution, heads)
        if isinstance(distribution, Categorical):
            heads.require_range(position, actions, parameters.shape[-1], "Actions")
        return distribution.log_prob(parameters, actions)


@dataclass(frozen=True)
class DistributionEntropy:
    """H(π(·|s))."""

    head: str | None
    distribution: Any
    cacheable = True

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return nothing: there are no arrays."""
        return []

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Return the distribution's entropy."""
        parameters, distribution = distribution_of(self, heads)
        return distribution.entropy(parameters)


def distribution_of(recipe: LogProbability | DistributionEntropy, heads: Heads) -> tuple[Any, Any]:
    """Return the distribution's parameters and the distribution.

    The distribution is the recipe's, else the model's own, else a categorical one on logits.
    """
    distribution = unwrap(recipe.distribution)
    parameters = heads.parameters(recipe.head)
    if distribution is None:
        distribution = heads.distribution
    for tensor in tf.nest.flatten(parameters):
        require_floating(tensor, "The output that holds the distribution's parameters")
    if distribution is None:
        if not tf.is_tensor(parameters):
            raise TypeError(
                f"The output consists of {list(parameters)}, and the model does not say which distribution that means. "
                "Pass it: LogProb(actions, rlgrad.distributions.DiagonalGaussian())."
            )
        distribution = Categorical()
    if isinstance(distribution, Categorical):
        _require_logits(recipe, parameters, heads)
    return parameters, distribution


def _require_logits(recipe: LogProbability | DistributionEntropy, parameters: Any, heads: Heads) -> None:
    _require_no_probabilities(recipe, heads)
    if not tf.is_tensor(parameters) or parameters.shape.rank < 2 or parameters.shape[-1] == 1:
        shape = shape_text(parameters.shape, heads.batch_size) if tf.is_tensor(parameters) else str(list(parameters))
        raise ValueError(
            f"A categorical distribution needs logits (N, K) with K ≥ 2, got {shape}. For two actions give the model "
            "two outputs, one logit each."
        )


def _require_no_probabilities(recipe: LogProbability | DistributionEntropy, heads: Heads) -> None:
    if heads.is_layer:
        return
    head = recipe.head if recipe.head is not None else "policy" if "policy" in heads.by_name else None
    ending = keras_internals.ends_in_probabilities(heads.model, head)
    if ending is not None:
        raise ValueError(
            f"A categorical distribution needs logits, but model {heads.model.name!r} ends in {ending!r}: its output "
            "is already probabilities, and their softmax is another distribution. Remove the activation from the last "
            "layer (activation=None); keras.ops.softmax of the logits gives the probabilities where you need them."
        )


def _require_event(actions: Any, parameters: Any, distribution: Any, heads: Heads) -> None:
    """Raise unless the actions have the shape of the distribution's samples: broadcasting would give wrong numbers."""
    if isinstance(distribution, Categorical):
        expected = parameters.shape[:-1]
    elif isinstance(parameters, dict) and "mean" in parameters:
        expected = parameters["mean"].shape
    else:
        return  # only another library's distribution knows the shape of its samples
    if not actions.shape.is_compatible_with(expected):
        raise ValueError(
            f"Actions of shape {shape_text(expected, heads.batch_size)} were expected, one for each input; got "
            f"{shape_text(actions.shape, heads.batch_size)}."
        )
