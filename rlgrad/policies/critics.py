"""A policy and its critics as one model, whose gradients are of everything that an agent can credit."""

from typing import Any

import keras
import tensorflow as tf

from rlgrad.core.keras_internals import all_layers

OBSERVATIONS, ACTIONS = "observations", "actions"
"""The inputs of `WithCritics`."""
BESIDE_OBSERVATIONS, BESIDE_ACTIONS, Q_BESIDE = "beside_observations", "beside_actions", "q_beside"
"""Further inputs of it, and the head that comes of them."""
Q_VALUES = "q_values"
"""The head of critics that say a value of each Discrete action."""


class WithCritics(keras.Model):
    """A model of observations and stored actions: the policy's heads, and `"q"`, what each critic says of the actions.

    `"q"` is (M, E) with E critics, or (M, E, K) if each says K quantiles. Critics of Discrete actions say a value of each, of
    which it is that of the action, and `Q_VALUES` is all of them, (M, E, A).

    Its variables are the policy's, under the same keys. A critic is told the action as the environment gets it, in half-widths
    of the space, so the slope of `"q"` with a stored action passes the squash. In training mode the critics are, and the policy
    is not.

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

    def call(self, x: Any, training: bool = False) -> dict[str, Any]:
        """Return the heads for `{"observations": (M, …), "actions": (M, …)}`.

        With the entries `BESIDE_OBSERVATIONS` and `BESIDE_ACTIONS` the critics run once, on the rows of both, and `Q_BESIDE`
        is a head.
        """
        heads: dict[str, Any] = self.policy(x[OBSERVATIONS], training=False)
        if self.policy.critics_of_actions:
            heads[Q_VALUES] = self.policy.critic_values(x[OBSERVATIONS], None, training)
            chosen = tf.one_hot(x[ACTIONS], heads[Q_VALUES].shape[-1])
            heads["q"] = tf.reduce_sum(heads[Q_VALUES] * chosen[:, None], axis=-1)
            return heads
        if BESIDE_ACTIONS not in x:
            heads["q"] = self.policy.critic_values(x[OBSERVATIONS], x[ACTIONS], training)
            return heads
        both = tf.nest.map_structure(
            lambda *rows: tf.concat(rows, axis=0),
            (x[OBSERVATIONS], x[ACTIONS]),
            (x[BESIDE_OBSERVATIONS], x[BESIDE_ACTIONS]),
        )
        heads["q"], heads[Q_BESIDE] = tf.split(self.policy.critic_values(*both, training), 2, axis=0)
        return heads


def values_of(critics: Any, x: Any, told: tf.Tensor | None, training: bool) -> tf.Tensor:
    """Return what each of some critics says, float (M, E), (M, E, K), or of observations alone (M, E, A).

    Args:
        critics: models of an observation and an action to (M, 1), or to K ≥ 2 quantiles, (M, K).
        x: prepared observations, M rows.
        told: float (M, …), actions as critics are told them; `None`: they are models of an observation.
        training: run the critics in training mode.
    """
    if told is None:
        return tf.stack([tf.cast(critic(x, training=training), tf.float32) for critic in critics], axis=1)
    told = tf.reshape(told, (tf.shape(told)[0], told.shape[1:].num_elements()))
    said = [tf.cast(critic([x, told], training=training), tf.float32) for critic in critics]
    return tf.concat(said, axis=-1) if said[0].shape[-1] == 1 else tf.stack(said, axis=1)


def have_batch_statistics(critics: Any) -> bool:
    """Return True if a critic normalizes by the batch in training mode, so that no row has a slope of its own there."""
    layers = [layer for critic in critics for layer in all_layers(critic)]
    return any(isinstance(layer, keras.layers.BatchNormalization) and layer.trainable for layer in layers)
