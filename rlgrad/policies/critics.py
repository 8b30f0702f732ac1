"""A policy and its critics as one model, whose gradients are of everything that an agent can credit."""

from typing import Any

import keras
import tensorflow as tf

OBSERVATIONS, ACTIONS = "observations", "actions"
"""The inputs of `WithCritics`."""


class WithCritics(keras.Model):
    """A model of observations and stored actions: the policy's heads, and `"q"`, what each critic says of the actions.

    `"q"` is (M, E) with E critics, or (M, E, K) if each says K quantiles.

    Its variables are the policy's, under the same keys. A critic is told the action as the environment gets it, in half-widths
    of the space, so the slope of `"q"` with a stored action passes the squash.

    Args:
        policy: has critics.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__(name=policy.name, dtype="float32")
        self.policy = policy
        self.built = True

    @property
    def distribution(self) -> Any:
        """The policy's distribution."""
        return self.policy.distribution

    def call(self, x: Any) -> dict[str, Any]:
        """Return the heads for `{"observations": (M, …), "actions": (M, …)}`."""
        heads: dict[str, Any] = self.policy(x[OBSERVATIONS])
        heads["q"] = self.policy.critic_values(x[OBSERVATIONS], x[ACTIONS])
        return heads


def values_of(critics: Any, x: Any, told: tf.Tensor) -> tf.Tensor:
    """Return what each of some critics says, float (M, E), or (M, E, K).

    Args:
        critics: models of an observation and an action to (M, 1), or to K ≥ 2 quantiles, (M, K).
        x: prepared observations, M rows.
        told: float (M, …), actions as critics are told them.
    """
    told = tf.reshape(told, (tf.shape(told)[0], told.shape[1:].num_elements()))
    said = [tf.cast(critic([x, told], training=False), tf.float32) for critic in critics]
    return tf.concat(said, axis=-1) if said[0].shape[-1] == 1 else tf.stack(said, axis=1)
