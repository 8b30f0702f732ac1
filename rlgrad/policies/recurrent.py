"""Policies with memory: a state carries what they observed of an episode from one step to the next.

Their networks make one step, as a Keras model with explicit state:

    {"observation": x_t, "state": h_t-1}  →  {"policy": …, "value": …, "state": h_t}

A batch row is a sequence: the steps of one environment slot in a rollout, with the state before the first step. Gradients go
back through the whole sequence; the initial state is a constant. Where an episode begins inside the sequence, the state is set
to zero, so that nothing crosses the border, forwards or backwards.

So one sample of `per_sample_gradient`, `gram` and the like is a sequence: the gradient of the sum over its steps. A number for
each step, such as a log-probability, has the shape (N, T), and so has its credit.

Source: Hausknecht & Stone (2015), "Deep recurrent Q-learning"; stored states after Kapturowski et al. (2019), section 3.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlgrad.data import Rollout
from rlgrad.gradients import through_time
from rlgrad.policies import actors
from rlgrad.policies.networks import STATE
from rlgrad.policies.observations import like, zeros
from rlgrad.policies.policy import Policy
from rlgrad.spaces.masks import OBSERVATION
from rlgrad.spaces.trees import map_arrays

BEGINS = "begins"


class RecurrentPolicy(Policy):
    """A policy with memory. It is called with sequences, and its outputs have the axes (N, T, …).

    A batch of sequences is `{"observation": (N, T, …), "begins": bool (N, T), "state": (N, …)}`: observations, where an episode
    begins, and the state before the first step. `inputs` makes it from a rollout.

    Args:
        network: one step, `{"observation": (N, …), "state": (N, …)}` to `{"policy": …, "state": …}`, with `"value"` if it
            estimates the value too.
        value_network: likewise, to `{"value": (N, 1), "state": …}`; or without memory, observation to (N, 1).

    The other arguments are those of `Policy`.
    """

    def __init__(self, network: keras.Model, *arguments: Any, value_network: Any = None, **options: Any) -> None:
        self._recurrent_networks = {"policy": network}
        if value_network is not None and has_memory(value_network):
            self._recurrent_networks["value"] = value_network
        super().__init__(network, *arguments, value_network=value_network, **options)

    def initial_state(self, count: int) -> Any:
        """Return the state at the beginning of `count` episodes: a tree of zeros, (count, …)."""
        return {name: zeros(state_spec(network), (count,)) for name, network in self._recurrent_networks.items()}

    def zeros(self, count: int) -> Any:
        """Return inputs of `count` sequences of one step, as NumPy arrays of zeros."""
        observations, begins = zeros(self.observation_spec, (count, 1)), np.zeros((count, 1), np.bool_)
        return {OBSERVATION: observations, BEGINS: begins, STATE: self.initial_state(count)}

    def zero_actions(self, count: int) -> Any:
        """Return actions that fit `zeros`."""
        return zeros(self.action_spec, (count, 1))

    def inputs(self, rollout: Rollout) -> Any:
        """Return the sequences of a rollout."""
        ends = tf.convert_to_tensor(rollout.terminations) | tf.convert_to_tensor(rollout.truncations)
        # After the last step of an episode, or after the step that only resets, whatever the environments do.
        begins = tf.roll(ends | (tf.convert_to_tensor(rollout.mask) == 0.0), 1, axis=0)
        begins &= tf.range(tf.shape(begins)[0])[:, None] > 0  # where one begins at the first step, its state is zero
        observations = tf.nest.map_structure(self.rows, rollout.observations)
        return {OBSERVATION: observations, BEGINS: self.rows(begins), STATE: rollout.initial_states}

    def rows(self, x: Any) -> tf.Tensor:
        """Return numbers of the steps of a rollout, (T, N, …), as sequences: (N, T, …)."""
        return _swap(x)

    def call(self, observations: Any, training: bool = False) -> dict[str, Any]:
        """Return distribution parameters and value of sequences, each (N, T, …)."""
        if training:
            raise NotImplementedError("A policy with memory runs as at inference alone: leave training=True out.")
        x = self._prepare(observations)
        heads, _ = self._scan("policy", x, observations)
        if self.value_network is not None:
            heads["value"] = self._values_and_states(x, observations)[0]
        steps = observations[BEGINS].shape[1]
        flat = self._assemble(
            tf.nest.map_structure(_flat, heads), tf.nest.map_structure(_flat, observations[OBSERVATION])
        )
        shaped: dict[str, Any] = tf.nest.map_structure(lambda y: _unflat(y, steps), flat)
        return shaped

    def value(self, observations: Any) -> tf.Tensor:
        """Return values v(s) of the states of sequences, float (N, T)."""
        return self._values_and_states(self._prepare(observations), observations)[0]

    def values(self, rollout: Rollout, value: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Return values v(s) of the states of a rollout and of their true successors, each float (T, N).

        Args:
            rollout: T steps in N columns.
            value: not used: successors need the states of the memory, which values do not tell.
        """
        sequences = self.inputs(rollout)
        value, states = self._values_and_states(self._prepare(sequences), sequences)
        # The successor of each step, with the memory after that step.
        successors = {**sequences, OBSERVATION: tf.nest.map_structure(self.rows, rollout.final_observations)}
        x = tf.nest.map_structure(_flat, self._prepare(successors))
        network = self.network if self.value_network is None else self.value_network
        if has_memory(network):
            heads = one_step(network, x, tf.nest.map_structure(_flat, states))[0]
            following = self._value_of(heads, tf.nest.map_structure(_flat, successors[OBSERVATION]))
        else:
            following = network(x, training=False)
        return self.rows(value), self.rows(_unflat(tf.reshape(following, (-1,)), value.shape[1]))

    def normalize(self, inputs: Any, mask: tf.Tensor) -> None:
        """Merge the observations of sequences into the normalizers' statistics, if there are any."""
        super().normalize(tf.nest.map_structure(_flat, inputs[OBSERVATION]), _flat(mask))

    def act(self, observation: Any, *, greedy: bool = False, state: Any = None) -> Any:
        """Choose an action, and return it with the next state of the memory.

        Args:
            observation: one observation, or a batch with one leading axis.
            greedy: take the most likely action, instead of a sample.
            state: from the call of the step before; `None`: an episode begins.

        Returns:
            An action for `env.step` and the state for the next step, or a batch of each.

        Raises:
            ValueError: the observation has another shape, or a mask that forbids every action.
        """
        x, single = self._batched(observation)
        if state is None:
            state = self.initial_state(len(tf.nest.flatten(x)[0]))
        elif single:
            state = map_arrays(lambda array: array[None], state)
        parameters, state = self.actor()(x, state)
        return self._chosen(parameters, greedy, single), map_arrays(lambda array: array[0], state) if single else state

    def player(self, *, greedy: bool = False) -> Callable[[Any], Any]:
        """Return a function that plays one episode: it takes one observation (or batch) after the other and returns actions."""
        state = None

        def play(observation: Any) -> Any:
            nonlocal state
            action, state = self.act(observation, greedy=greedy, state=state)
            return action

        return play

    def actor(self, packed: np.ndarray | None = None) -> Any:
        """Return a function from stored observations and states (N, …) to distribution parameters and next states, in NumPy."""
        if self._compiled_actor is None:
            state = {name: state_spec(network) for name, network in self._recurrent_networks.items()}
            self._compiled_actor = actors.compiled(self.step, self.observation_spec, state)
        program, spec = self._compiled_actor, self.observation_spec
        return lambda x, state: program(like(spec, x), state)

    def step(self, observations: Any, state: Any = ()) -> tuple[Any, Any]:
        """TensorFlow: return distribution parameters for observations and states (N, …), and the states after them."""
        x, after = self.preparation(self._network_part(observations)), {}
        for name, network in self._recurrent_networks.items():
            heads, after[name] = one_step(network, x, state[name])
            if name == "policy":
                parameters = self._assemble({"policy": heads["policy"]}, observations)["policy"]
        return parameters, after

    def _head_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(head.shape[1:]) for name, head in self.network.output.items() if name != STATE}

    def _prepare(self, sequences: Any) -> Any:
        """Return observations (N, T, …) as the networks take them."""
        flat = tf.nest.map_structure(_flat, sequences[OBSERVATION])
        steps = sequences[BEGINS].shape[1]
        return tf.nest.map_structure(lambda y: _unflat(y, steps), self.preparation(self._network_part(flat)))

    def _value_of(self, heads: dict[str, Any], observations: Any) -> Any:
        """Return the value in a network's outputs for stored observations, with one batch axis."""
        if self.says_action_values:
            return self._assemble({"policy": heads["policy"]}, observations)["value"]
        return heads["value"]

    def _scan(self, name: str, x: Any, sequences: Any) -> tuple[dict[str, Any], Any]:
        return scan(self._recurrent_networks[name], x, sequences[BEGINS], sequences[STATE][name])

    def _values_and_states(self, x: Any, sequences: Any) -> tuple[Any, Any]:
        """Return the value (N, T) of prepared observations, and the states after each step; `None` without memory."""
        states = None
        if self.value_network is None or "value" in self._recurrent_networks:
            heads, states = self._scan("policy" if self.value_network is None else "value", x, sequences)
            flat = tf.nest.map_structure(_flat, (heads, sequences[OBSERVATION]))
            value = self._value_of(*flat)
        else:
            value = self.value_network(tf.nest.map_structure(_flat, x), training=False)
        return tf.cast(tf.reshape(value, (-1, sequences[BEGINS].shape[1])), tf.float32), states


