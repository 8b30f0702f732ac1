"""Acting for training: a policy's own actions, with a share of uniformly random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad import random
from rlgrad.core.importing import lazy

if TYPE_CHECKING:
    import tensorflow as tf
else:  # acting needs none
    tf = lazy("tensorflow")


@dataclass(frozen=True)
class Exploring:
    """Actions of another distribution, but for a share that is uniformly random: in the space, or among allowed choices.

    A mixture is no member of the family, so this has what collectors ask for, and neither entropy nor divergence.

    Args:
        policy: the distribution whose parameters are given: over Discrete actions, then it has `allowed`, or over continuous
            ones, then it has `uniform`.
        share: of random actions, 0 … 1; a tensor in compiled programs.
    """

    policy: Any
    share: Any

    def __post_init__(self) -> None:
        """Raise a ValueError for a distribution over other actions."""
        if not self._is_discrete and not hasattr(self.policy, "uniform"):
            raise ValueError(
                "Random actions are drawn in Discrete and Box spaces, and this environment's are of another kind: leave the "
                "agent's exploration out, and set replay.warmup to 0 if it has a replay."
            )

    def require_bounds(self) -> None:
        """Raise a ValueError for a space of continuous actions without bounds, between which random ones would be drawn."""
        if not self._is_discrete:
            self.policy.uniform(np.float32(0.5))

    def noise(self, parameters: Any, generator: np.random.Generator, count: int) -> Draws:
        """Return the random numbers of `count` samples, indexed by the sample."""
        own = self.policy.noise(parameters, generator, count)
        shape, batch = self._shapes(parameters)
        coins = generator.random((count, *batch), np.float32)
        return Draws(own, coins, generator.random((count, *shape), np.float32))

    def pick(self, parameters: Any, noise: Draws) -> np.ndarray:
        """Return the policy's action, or where the coin says so, a random one: of choices the one of the largest number."""
        chosen: np.ndarray = self.policy.pick(parameters, noise.own)
        at_random = noise.coins < np.float32(self.share)
        if not at_random.any():
            return chosen
        if self._is_discrete:
            numbers = np.where(self.policy.allowed(parameters), noise.numbers, np.float32(-1.0))
            drawn = numbers.argmax(axis=-1)
        else:
            drawn = self.policy.uniform(noise.numbers)
            at_random = at_random.reshape(*at_random.shape, *[1] * (drawn.ndim - at_random.ndim))
        mixed: np.ndarray = np.where(at_random, drawn, chosen)
        return mixed

    def numpy_log_prob(self, parameters: Any, actions: np.ndarray) -> np.ndarray:
        """Return the log of the mixture's probabilities or densities, shape (…)."""
        share, own = np.float32(self.share), self.policy.numpy_log_prob(parameters, actions)
        if not self._is_discrete:
            with np.errstate(divide="ignore"):  # of a share of 0 or 1
                parts = np.log1p(-share) + own, np.log(share) + np.float32(self.policy.uniform_log_density)
            return np.asarray(np.logaddexp(*parts), np.float32)
        possible = np.count_nonzero(self.policy.allowed(parameters), axis=-1)
        mixed = (1.0 - share) * np.exp(own) + share / np.maximum(possible, 1).astype(np.float32)
        log_probs: np.ndarray = np.log(np.maximum(mixed, np.finfo(np.float32).tiny)).astype(np.float32)
        return log_probs

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the policy's most likely actions: nothing is explored."""
        actions: tuple[np.ndarray, np.ndarray] = self.policy.mode(parameters)
        return actions

    def to_environment(self, actions: np.ndarray) -> Any:
        """Return these actions as `env.step` takes them."""
        return self.policy.to_environment(actions)

    def draw(self, parameters: Any, seeds: Any) -> tf.Tensor:
        """TensorFlow: return sampled actions, one for each of the seeds, int32 (…, 2)."""
        to_act, to_toss, to_choose = tf.unstack(random.split(seeds, 3), axis=-2)
        chosen, at_random = self.policy.draw(parameters, to_act), random.uniform(to_toss) < self.share
        if self._is_discrete:
            allowed = self.policy.allowed(parameters)
            numbers = tf.where(allowed, random.uniform(to_choose, (allowed.shape[-1],)), -1.0)
            return tf.where(at_random, tf.argmax(numbers, axis=-1, output_type=chosen.dtype), chosen)
        event = chosen.shape[at_random.shape.rank :]
        drawn = self.policy.uniform(random.uniform(to_choose, tuple(event)), tf.math.atanh)
        return tf.where(tf.reshape(at_random, (*at_random.shape, *[1] * len(event))), drawn, chosen)

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """TensorFlow: return what `numpy_log_prob` does."""
        own = self.policy.log_prob(parameters, actions)
        if not self._is_discrete:
            share = tf.convert_to_tensor(self.share, tf.float32)
            uniform = tf.math.log(share) + self.policy.uniform_log_density
            both = tf.stack([tf.math.log1p(-share) + own, tf.broadcast_to(uniform, tf.shape(own))])
            return tf.reduce_logsumexp(both, axis=0)
        possible = tf.reduce_sum(tf.cast(self.policy.allowed(parameters), tf.float32), axis=-1)
        mixed = (1.0 - self.share) * tf.exp(own) + self.share / tf.maximum(possible, 1.0)
        return tf.math.log(tf.maximum(mixed, np.finfo(np.float32).tiny))

    def most_likely(self, parameters: Any) -> tf.Tensor:
        """TensorFlow: return the actions of `mode`."""
        return self.policy.most_likely(parameters)

    def for_environment(self, actions: tf.Tensor) -> Any:
        """TensorFlow: return the actions of `to_environment`."""
        return self.policy.for_environment(actions)

    @property
    def _is_discrete(self) -> bool:
        return hasattr(self.policy, "allowed")

    def _shapes(self, parameters: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of the numbers that choose a random action for each row, and of the rows."""
        if self._is_discrete:
            shape = self.policy.allowed(parameters).shape
            return shape, shape[:-1]
        shape = (parameters["mean"] if isinstance(parameters, dict) else parameters).shape
        return shape, shape[: len(shape) - self.policy.rank]


@dataclass(frozen=True)
class Draws:
    """Random numbers of samples: the policy's own, a coin, and a number for each action. `draws[i]` are those of sample i."""

    own: Any
    coins: np.ndarray
    numbers: np.ndarray

    def __getitem__(self, sample: int) -> Draws:
        return Draws(self.own[sample], self.coins[sample], self.numbers[sample])
