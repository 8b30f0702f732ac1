"""The policy: what acts, what is differentiated, and what is saved."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad.distributions import DiagonalGaussian, Distribution
from rlgrad.policies import actors
from rlgrad.policies.normalizer import RunningNormalizer


class Policy(keras.Model):
    """A Keras model from observations to `{"policy": distribution parameters, "value": v(s)}`, and how to act with it.

    Parameters are logits (…, num_actions), or `{"mean": (…, *shape), "log_std": (…, *shape)}`; `"value"` is there if
    something estimates it, (…,). Observations may have any number of batch axes, (T, N, …) included. Being a Keras model, it
    goes into every function of `rlgrad.gradients`.

    Use `make_policy` to build one for an environment's spaces.

    Args:
        network: observation (N, *observation_shape) to logits or mean, or to `{"policy": …, "value": …}`.
        distribution: what the parameters mean.
        observation_spec: `tf.TensorSpec` of a batch of observations as they are stored, (None, …).
        action_spec: `tf.TensorSpec` of a batch of actions as they are sampled, (None, …).
        value_network: observation to (N, 1); none where `network` gives the value, or nothing does.
        normalizer: standardizes observations; none: they are only cast to float32.
        initial_log_std: start of the Gaussian's log standard deviation, a variable of the policy.
        from_logits: whether a categorical `network` gives logits (true) or probabilities.
        seed: for `act`.
    """

    def __init__(
        self,
        network: keras.Model,
        distribution: Distribution,
        *,
        observation_spec: tf.TensorSpec,
        action_spec: tf.TensorSpec,
        value_network: keras.Model | None = None,
        normalizer: RunningNormalizer | None = None,
        initial_log_std: float = 0.0,
        from_logits: bool = True,
        seed: np.random.SeedSequence | int = 0,
    ) -> None:
        super().__init__(name="policy")
        self.network, self.value_network, self.normalizer = network, value_network, normalizer
        self.distribution, self.from_logits = distribution, from_logits
        self.observation_spec, self.action_spec = observation_spec, action_spec
        self.observation_shape = tuple(observation_spec.shape[1:])
        self._generator = np.random.default_rng(seed)
        observations = self._zeros(2)
        raw = network(tf.cast(observations, tf.float32))
        self._several_heads = isinstance(raw, dict)
        self.log_std = None
        if isinstance(distribution, DiagonalGaussian):
            mean = raw["policy"] if self._several_heads else raw
            start = keras.initializers.Constant(initial_log_std)
            self.log_std = self.add_weight(shape=mean.shape[1:], initializer=start, name="log_std")
        self.has_value = value_network is not None or (self._several_heads and "value" in raw)
        self(observations)
        self._compiled_actor: actors.Actor | None = None

    def call(self, observations: tf.Tensor) -> dict[str, Any]:
        """Distribution parameters and value, for any number of batch axes."""
        heads: dict[str, Any] = self._over_batch(observations, self._forward)
        return heads

    def value(self, observations: tf.Tensor) -> tf.Tensor:
        """v(s), float (…,), without the policy's part of the network where the two are separate."""
        return self._over_batch(observations, self._value)

    def act(self, observation: Any, *, greedy: bool = False) -> Any:
        """What to do.

        Args:
            observation: one observation, or a batch with one leading axis.
            greedy: take the most likely action, instead of a sample.

        Returns:
            An action for `env.step` (one observation), or a batch of them.

        Raises:
            ValueError: the observation has another shape.
        """
        x = np.asarray(observation)
        single = x.shape == self.observation_shape
        if not single and x.shape[1:] != self.observation_shape:
            raise ValueError(
                f"Expected one observation of shape {self.observation_shape} or a batch (N, *{self.observation_shape}), "
                f"got {x.shape}."
            )
        parameters = self.actor()(x[None] if single else x)
        choose = self.distribution.mode if greedy else lambda p: self.distribution.sample(p, self._generator)
        actions = self.distribution.to_environment(choose(parameters)[0])
        return actions[0] if single else actions

    def actor(self) -> actors.Actor:
        """A fast function from a batch of observations to distribution parameters, NumPy in and out, at these weights."""
        layers = actors.dense_stack(self.network) if self.from_logits else None
        if layers is not None:
            forward = actors.numpy_stack(layers)
            normalize = self.normalizer.numpy_function() if self.normalizer else _as_float32
            if self.log_std is None:
                return lambda x: forward(normalize(x))
            log_std = self.log_std.numpy()
            return lambda x: {"mean": forward(normalize(x)), "log_std": log_std}
        if self._compiled_actor is None:
            self._compiled_actor = actors.compiled(lambda x: self(x, training=False)["policy"], self.observation_spec)
        program, dtype = self._compiled_actor, self.observation_spec.dtype.as_numpy_dtype
        return lambda x: program(x.astype(dtype, copy=False))

    def _zeros(self, count: int) -> np.ndarray:
        return np.zeros((count, *self.observation_shape), self.observation_spec.dtype.as_numpy_dtype)

    def _over_batch(self, observations: Any, function: Any) -> Any:
        """`function` on (M, *observation_shape), its results given the batch axes that came."""
        x = tf.convert_to_tensor(observations)
        axes = x.shape.rank - len(self.observation_shape)
        if axes == 1:
            return function(x)
        batch = tf.shape(x)[:axes]
        flat = function(tf.reshape(x, (-1, *self.observation_shape)))
        return tf.nest.map_structure(lambda y: tf.reshape(y, tf.concat([batch, y.shape[1:]], axis=0)), flat)

    def _forward(self, x: tf.Tensor) -> dict[str, Any]:
        x = self._normalized(x)
        raw = self.network(x, training=False)
        heads = dict(raw) if self._several_heads else {"policy": raw}
        parameters = heads["policy"]
        if not self.from_logits:
            parameters = tf.math.log(tf.maximum(parameters, np.finfo(np.float32).tiny))
        if self.log_std is not None:
            log_std = tf.convert_to_tensor(self.log_std.value)
            parameters = {"mean": parameters, "log_std": tf.broadcast_to(log_std, tf.shape(parameters))}
        heads["policy"] = parameters
        if self.value_network is not None:
            heads["value"] = self.value_network(x, training=False)
        if self.has_value:
            heads["value"] = tf.reshape(heads["value"], (-1,))
        return heads

    def _value(self, x: tf.Tensor) -> tf.Tensor:
        if self.value_network is None:
            return self._forward(x)["value"]
        return tf.reshape(self.value_network(self._normalized(x), training=False), (-1,))

    def _normalized(self, x: tf.Tensor) -> tf.Tensor:
        return self.normalizer(x) if self.normalizer else tf.cast(x, tf.float32)


def _as_float32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32, copy=False)
