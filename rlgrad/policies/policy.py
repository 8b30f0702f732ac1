"""The policy: what acts, what is differentiated, and what is saved."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlgrad.core import keras_configs
from rlgrad.data import Rollout
from rlgrad.distributions import Categorical, Distribution, Greedy
from rlgrad.distributions.protocol import IMPOSSIBLE
from rlgrad.mirrors.numpy_policy import NumpyPolicy
from rlgrad.policies import actors
from rlgrad.policies.copies import parts_of, rebuilt
from rlgrad.policies.critics import WithCritics, values_of
from rlgrad.policies.observations import Preparation, like, observation_spec, zeros
from rlgrad.policies.successors import successor_values
from rlgrad.spaces.conversion import as_stored
from rlgrad.spaces.masks import MASK, has_mask, remove_mask, unmasked_space, with_mask
from rlgrad.spaces.table import encoder_tree
from rlgrad.spaces.trees import map_arrays


class Policy(keras.Model):
    """A Keras model from observations to `{"policy": distribution parameters, "value": v(s)}`, and how to act with it.

    The distribution defines its parameters: logits (…, num_actions), `{"mean": (…, *shape), "log_std": (…, *shape)}`, or
    those of several parts side by side. `"value"`, (…,), is there if a network estimates it. Observations may have any number
    of batch axes, (T, N, …) included. Every function of `rlgrad.gradients` takes the policy, since it is a Keras model.

    Use `make_policy` to build one for an environment's spaces.

    Args:
        network: observation (N, …), as `rlgrad.policies.observations` prepares it, to logits or mean, or to
            `{"policy": …, "value": …}`.
        distribution: over the actions.
        observation_space: of one observation; a Dict if it has an `"action_mask"` that the distribution obeys.
        action_spec: `tf.TensorSpec` of a batch of sampled actions, (None, …).
        value_network: observation to (N, 1); `None` if `network` gives the value, or the policy has none.
        critics: models of [observation, action] to (N, 1), the action as a vector in half-widths of its space; of Discrete
            actions models of an observation to (N, A).
        scalars: numbers that an agent learns beside the networks, by name, with their starts. Each is an output, the same for
            every row.
        normalize_observations: standardize floating-point observations.
        initial_log_std: start of the log standard deviations of continuous actions, a variable of the policy.
        from_logits: a categorical `network` gives logits (`True`) or probabilities (`False`).
        seed: for `act`.
    """

    def __init__(
        self,
        network: keras.Model,
        distribution: Distribution,
        *,
        observation_space: spaces.Space[Any],
        action_spec: tf.TensorSpec,
        value_network: keras.Model | None = None,
        critics: Sequence[keras.Model] = (),
        scalars: Mapping[str, float] | None = None,
        normalize_observations: bool = False,
        initial_log_std: float = 0.0,
        from_logits: bool = True,
        seed: np.random.SeedSequence | int = 0,
    ) -> None:
        super().__init__(name="policy", dtype="float32")  # its own arithmetic: networks have theirs
        self.network, self.value_network = network, value_network
        self.distribution, self.from_logits = distribution, from_logits
        self.observation_space, self.action_spec = observation_space, action_spec
        self.masked = has_mask(observation_space)
        encoders = tf.nest.flatten(encoder_tree(observation_space))
        self._converts = any(encoder.converts for encoder in encoders)
        self.preparation = Preparation(unmasked_space(observation_space), normalize_observations)
        self._generator = np.random.default_rng(seed)
        self._ranks = [spec.shape.rank - 1 for spec in tf.nest.flatten(self.observation_spec)]
        shapes = self._head_shapes()
        shape = distribution.log_std_shape(shapes["policy"])
        self.log_std = None
        if shape is not None:
            start = keras.initializers.Constant(initial_log_std)
            self.log_std = self.add_weight(shape=shape, initializer=start, name="log_std")
        self.critics = list(critics)
        self.scalars = {
            name: self.add_weight(shape=(), initializer=keras.initializers.Constant(start), name=name)
            for name, start in (scalars or {}).items()
        }
        self.has_value = value_network is not None or "value" in shapes or self.says_action_values
        self(self.zeros(2))
        self._compiled_actor: Callable[..., Any] | None = None

    @cached_property  # and no attribute: Keras would wrap its dicts
    def observation_spec(self) -> Any:
        """A tree of `tf.TensorSpec` of a batch of stored observations, (None, …)."""
        return observation_spec(self.observation_space)

    @property
    def says_action_values(self) -> bool:
        """True if the network says how good each action is: then `"policy"` holds that, and `"value"` is of the best action."""
        return isinstance(self.distribution, Greedy)

    @property
    def critics_of_actions(self) -> bool:
        """True if critics beside the policy say how good each Discrete action is."""
        return bool(self.critics) and isinstance(self.distribution, Categorical)

    @cached_property
    def with_critics(self) -> WithCritics:
        """The policy and its critics as one model of observations and actions."""
        return WithCritics(self)

    @cached_property
    def programs(self) -> dict[Any, Any]:
        """Programs that callers compiled for this policy, by keys of their own. They live as long as the policy."""
        return {}

    @cached_property
    def mirror(self) -> actors.Mirror | None:
        """The network in NumPy, which acts in its place; `None` if NumPy cannot compute what the Keras model does."""
        mirrored = self.from_logits and self.preparation.has_numpy_function
        layers = actors.chain(self.network) if mirrored else None
        if layers is None:
            return None
        scale = () if self.log_std is None else (self.log_std.value,)
        mirror = actors.Mirror(layers, lambda: [*self.preparation.moments(), *scale])
        return mirror if mirror.agrees_with(self.network) else None

    @property
    def acts_in(self) -> str:
        """Where `actor` computes: `"numpy"`, `"xla"`, or `"graph"` if XLA would be slower."""
        return "numpy" if self.mirror is not None else "xla" if actors.gains_from_xla(self) else "graph"

    def call(self, observations: Any, training: bool = False) -> dict[str, Any]:
        """Return distribution parameters and value, for any number of batch axes."""
        heads: dict[str, Any] = self._over_batch(observations, lambda x: self._forward(x, training))
        return heads

    def value(self, observations: Any) -> tf.Tensor:
        """Return v(s), float (…,), without computing the policy if the networks are separate."""
        return self._over_batch(observations, self._value)

    def critic_values(self, observations: Any, actions: Any, training: bool = False) -> tf.Tensor:
        """Return what each critic says of stored actions, float (M, E); without them, of each Discrete one, (M, E, A)."""
        distribution: Any = self.distribution

        def values(inputs: Any) -> tf.Tensor:
            x = self.preparation(self._network_part(inputs[0]))
            return values_of(self.critics, x, distribution.told(tf.cast(inputs[1], tf.float32)), training)

        if actions is None:
            return self._over_batch(
                observations,
                lambda x: values_of(self.critics, self.preparation(self._network_part(x)), None, training),
            )
        return self._over_batch((observations, actions), values)

    def values(self, rollout: Rollout, value: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Return values v(s) of the states of a rollout and of their true successors, each float (T, N).

        Args:
            rollout: T steps in N columns.
            value: of its states, in the layout of `rows`, if the caller has them; `None`: they are computed.
        """
        value = self.value(rollout.observations) if value is None else tf.reshape(value, rollout.mask.shape)
        return value, successor_values(self, rollout, value)

    def inputs(self, rollout: Rollout) -> Any:
        """Return the input of `call` for a rollout, in the layout of `rows`."""
        return tf.nest.map_structure(self.rows, rollout.observations)

    def rows(self, x: Any) -> tf.Tensor:
        """Return numbers of the steps of a rollout, (T, N, …), with samples along the first axis: (T · N, …)."""
        return tf.reshape(x, (-1, *x.shape[2:]))

    def zeros(self, count: int) -> Any:
        """Return inputs of `count` rows, as NumPy arrays of zeros."""
        return zeros(self.observation_spec, (count,))

    def zero_actions(self, count: int) -> Any:
        """Return actions that fit `zeros`."""
        return zeros(self.action_spec, (count,))

    def normalize(self, inputs: Any, mask: tf.Tensor) -> None:
        """Merge a rollout's observations into the normalizers' statistics, if there are any.

        Args:
            inputs: from `inputs`, M rows.
            mask: float (M,), 0 for rows that do not count.
        """
        self.preparation.update(self._network_part(inputs), mask)

    def standardize(self, observations: Any) -> Any:
        """Return observations (M, …) as `Preparation.standardize` does, with their mask if they have one."""
        rest = self.preparation.standardize(self._network_part(observations))
        return with_mask(rest, observations) if self.masked else rest

    def act(self, observation: Any, *, greedy: bool = False) -> Any:
        """Choose an action.

        Args:
            observation: one observation, or a batch with one leading axis (a sequence of texts, graphs and the like).
            greedy: take the most likely action, instead of a sample.

        Returns:
            An action for `env.step` (one observation), or a batch of them.

        Raises:
            ValueError: the observation has another shape, or a mask that forbids every action.
        """
        x, single = self._batched(observation)
        return self._chosen(self.actor()(x), greedy, single)

    def player(self, *, greedy: bool = False) -> Callable[[Any], Any]:
        """Return a function that plays one episode: it takes one observation (or batch) after the other and returns actions.

        With a policy with memory it keeps the state. Take a new one for each episode.
        """
        return lambda observation: self.act(observation, greedy=greedy)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Policy":
        """Return a policy with the same weights and statistics, which later training leaves alone: an opponent in self-play.

        Raises:
            ValueError: Keras cannot copy a model that was given, such as a subclassed one without `get_config`.
        """
        copied: Policy = rebuilt(type(self), *parts_of(self, keras_configs.twin))
        copied._generator = copy.deepcopy(self._generator, memo)
        memo[id(self)] = copied
        return copied

    def __reduce__(self) -> Any:
        """Pickle what builds the same policy in another process, and its weights."""
        return rebuilt, (type(self), *parts_of(self, keras_configs.portable))

    def save(self, *arguments: Any, **options: Any) -> None:
        """Raise an error that says how a policy is saved."""
        raise NotImplementedError(
            "A policy is saved by rlgrad.export(policy, 'policy.keras'), as a model that acts without rlgrad; by its run, for "
            "rlgrad.load; and its weights alone by policy.save_weights('policy.weights.h5'), for one like it."
        )

    def get_config(self) -> dict[str, Any]:
        """Raise an error that says how a policy is copied: it holds spaces, which Keras cannot describe."""
        raise NotImplementedError(
            "A policy is copied by copy.deepcopy(policy), and saved as rlgrad.export and runs do."
        )

    def initial_state(self, count: int) -> Any:
        """Return the memory at the beginning of `count` episodes: none."""
        del count
        return ()

    def step(self, observations: Any, state: Any = ()) -> tuple[Any, Any]:
        """TensorFlow: return distribution parameters for observations (N, …), and the memory after them."""
        return self(observations)["policy"], state

    def actor(self, packed: np.ndarray | None = None) -> actors.Actor:
        """Return a fast function from stored observations (N, …) to distribution parameters, in NumPy, at the current weights.

        Args:
            packed: the value of `mirror.packed` at these weights, if the caller has it; `None`: the weights are read.
        """
        if self.mirror is not None:
            return self.in_numpy(packed).actor()
        if self._compiled_actor is None:
            self._compiled_actor = actors.compiled(
                lambda x: self(x, training=False)["policy"], self.observation_spec, xla=self.acts_in == "xla"
            )
        program, spec = self._compiled_actor, self.observation_spec
        return lambda x: program(like(spec, x))

    def in_numpy(self, packed: np.ndarray | None = None) -> NumpyPolicy:
        """Return what acts in NumPy, at the current weights, as plain data; only where there is a `mirror`.

        Args:
            packed: the value of `mirror.packed` at these weights, if the caller has it; `None`: the weights are read.
        """
        assert self.mirror is not None
        (normalizer,), (encoder,) = self.preparation.normalizers, self.preparation.encoders
        return NumpyPolicy(
            chain=self.mirror.chain,
            encoder=encoder,
            limit=None if normalizer is None else normalizer.limit,
            distribution=self.distribution,
            has_log_std=self.log_std is not None,
            # Axes of an action's numbers, if it has several.
            mask_axes=len(self._head_shapes()["policy"]) - 1 if self.masked else None,
            packed=self.mirror.numbers() if packed is None else packed,
        )

    def _over_batch(self, observations: Any, function: Any) -> Any:
        """Call `function` with one batch axis, (M, …), and give its results the batch axes of the observations."""
        leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(observations)]
        axes = leaves[0].shape.rank - self._ranks[0]
        if axes == 1:
            return function(tf.nest.pack_sequence_as(observations, leaves))
        batch = tf.shape(leaves[0])[:axes]
        flat = [tf.reshape(leaf, tf.concat([[-1], tf.shape(leaf)[axes:]], axis=0)) for leaf in leaves]
        for leaf, whole in zip(flat, leaves, strict=True):
            leaf.set_shape((None, *whole.shape[axes:]))
        results = function(tf.nest.pack_sequence_as(observations, flat))
        return tf.nest.map_structure(lambda y: tf.reshape(y, tf.concat([batch, y.shape[1:]], axis=0)), results)

    def as_arrays(self, observation: Any) -> Any:
        """Return an observation, or a batch with one leading axis, as arrays in the dtypes of `observation_spec`."""
        if self._converts:
            observation = map_arrays(as_stored, encoder_tree(self.observation_space), observation)
        return like(self.observation_spec, observation)

    def _batched(self, observation: Any) -> tuple[Any, bool]:
        """Return stored observations with a batch axis, and whether there was only one."""
        if self.masked and not (isinstance(observation, Mapping) and MASK in observation):
            raise ValueError(
                "This policy chooses among the actions that a mask allows, and none was given: "
                f"act({{'observation': …, {MASK!r}: …}}), with one number for each action."
            )
        if _is_pair(observation) and not isinstance(self.observation_spec, tuple):
            raise ValueError(
                "act takes an observation, and this is what reset returns, (observation, info): take the first."
            )
        x = self.as_arrays(observation)
        for array in tf.nest.flatten(x):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                first = float(array[~np.isfinite(array)][0])
                raise ValueError(f"act takes an observation of finite numbers, and this one has {first}.")
        shapes = [array.shape for array in tf.nest.flatten(x)]
        expected = [tuple(spec.shape[1:]) for spec in tf.nest.flatten(self.observation_spec)]
        single = shapes == expected
        if not single and ([shape[1:] for shape in shapes] != expected or len({shape[:1] for shape in shapes}) > 1):
            one = expected[0] if len(expected) == 1 else expected
            raise ValueError(
                f"Expected one observation of shape {one} or a batch with one axis before it, got "
                f"{shapes[0] if len(shapes) == 1 else shapes}."
            )
        return (map_arrays(lambda array: array[None], x) if single else x), single

    def _chosen(self, parameters: Any, greedy: bool, single: bool) -> Any:
        """Return actions for `env.step`."""
        choose = self.distribution.mode if greedy else lambda p: self.distribution.sample(p, self._generator)
        actions = self.distribution.to_environment(choose(parameters)[0])
        return map_arrays(lambda array: array[0], actions) if single else actions

    def _head_shapes(self) -> dict[str, tuple[int, ...]]:
        raw = self.network(self.preparation(self._network_part(self.zeros(2))))
        return {name: tuple(head.shape[1:]) for name, head in _heads(raw).items()}

    def _forward(self, observations: Any, training: bool = False) -> dict[str, Any]:
        x = self.preparation(self._network_part(observations))
        heads = _heads(self.network(x, training=training))
        if self.value_network is not None:
            heads["value"] = self.value_network(x, training=training)
        return self._assemble(heads, observations)

    def _assemble(self, heads: dict[str, Any], observations: Any) -> dict[str, Any]:
        """Return the distribution's parameters and a value (M,) from the network's outputs (M, …)."""
        heads = {name: tf.cast(head, tf.float32) for name, head in heads.items()}  # of networks of other precision
        output = heads["policy"]
        if not self.from_logits:
            output = tf.math.log(tf.maximum(output, np.finfo(np.float32).tiny))
        if self.masked:
            allowed = tf.cast(observations[MASK], tf.bool)
            allowed = tf.reshape(allowed, [-1, allowed.shape[1], *[1] * (output.shape.rank - 2)])
            output = tf.where(allowed, output, IMPOSSIBLE)
        log_std = None
        if self.log_std is not None:  # one row for each observation
            log_std = tf.convert_to_tensor(self.log_std.value)
            log_std = tf.broadcast_to(log_std, tf.concat([tf.shape(output)[:1], tf.shape(log_std)], axis=0))
        heads["policy"] = self.distribution.assemble(output, log_std)
        if self.says_action_values:
            greedy: Any = self.distribution
            heads["value"] = greedy.state_value(heads["policy"])
        elif "value" in heads:
            heads["value"] = tf.reshape(heads["value"], (-1,))
        for name, scalar in self.scalars.items():
            heads[name] = tf.broadcast_to(tf.convert_to_tensor(scalar.value), tf.shape(output)[:1])
        return heads

    def _value(self, observations: Any) -> tf.Tensor:
        if self.value_network is None:
            return self._forward(observations)["value"]
        x = self.preparation(self._network_part(observations))
        return tf.cast(tf.reshape(self.value_network(x, training=False), (-1,)), tf.float32)

    def _network_part(self, observations: Any) -> Any:
        return remove_mask(observations) if self.masked else observations


def _heads(raw: Any) -> dict[str, Any]:
    """Return a network's outputs by name. A network with one output gives the policy."""
    return dict(raw) if isinstance(raw, dict) else {"policy": raw}


def _is_pair(observation: Any) -> bool:
    """Return True for what `reset` of an environment returns."""
    return type(observation) is tuple and len(observation) == 2 and isinstance(observation[1], dict)
