"""Many updates in one compiled call: each plays a rollout in environments written in TensorFlow, and learns from it."""

import logging
import time
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from rlgrad import random
from rlgrad.core.nested import leaves, map_leaves, with_leaves
from rlgrad.core.tensorflow_internals import trace
from rlgrad.learning.learner import Learner
from rlgrad.learning.xla import with_fallback
from rlgrad.rollouts.base import Fusible
from rlgrad.rollouts.compiled_rows import row_specs
from rlgrad.rollouts.soundness import require_sound

_log = logging.getLogger("rlgrad")


class UpdateResult(NamedTuple):
    """One update.

    Attributes:
        metrics: as `Learner.learn` returns them.
        timesteps: environment steps of its rollout.
    """

    metrics: dict[str, float]
    timesteps: int


class Fused:
    """Rollout, estimate, credit, gradient and update as one XLA program, which makes many updates before it returns to Python.

    Each update is the one that `collector.collect` and `learner.learn` would make, to rounding.

    Args:
        collector: has the slots to play in.
        learner: has the policy that plays.
        size: the most updates in one call.
    """

    def __init__(self, collector: Fusible, learner: Learner, size: int) -> None:
        self._collector, self._learner, self._size = collector, learner, size
        self._slots = collector.slots(learner.policy)
        self._compiled: Any = None

    def advance(self, count: int, timesteps: int, total: int, shuffles: np.ndarray) -> list[UpdateResult]:
        """Make some updates.

        Args:
            count: the most updates; `size` and `total` can end them earlier.
            timesteps: environment steps taken so far.
            total: environment steps of the whole run; no update begins that could exceed them.
            shuffles: seeds for shuffles, int32 (≥ count, 2).

        Raises:
            NonFiniteError: a gradient was not finite; names output, variable and step.
            FloatingPointError: a reward or an observation was not finite; names slot and step.
            OutputFault: an observation was outside its space, or a mask forbade every action; names slot and step.
        """
        count, collector = min(count, self._size), self._collector
        padded = np.concatenate([shuffles[:count], np.zeros((self._size - count, 2), np.int32)])
        numbers = np.int32(count), np.int64(timesteps), np.int64(total), np.int32(collector.number)
        results = self._run(*numbers, collector.seed, padded)
        made, rollout = int(results.made), results.rollout
        self._collector.advance(made, tf.nest.map_structure(lambda x: x.numpy()[:made], results.ends))
        names, measured, steps = self._learner.metrics, results.measured.numpy(), results.steps.numpy()
        updates = [
            UpdateResult(dict(zip(names, measured[i, :-1].tolist(), strict=True)), int(steps[i])) for i in range(made)
        ]
        bad = int(measured[made - 1, -1])
        if bad >= 0:
            arrays = map_leaves(lambda x: x.numpy(), rollout)
            require_sound(arrays, collector.observation_space, collector.shape[1] // collector.num_envs)
            progress = min(1.0, (timesteps + sum(update.timesteps for update in updates[:-1])) / total)
            raise self._learner.failure(rollout, progress, bad, shuffles[made - 1])
        return updates

    def _run(self, *arguments: Any) -> "_Results":
        if self._compiled is not None:
            again: _Results = self._compiled(*map(tf.constant, arguments))
            return again
        _log.info("Compiling rollout and update into one program …")
        begun = time.perf_counter()
        results = with_fallback(lambda _: self._first(*arguments), self._collector.xla, self._give_up_xla)
        _log.info("Compiled, and made the first updates, in %.1f s.", time.perf_counter() - begun)
        return results

    def _give_up_xla(self) -> None:
        self._collector.xla = False
        self._learner.give_up_xla()

    def _first(self, *arguments: Any) -> "_Results":
        self._learner.prepare()
        # If the learner does not gain from XLA, the rollout inside is compiled all the same.
        tensors = [tf.constant(x) for x in arguments]
        compiled = trace(self._program, *tensors, jit_compile=self._learner.xla or None)
        results: _Results = compiled(*tensors)
        self._compiled = compiled
        return results

    def _program(self, count: Any, timesteps: Any, total: Any, number: Any, seed: Any, shuffles: Any) -> "_Results":
        collector, learner, size = self._collector, self._learner, self._size
        policy, variables = learner.policy, self._slots
        shape = collector.shape
        specs = row_specs(policy, shape[1])
        rows = map_leaves(lambda spec: tf.TensorSpec((shape[0], *spec.shape), spec.dtype), specs)
        last = map_leaves(lambda spec: tf.zeros(spec.shape, spec.dtype), rows.rollout)
        ends = [tf.TensorArray(spec.dtype, size, element_shape=spec.shape) for spec in rows.ends]
        measured = tf.TensorArray(tf.float32, size, element_shape=(len(learner.metrics) + 1,))
        steps = tf.TensorArray(tf.int32, size, element_shape=())

        def body(i: Any, good: Any, taken: Any, slots: Any, last: Any, *arrays: Any) -> tuple[Any, ...]:
            measured, steps, ends = arrays
            progress = tf.minimum(tf.cast(taken / total, tf.float32), 1.0)
            acting = learner.acting(progress, taken)
            rollout, slots, ended = collector.play(acting, slots, random.fold_in(seed, number + i))
            numbers = learner.move(rollout, progress, shuffles[i])
            if learner.stream is not None:
                learner.stream.count_first(slots.observations)
            played = tf.cast(tf.reduce_sum(rollout.mask), tf.int32)
            arrays = (
                measured.write(i, numbers),
                steps.write(i, played),
                [array.write(i, x) for array, x in zip(ends, ended, strict=True)],
            )
            good = numbers[-1] < 0
            return i + 1, good, taken + tf.cast(played, tf.int64), slots, leaves(rollout), *arrays

        def continues(i: Any, good: Any, taken: Any, *_: Any) -> Any:
            return good & (i < count) & (taken + needed <= total)

        needed = collector.max_rollout_steps if learner.agent.num_steps is not None else 1
        slots = tf.nest.map_structure(tf.identity, variables)
        if learner.stream is not None:
            learner.stream.count_first(slots.observations)
        memories = policy.initial_state(shape[1])
        last = last._replace(initial_states=tf.nest.map_structure(tf.convert_to_tensor, memories))
        start = (tf.constant(0), tf.constant(True), timesteps, slots, leaves(last), measured, steps, ends)
        made, _, _, slots, played, measured, steps, ends = tf.while_loop(continues, body, start)
        tf.nest.map_structure(lambda variable, x: variable.assign(x), variables, slots)
        return _Results(
            made,
            measured.stack(),
            steps.stack(),
            type(rows.ends)(*[e.stack() for e in ends]),
            with_leaves(last, played),
        )


class _Results(NamedTuple):
    made: Any
    measured: Any
    steps: Any
    ends: Any
    rollout: Any
