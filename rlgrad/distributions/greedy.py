"""The action of the largest value: the policy of agents that learn how good each action is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad.core.importing import lazy
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


@dataclass(frozen=True)
class Greedy:
    """The action of the largest value, always. Parameters: what a network says of each action; actions: int (…), from 0.

    The network says a number of each action, the expected return, float (…, num_actions); or `width` numbers of each,
    float (…, num_actions, width), which are quantiles of the return or, with a `support`, logits of its atoms.

    Args:
        num_actions: the number of actions.
        start: the environment's number of action 0 (`gymnasium.spaces.Discrete.start`).
        width: numbers of each action; 0: one, without an axis of its own.
        support: lowest and highest return of `width` atoms that are equally far apart; `None`: they are quantiles.
    """

    num_actions: int
    start: int = 0
    width: int = 0
    support: tuple[float, float] | None = None

    @property
    def atoms(self) -> np.ndarray:
        """The returns that the logits are of, float32 (width,)."""
        if self.support is None:
            raise ValueError("These values have no atoms: they are expectations or quantiles.")
        return np.linspace(*self.support, self.width, dtype=np.float32)

    def allowed(self, parameters: Any) -> Any:
        """NumPy and TensorFlow: return bool (…, num_actions), false for actions that a mask forbids."""
        return (parameters[..., 0] if self.width else parameters) > IMPOSSIBLE / 2

    def expected(self, parameters: Any) -> tf.Tensor:
        """Return the expected return of each action, (…, num_actions); of one that a mask forbids, −1e9."""
        if not self.width:
            return tf.convert_to_tensor(parameters)
        if self.support is None:
            return tf.reduce_mean(parameters, axis=-1)
        means = tf.reduce_sum(tf.nn.softmax(parameters) * self.atoms, axis=-1)
        return tf.where(self.allowed(parameters), means, IMPOSSIBLE)

    def numpy_expected(self, parameters: Any) -> np.ndarray:
        """NumPy: return what `expected` does."""
        numbers: np.ndarray = np.asarray(parameters)
        if not self.width:
            return numbers
        means: np.ndarray = numbers.mean(axis=-1)
        if self.support is None:
            return means
        weights = np.exp(numbers - numbers.max(axis=-1, keepdims=True))
        means = (weights * self.atoms).sum(axis=-1) / weights.sum(axis=-1)
        return np.asarray(np.where(self.allowed(numbers), means, np.float32(IMPOSSIBLE)))

    def state_value(self, parameters: Any) -> tf.Tensor:
        """Return the largest expected return of an action, (…)."""
        return tf.reduce_max(self.expected(parameters), axis=-1)

    def assemble(self, raw: Any, log_std: Any) -> Any:
        """Return what the network says."""
        return raw

    def log_std_shape(self, raw_shape: tuple[int, ...]) -> None:
        """Return `None`: there are no log standard deviations."""

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Return 0 for the action of the largest value and −1e9 for others, shape (…)."""
        best = self.most_likely(parameters)
        return tf.where(tf.cast(actions, best.dtype) == best, 0.0, IMPOSSIBLE)

    def entropy(self, parameters: Any) -> tf.Tensor:
        """Return 0, shape (…): the action is certain."""
        return tf.zeros_like(self.state_value(parameters))

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """Raise: two such policies are equal or infinitely far apart."""
        raise ValueError(
            "Policies that take the action of the largest value have no KL divergence, so no trust region or natural gradient: "
            "let Ascent move an agent that credits q."
        )

    def batch_rank(self, parameters: Any) -> int:
        """Return the number of axes before that of the actions."""
        return rank_of(parameters) - (2 if self.width else 1)

    def reparameterized(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Raise a TypeError: an action is one of several."""
        raise refuse_reparameterization(self)

    def reparameterized_log_prob(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Raise a TypeError: an action is one of several."""
        raise refuse_reparameterization(self)

    def fisher_product(self, parameters: Any, tangents: Any) -> Any:
        """Raise, as `kl_divergence` does."""
        return self.kl_divergence(parameters, parameters)

    def check_actions(self, actions: Any) -> tf.Tensor:
        """Return integer actions. Raise if they are not within `0 … num_actions − 1`, as far as they are known when called."""
        actions = integers(actions, "greedy")
        require_within(actions, self.num_actions)
        return actions

    def noise(self, parameters: Any, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return no numbers, (count, 0): there is no chance."""
        return np.zeros((count, 0), np.float32)

    def pick(self, parameters: Any, noise: Any) -> np.ndarray:
        """Return the action of the largest value; of equal ones, the first."""
        actions: np.ndarray = self.numpy_expected(parameters).argmax(axis=-1)
        return actions

    def numpy_log_prob(self, parameters: Any, actions: np.ndarray) -> np.ndarray:
        """Return what `log_prob` does."""
        return np.where(self.pick(parameters, None) == actions, np.float32(0.0), np.float32(IMPOSSIBLE))

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return what `mode` does."""
        return self.mode(parameters)

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the action of the largest value; of equal ones, the first."""
        actions = self.pick(parameters, None)
        return actions, np.zeros(actions.shape, np.float32)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Return the action counted from `start`."""
        return actions + self.start if self.start else actions

    def draw(self, parameters: Any, seeds: Any) -> tf.Tensor:
        """Return what `most_likely` does."""
        return self.most_likely(parameters)

    def most_likely(self, parameters: Any) -> tf.Tensor:
        """Return the action of the largest value; of equal ones, the first."""
        return tf.argmax(self.expected(parameters), axis=-1, output_type=tf.int64)

    def for_environment(self, actions: tf.Tensor) -> tf.Tensor:
        """Return the action counted from `start`."""
        return actions + self.start if self.start else actions

    def keras_actions(self, parameters: Any, name: str) -> dict[str, Any]:
        """Keras: the action of the largest value, counted from `start`."""
        from keras import ops

        values = parameters
        if self.support is not None:
            means = ops.sum(ops.softmax(parameters) * self.atoms, axis=-1)
            values = ops.where(self.allowed(parameters), means, IMPOSSIBLE)
        elif self.width:
            values = ops.mean(parameters, axis=-1)
        return {name: keras_argmax(values) + self.start}
