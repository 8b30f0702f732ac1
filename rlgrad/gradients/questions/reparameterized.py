"""The recipes of actions as a function of parameters and noise: a(s; ε), and log π(a(s; ε)|s)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from rlgrad.gradients.questions.heads import Heads, batch_rank_of, require_floating
from rlgrad.gradients.questions.policy_recipes import distribution_of, unwrap
from rlgrad.gradients.questions.recipes import Arrays


@dataclass(frozen=True)
class ReparameterizedAction:
    """a(s; ε).

    Args:
        head: the name of the output that holds the distribution's parameters.
        distribution: see `LogProbability`.
        noisy: there is an array of noise; else the action is the most likely one.
    """

    head: str | None
    distribution: Any
    noisy: bool
    cacheable = True

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return the noise, if any."""
        return _noise(arrays)

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Return the actions, float (batch…, *event), before they are clipped or squashed."""
        found = self._deterministic(heads)
        if found is None:
            parameters, distribution = _reparameterizable(self, heads)
            noise = next(arrays)[1] if self.noisy else _no_noise(distribution, parameters)
            found = distribution.reparameterized(parameters, noise)
            heads.units = found.shape.rank - batch_rank_of(distribution, parameters)
        else:
            heads.units = found.shape.rank - heads.batch_rank
        return found

    def _deterministic(self, heads: Heads) -> Any:
        """Return the output of a deterministic policy, which is the action; `None` if there is a distribution."""
        if self.noisy or self.distribution is not None or heads.distribution is not None:
            return None
        found = heads.parameters(self.head)
        if not tf.is_tensor(found):
            return None
        require_floating(found, "The output that is the action")
        return found


@dataclass(frozen=True)
class ReparameterizedLogProbability:
    """log π(a(s; ε)|s) as a function of the parameters alone: these move the action too."""

    head: str | None
    distribution: Any
    noisy: bool
    cacheable = True

    def prepare(self, model: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return the noise, if any."""
        return _noise(arrays)

    def value(self, heads: Heads, arrays: Arrays, per_unit: bool) -> Any:
        """Return the log-probability of the reparameterized actions."""
        parameters, distribution = _reparameterizable(self, heads)
        noise = next(arrays)[1] if self.noisy else _no_noise(distribution, parameters)
        if hasattr(distribution, "reparameterized_log_prob"):
            return distribution.reparameterized_log_prob(parameters, noise)
        return distribution.log_prob(parameters, distribution.reparameterized(parameters, noise))


def _noise(arrays: Sequence[Any]) -> list[Any]:
    tensors = [array if isinstance(array, tf.Tensor) else tf.convert_to_tensor(array) for array in arrays]
    for noise in tensors:
        if not noise.dtype.is_floating:
            raise TypeError(f"The noise of actions is made of floating-point numbers, got {noise.dtype.name}.")
    return tensors


def _no_noise(distribution: Any, parameters: Any) -> Any:
    return tf.zeros_like(distribution.most_likely(parameters))


def _reparameterizable(recipe: Any, heads: Heads) -> tuple[Any, Any]:
    """Return the distribution's parameters and the distribution, which the model or the caller must have named."""
    distribution = unwrap(recipe.distribution)
    distribution = heads.distribution if distribution is None else distribution
    if distribution is None:
        raise TypeError(
            "The model does not say which distribution its output parametrizes. Pass it: Action(noise, "
            "rlgrad.distributions.DiagonalGaussian()). The action of a deterministic policy is Action(None)."
        )
    if not hasattr(distribution, "reparameterized"):
        raise NotImplementedError(
            f"{type(distribution).__name__} has no method reparameterized(parameters, noise), so how its actions move with "
            "the parameters is not known. Give it one."
        )
    return distribution_of(recipe, heads)
