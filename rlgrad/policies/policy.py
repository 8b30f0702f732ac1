"""The policy: what acts, what is differentiated, and what is saved."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlgrad.data import Rollout
from rlgrad.distributions import Distribution
from rlgrad.distributions.base import IMPOSSIBLE
from rlgrad.policies import actors
from rlgrad.policies import observations as seen
from rlgrad.spaces.masks import MASK, has_mask
from rlgrad.spaces.trees import map_arrays

_FEW_ROWS = 8  # of a rollout, where looking at all successors costs little
_FEW_ROWS_OF_IMAGES = 3  # where less than that is looked at otherwise


class Policy(keras.Model):
    """A Keras model from observations to `{"policy": distribution parameters, "value": v(s)}`, and how to act with it.

    Parameters are what the distribution says: logits (…, num_actions), `{"mean": (…, *shape), "log_std": (…, *shape)}`, or
    those of several parts side by side; `"value"` is there if something estimates it, (…,). Observations may have any number of
    batch axes, (T, N, …) included. Being a Keras model, it goes into every function of `rlgrad.gradients`.

    Use `make_policy` to build one for an environment's spaces.

    Args:
        network: observation (N, …), as `rlgrad.policies.observations` prepares it, to logits or mean, or to
            `{"policy": …, "value": …}`.
        distribution: what the parameters mean.
        observation_space: of one observation; with an `"action_mask"` that its distribution is to honour, a Dict.
        action_spec: `tf.TensorSpec` of a batch of actions as they are sampled, (None, …).
        value_network: observation to (N, 1); none where `network` gives the value, or nothing does.
        normalize_observations: standardize what is floating-point.
        initial_log_std: start of the log standard deviations of continuous actions, a variable of the policy.
        from_logits: whether a categorical `network` gives logits (true) or probabilities.
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
        normalize_observations: bool = False,
        initial_log_std: float = 0.0,
        from_logits: bool = True,
        seed: np.random.SeedSequence | int = 0,
    ) -> None:
        super().__init__(name="policy")
        self.network, self.value_network = network, value_network
        self.distribution, self.from_logits = distribution, from_logits
        self.observation_space, self.action_spec = observation_space, action_spec
        self.masked = has_mask(observation_space)
        self.preparation = seen.Preparation(seen.seen_space(observation_space), normalize_observations)
        self._generator = np.random.default_rng(seed)
        self._ranks = [spec.shape.rank - 1 for spec in tf.nest.flatten(self.observation_spec)]
        shapes = self._head_shapes()
        shape = distribution.log_std_shape(shapes["policy"])
        self.log_std = None
        if shape is not None:
            start = keras.initializers.Constant(initial_log_std)
            self.log_std = self.add_weight(shape=shape, initializer=start, name="log_std")
        self.has_value = value_network is not None or "value" in shapes
        self(self.zeros(2))
        self._compiled_actor: Callable[..., Any] | None = None

    @cached_property  # and no attribute: Keras would wrap its dicts
    def observation_spec(self) -> Any:
        """A tree of `tf.TensorSpec` of a batch of observations as they are stored, (None, …)."""
        return seen.observation_spec(self.observation_space)

    @cached_property
    def programs(self) -> dict[Any, Any]:
        """What others have compiled for this policy, by keys of theirs; it lives as long as the policy."""
        return {}

    @cached_property
    def mirror(self) -> actors.Mirror | None:
        """The network in NumPy, in which it acts; none where only the Keras model itself can say what it gives."""
        layers = actors.chain(self.network) if self.from_logits else None
        if layers is None:
            return None
        scale = () if self.log_std is None else (self.log_std.value,)
        mirror = actors.Mirror(layers, lambda: [*self.preparation.moments(), *scale])
        return mirror if mirror.agrees_with(self.network) else None

    @property
    def acts_in(self) -> str:
        """Where `actor` computes: `"numpy"`, `"xla"`, or `"graph"` where XLA would be the slower one."""
        return "numpy" if self.mirror is not None else "xla" if actors.gains_from_xla(self) else "graph"

    def call(self, observations: Any) -> dict[str, Any]:
        """Distribution parameters and value, for any number of batch axes."""
        heads: dict[str, Any] = self._over_batch(observations, self._forward)
        return heads

    def value(self, observations: Any) -> tf.Tensor:
        """v(s), float (…,), without the policy's part of the network where the two are separate."""
        return self._over_batch(observations, self._value)

    def values(self, rollout: Rollout, value: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Values v(s) of the states of a rollout and of their true successors, each float (T, N).

        Args:
            rollout: T steps in N columns.
            value: those of its states, in the layout of `rows`, where they are known; none: the network is asked.
        """
        value = self.value(rollout.observations) if value is None else tf.reshape(value, rollout.mask.shape)
        rows = value.shape[0]
        if rows is None or rows < (_FEW_ROWS_OF_IMAGES if actors.convolves(self) else _FEW_ROWS):
            return value, self.value(rollout.final_observations)
        # Else successors are looked at twice in each column at most: most of them are observations of the next row.
        cut = tf.convert_to_tensor(rollout.truncations)[:-1] & ~tf.convert_to_tensor(rollout.terminations)[:-1]
        most = tf.reduce_max(tf.reduce_sum(tf.cast(cut, tf.int32), axis=0))
        looks = [
            lambda: self._following(rollout, value),
            lambda: self._following(rollout, value, cut),
            lambda: self.value(rollout.final_observations),
        ]
        if actors.convolves(self):
            return value, tf.switch_case(tf.minimum(most, 2), looks)
        return value, tf.cond(most > 1, looks[2], looks[1])  # of numbers one look more costs less than to compile it

    def inputs(self, rollout: Rollout) -> Any:
        """What the policy is called with for a rollout, in the layout of `rows`."""
        return tf.nest.map_structure(self.rows, rollout.observations)

    def rows(self, x: Any) -> tf.Tensor:
        """Numbers of the steps of a rollout, (T, N, …), with samples along the first axis: (T · N, …)."""
        return tf.reshape(x, (-1, *x.shape[2:]))

    def zeros(self, count: int) -> Any:
        """Inputs of `count` rows, as NumPy arrays of zeros."""
        return zeros(self.observation_spec, (count,))

    def zero_actions(self, count: int) -> Any:
        """Actions that fit `zeros`."""
        return zeros(self.action_spec, (count,))

    def normalize(self, inputs: Any, mask: tf.Tensor) -> None:
        """Merge a rollout's observations into the normalizers' statistics, if there are any.

        Args:
            inputs: as `inputs` gives them, M rows.
            mask: float (M,), 0 for rows that do not count.
        """
        self.preparation.update(self._seen(inputs), mask)

    def act(self, observation: Any, *, greedy: bool = False) -> Any:
        """What to do.

        Args:
            observation: one observation, or a batch with one leading axis.
            greedy: take the most likely action, instead of a sample.

        Returns:
            An action for `env.step` (one observation), or a batch of them.

        Raises:
            ValueError: the observation has another shape, or a mask that forbids every action.
        """
        x, single = self._batched(observation)
        return self._chosen(self.actor()(x), greedy, single)

    def player(self, *, greedy: bool = False) -> Callable[[Any], Any]:
        """What to do in one episode: a function that takes one observation after the other, or batches, and gives actions.

        It remembers what a policy with memory remembers; take a new one for each episode.
        """
        return lambda observation: self.act(observation, greedy=greedy)

    def initial_state(self, count: int) -> Any:
        """What is remembered at the beginning of `count` episodes: nothing."""
        del count
        return ()

    def step(self, observations: Any, state: Any = ()) -> tuple[Any, Any]:
        """TensorFlow: distribution parameters for observations (N, …), and what is remembered after them."""
        return self(observations)["policy"], state

    def actor(self, packed: np.ndarray | None = None) -> actors.Actor:
        """A fast function from a batch of observations to distribution parameters, NumPy in and out, at these weights.

        Args:
            packed: what `mirror.packed` gave at these weights, if somebody has it; none: the weights are read.
        """
        if self.mirror is not None:
            forward, rest = self.mirror.actor(packed)
            log_std = None if self.log_std is None else rest.pop()[None]
            prepare, assemble = self.preparation.numpy_function(*rest), self.distribution.assemble
            if not self.masked:
                return lambda x: assemble(forward(prepare(x)), log_std)
            return lambda x: np.where(x[MASK], forward(prepare(seen.without_mask(x))), np.float32(IMPOSSIBLE))
        if self._compiled_actor is None:
            self._compiled_actor = actors.compiled(
                lambda x: self(x, training=False)["policy"], self.observation_spec, xla=self.acts_in == "xla"
            )
        program, spec = self._compiled_actor, self.observation_spec
        return lambda x: program(like(spec, x))

    def _over_batch(self, observations: Any, function: Any) -> Any:
        """`function` on (M, …), its results given the batch axes that came."""
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

    def _batched(self, observation: Any) -> tuple[Any, bool]:
        """Observations with a batch axis, in the dtypes in which they are stored; and whether it was only one."""
        x = like(self.observation_spec, observation)
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
        """Actions for `env.step`."""
        choose = self.distribution.mode if greedy else lambda p: self.distribution.sample(p, self._generator)
        actions = self.distribution.to_environment(choose(parameters)[0])
        return map_arrays(lambda array: array[0], actions) if single else actions

    def _head_shapes(self) -> dict[str, tuple[int, ...]]:
        raw = self.network(self.preparation(self._seen(self.zeros(2))))
        return {name: tuple(head.shape[1:]) for name, head in _heads(raw).items()}

    def _forward(self, observations: Any) -> dict[str, Any]:
        x = self.preparation(self._seen(observations))
        heads = _heads(self.network(x, training=False))
        if self.value_network is not None:
            heads["value"] = self.value_network(x, training=False)
        return self._meant(heads, observations)

    def _meant(self, heads: dict[str, Any], observations: Any) -> dict[str, Any]:
        """The network's numbers (M, …) as the distribution's parameters and a value (M,)."""
        output = heads["policy"]
        if not self.from_logits:
            output = tf.math.log(tf.maximum(output, np.finfo(np.float32).tiny))
        if self.masked:
            output = tf.where(tf.cast(observations[MASK], tf.bool), output, IMPOSSIBLE)
        log_std = None
        if self.log_std is not None:  # one row for each observation
            log_std = tf.convert_to_tensor(self.log_std.value)
            log_std = tf.broadcast_to(log_std, tf.concat([tf.shape(output)[:1], tf.shape(log_std)], axis=0))
        heads["policy"] = self.distribution.assemble(output, log_std)
        if "value" in heads:
            heads["value"] = tf.reshape(heads["value"], (-1,))
        return heads

    def _value(self, observations: Any) -> tf.Tensor:
        if self.value_network is None:
            return self._forward(observations)["value"]
        x = self.preparation(self._seen(observations))
        return tf.reshape(self.value_network(x, training=False), (-1,))

    def _following(self, rollout: Rollout, value: tf.Tensor, cut: tf.Tensor | None = None) -> tf.Tensor:
        """Values (T, N) of true successors, where at most one step of each column before the last is cut, bool (T − 1, N).

        Args:
            rollout: T steps in N columns.
            value: of its states, (T, N).
            cut: none: no step is.
        """
        at_end = tf.nest.map_structure(lambda x: tf.convert_to_tensor(x)[-1], rollout.final_observations)
        if cut is None:
            return tf.concat([value[1:], self.value(at_end)[None]], axis=0)
        row = tf.argmax(cut, axis=0, output_type=tf.int32)
        places = tf.stack([row, tf.range(tf.shape(row)[0])], axis=-1)
        looked_at = tf.nest.map_structure(
            lambda x, last: tf.stack([tf.gather_nd(x, places), last]), rollout.final_observations, at_end
        )
        at_cut, at_end = tf.unstack(self.value(looked_at), num=2)
        return tf.concat([tf.where(cut, at_cut, value[1:]), at_end[None]], axis=0)

    def _seen(self, observations: Any) -> Any:
        return seen.without_mask(observations) if self.masked else observations


def zeros(specs: Any, leading: tuple[int, ...]) -> Any:
    """NumPy zeros for a tree of `tf.TensorSpec`s, whose first axis `leading` replaces."""
    return tf.nest.map_structure(lambda spec: np.zeros((*leading, *spec.shape[1:]), spec.dtype.as_numpy_dtype), specs)


def _heads(raw: Any) -> dict[str, Any]:
    """What a network says, by name; a network that says one thing gives the policy."""
    return dict(raw) if isinstance(raw, dict) else {"policy": raw}


def like(specs: Any, observations: Any) -> Any:
    """A tree of arrays in the dtypes of the specs."""
    return map_arrays(lambda spec, x: np.asarray(x).astype(spec.dtype.as_numpy_dtype, copy=False), specs, observations)