def has_memory(network: keras.Model) -> bool:
    """Return whether a model makes one step of a recurrence: it takes an observation and a state, and gives a state."""
    inputs, outputs = (getattr(network, name, None) for name in ("input", "output"))
    return (
        isinstance(inputs, dict)
        and set(inputs) == {OBSERVATION, STATE}
        and isinstance(outputs, dict)
        and STATE in outputs
    )


def state_spec(network: keras.Model) -> Any:
    """Return a tree of `tf.TensorSpec` of the state of a model with memory, (None, …)."""
    return _specs(network.input[STATE])


def one_step(network: keras.Model, x: Any, state: Any) -> tuple[dict[str, Any], Any]:
    """Return a network's outputs for observations (N, …), by name, and the state after them."""
    inputs = tf.nest.map_structure(tf.convert_to_tensor, {OBSERVATION: x, STATE: state})
    heads = dict(network(inputs, training=False))
    after = tf.nest.pack_sequence_as(state, tf.nest.flatten(heads.pop(STATE)))
    return heads, after


def scan(network: keras.Model, x: Any, begins: Any, state: Any) -> tuple[dict[str, Any], Any]:
    """Run a network of one step along sequences.

    Args:
        network: see `RecurrentPolicy`.
        x: observations (N, T, …) as it takes them, T known when traced.
        begins: bool (N, T), where the state is set to zero first.
        state: (N, …), before the first step.

    Returns:
        The network's outputs by name, and the states after each step; all (N, T, …).
    """
    if begins.shape[1] is None:
        raise ValueError(f"The number of steps of sequences must be known when traced; got shape {begins.shape}.")
    trained, others = network.trainable_variables, network.non_trainable_variables
    names = sorted(name for name in network.output if name != STATE)

    def step(theta: list[Any], inputs_t: list[Any], state: list[Any]) -> tuple[list[Any], list[Any]]:
        *leaves, first = inputs_t
        state = [tf.where(_beside(first, s), tf.zeros_like(s), s) for s in state]
        inputs = {OBSERVATION: tf.nest.pack_sequence_as(x, leaves), STATE: tf.nest.pack_sequence_as(tree, state)}
        outputs, _ = network.stateless_call(theta[: len(trained)], theta[len(trained) :], inputs, training=False)
        return [outputs[name] for name in names], tf.nest.flatten(outputs[STATE])

    tree, xs = state, [*tf.nest.flatten(x), begins]
    theta = [tf.convert_to_tensor(v.value) for v in (*trained, *others)]
    outputs, states = through_time.scan(step, theta, [_swap(leaf) for leaf in xs], tf.nest.flatten(state))
    heads = dict(zip(names, map(_swap, outputs), strict=True))
    return heads, tf.nest.pack_sequence_as(tree, [_swap(leaf) for leaf in states])


def _specs(tensors: Any) -> Any:
    return tf.nest.map_structure(lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), tensors)


def _flat(x: Any) -> tf.Tensor:
    """Reshape (N, T, …) to (N · T, …)."""
    return tf.reshape(x, (-1, *x.shape[2:]))


def _unflat(x: Any, steps: int) -> tf.Tensor:
    """Reshape (N · T, …) to (N, T, …)."""
    return tf.reshape(x, (-1, steps, *x.shape[1:]))


def _swap(x: Any) -> tf.Tensor:
    return tf.transpose(x, (1, 0, *range(2, len(x.shape))))


def _beside(flags: Any, x: Any) -> tf.Tensor:
    """Return flags (N,) with as many axes as x, (N, …)."""
    return tf.reshape(flags, (-1, *[1] * (len(x.shape) - 1)))
