"""Several choices at once, each among actions of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad import random
from rlgrad.core.importing import lazy
from rlgrad.distributions.categorical import Categorical
from rlgrad.distributions.protocol import (
    IMPOSSIBLE,
    integers,
    keras_argmax,
    rank_of,
    refuse_reparameterization,
    require_within,
)

if TYPE_CHECKING:
    import tensorflow as tf
else:  # acting needs none
    tf = lazy("tensorflow")

_ONE = Categorical()


@dataclass(frozen=True)
class MultiCategorical:
    """Independent choices. Parameters: logits, float (…, Σ counts), those of the first choice first; actions: int (…, *shape).

    Args:
        counts: the number of actions of each choice, in the order of the flattened action.
        shape: of one action; default (len(counts),).
        start: the environment's number of action 0 of each choice (`gymnasium.spaces.MultiDiscrete.start`), flattened.
    """

    counts: tuple[int, ...]
    shape: tuple[int, ...] = ()
    start: tuple[int, ...] = ()

    def assemble(self, raw: Any, log_std: Any) -> Any:
        """Return the logits."""
        return raw

    def log_std_shape(self, raw_shape: tuple[int, ...]) -> None:
        """Return `None`: there are no log standard deviations."""

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Return the sum of the choices' log-probabilities, shape (…)."""
        table = self._table(parameters)
        return tf.reduce_sum(_ONE.log_prob(table, tf.reshape(actions, tf.shape(table)[:-1])), axis=-1)

    def batch_rank(self, parameters: Any) -> int:
        """Return the number of axes before those of the logits."""
        return rank_of(parameters) - 1

    def entropy(self, parameters: Any) -> tf.Tensor:
        """Return the sum of the choices' entropies in nats, shape (…)."""
        return tf.reduce_sum(_ONE.entropy(self._table(parameters)), axis=-1)

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """Return the sum of the choices' divergences in nats, shape (…)."""
        return tf.reduce_sum(_ONE.kl_divergence(self._table(parameters), self._table(other)), axis=-1)

    def fisher_product(self, parameters: Any, tangents: Any) -> tf.Tensor:
        """Return, block by block, the Fisher matrix of each choice's logits times v, shape (…, Σ counts)."""
        moved = _ONE.fisher_product(self._table(parameters), self._table(tangents))
        rows, columns = self._places
        flat = tf.reshape(moved, tf.concat([tf.shape(moved)[:-2], [-1]], axis=0))
        return tf.gather(flat, rows * max(self.counts) + columns, axis=-1)

    def reparameterized(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Raise a TypeError: each choice is one of several."""
        raise refuse_reparameterization(self)

    def reparameterized_log_prob(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Raise a TypeError: each choice is one of several."""
        raise refuse_reparameterization(self)

    def check_actions(self, actions: Any) -> tf.Tensor:
        """Return integer actions. Raise if one is outside of its choice's range, as far as they are known when called."""
        actions = integers(actions, "multi-categorical")
        require_within(actions, np.reshape(self.counts, self._shape))
        return actions

    def noise(self, parameters: Any, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return gumbel numbers, float32 (count, …, choices, largest count)."""
        return _ONE.noise(self._numpy_table(parameters), generator, count)

    def pick(self, parameters: Any, noise: Any) -> np.ndarray:
        """Return the index of each choice's largest logit plus noise."""
        actions: np.ndarray = self._shaped(_ONE.pick(self._numpy_table(parameters), noise))
        return actions

    def numpy_log_prob(self, parameters: Any, actions: np.ndarray) -> np.ndarray:
        """Return the sum of the choices' log-probabilities, shape (…)."""
        table = self._numpy_table(parameters)
        log_probs: np.ndarray = _ONE.numpy_log_prob(table, actions.reshape(table.shape[:-1])).sum(axis=-1)
        return log_probs

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sample each choice by its largest logit plus Gumbel noise."""
        actions = self.pick(parameters, self.noise(parameters, generator, 1)[0])
        return actions, self.numpy_log_prob(parameters, actions)

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the index of each choice's largest logit."""
        actions = self._shaped(np.argmax(self._numpy_table(parameters), axis=-1))
        return actions, self.numpy_log_prob(parameters, actions)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Return the actions counted from `start`."""
        return actions + np.reshape(self.start, self._shape) if self.start else actions

    def draw(self, parameters: Any, seeds: Any) -> tf.Tensor:
        """Sample with one uniform number a choice."""
        return self._shaped(_ONE.draw(self._table(parameters), random.split(seeds, len(self.counts))))

    def most_likely(self, parameters: Any) -> tf.Tensor:
        """Return the index of each choice's largest logit."""
        return self._shaped(_ONE.most_likely(self._table(parameters)))

    def for_environment(self, actions: tf.Tensor) -> tf.Tensor:
        """Return the actions counted from `start`."""
        return actions + np.reshape(self.start, self._shape) if self.start else actions

    def keras_actions(self, parameters: Any, name: str) -> dict[str, Any]:
        """Keras: the most likely action of each choice, counted from `start`."""
        from keras import ops

        ends = np.cumsum(self.counts).tolist()
        largest = [keras_argmax(parameters[:, end - n : end]) for n, end in zip(self.counts, ends, strict=True)]
        flat = ops.stack(largest, axis=-1)
        if self.start:
            flat = flat - np.negative(self.start)  # Keras makes a sum BiasAdd, which LiteRT has for floats alone
        return {name: ops.reshape(flat, (-1, *self._shape))}

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.shape or (len(self.counts),)

    @property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Each logit's choice, and its number within it."""
        rows = np.repeat(np.arange(len(self.counts)), self.counts)
        return rows, np.concatenate([np.arange(count) for count in self.counts])

    @property
    def _gather(self) -> tuple[np.ndarray, np.ndarray]:
        """The logit at each place of a (choices, largest count) table, and whether there is one."""
        columns = np.arange(max(self.counts))
        there = columns < np.array(self.counts)[:, None]
        first = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        return np.where(there, first[:, None] + columns, 0), there

    def _table(self, logits: Any) -> tf.Tensor:
        """Return logits (…, Σ counts) as (…, choices, largest count), with impossible ones as padding."""
        index, there = self._gather
        gathered = tf.gather(logits, index, axis=-1)
        return tf.where(there, gathered, tf.cast(IMPOSSIBLE, gathered.dtype))

    def _numpy_table(self, logits: Any) -> np.ndarray:
        index, there = self._gather
        return np.where(there, np.asarray(logits)[..., index], np.float32(IMPOSSIBLE))

    def _shaped(self, actions: Any) -> Any:
        shape = self._shape
        if isinstance(actions, np.ndarray):
            return actions.reshape(*actions.shape[:-1], *shape)
        return tf.reshape(actions, tf.concat([tf.shape(actions)[:-1], shape], axis=0))
