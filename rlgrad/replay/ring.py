"""The ring: the last steps of every environment, in variables that compiled programs write and draw from.

Each slot has rows. A row is a step, or, wherever an episode ends, the last observation of that episode alone. So row i + 1 of a
slot holds the true successor of row i, observations are stored once, n-step returns walk along rows, and both ends stay apart:

    row        0     1     2     3     4     5            s₃ ended its episode, and s₅ is the newest step:
    holds      s₁    s₂    s₃    end   s₄    s₅  (s₆)     the row after it holds its successor until s₆ is written there

Rows of all slots are numbered slot · rows + row. One more row takes what is written nowhere: steps whose mask is 0.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from rlgrad import random
from rlgrad.core import capacity
from rlgrad.core.checks import require
from rlgrad.data import Rollout
from rlgrad.replay.priorities import Priorities, sizes
from rlgrad.replay.records import Replay

_STEP, _TERMINATED, _CUT = 1, 2, 4  # flags of a row; 0: an observation alone, or nothing
_LEAST_PRIORITY = 1e-6


class Drawn(NamedTuple):
    """Steps drawn from a ring, M of them, with what followed each.

    Attributes:
        observations: (M, …), before each action, as stored. An array or a tree of arrays.
        actions: (M, …), as sampled.
        log_probs: float32 (M,), log π(a|s) in nats when the action was taken.
        rewards: float32 (M,), Σ_{k<m} γᵏ r_k over the m ≤ n_steps steps that were added up, in the environment's units.
        discounts: float32 (M,), γᵐ; 0 where the task ended, not where the episode was cut.
        next_observations: (M, …), the true successor of the last step that was added up.
        weights: float32 (M,), 1 / M each, or importance weights divided by their greatest, times 1 / M.
        seeds: int32 (M, 2), of each row's own random numbers.
        rows: int32 (M,), where the steps are, for `Ring.reprioritize`.
    """

    observations: Any
    actions: Any
    log_probs: Any
    rewards: Any
    discounts: Any
    next_observations: Any
    weights: Any
    seeds: Any
    rows: Any


class Ring:
    """The last steps of N slots, from which batches are drawn.

    All methods work inside a program that XLA compiles, and outside of one. Only `reprioritize` and `write` change anything.

    Args:
        settings: how much is kept, and how it is drawn.
        observation_spec: a tree of `tf.TensorSpec`s (None, …), as observations are stored.
        action_spec: likewise, of actions.
        num_envs: N.
        steps: T, rows of one rollout.
        gamma: discount per step.

    Attributes:
        settings: as given.
        num_envs: N.
        rows: of each slot.
        variables: all that a checkpoint keeps, always in the same order.

    Raises:
        ValueError: the ring does not fit into memory, or is too small for a rollout.
    """

    def __init__(
        self, settings: Replay, observation_spec: Any, action_spec: Any, num_envs: int, *, steps: int, gamma: float
    ) -> None:
        require_room(settings, observation_spec, action_spec, num_envs)
        self.settings, self.num_envs, self.rows = settings, num_envs, _rows(settings, num_envs)
        if self.rows <= 2 * steps + 1:
            raise ValueError(
                f"replay.capacity is at least {(2 * steps + 2) * num_envs:,}, for rollouts of {steps:,} steps in {num_envs:,} "
                f"environments; got {settings.capacity:,}: raise it, or lower num_steps."
            )
        self._gamma = gamma
        specs = {"observations": observation_spec, "actions": action_spec} | _NUMBERS
        total = num_envs * self.rows + 1
        self._stored = tf.nest.map_structure(lambda spec: _variable((total, *spec.shape[1:]), spec.dtype), specs)
        self._moved = _variable((num_envs,), tf.int64)  # rows ever written; the next step's row, counted around
        self._held = _variable((num_envs,), tf.int32)
        self._written = _variable((num_envs,), tf.int64)
        if settings.prioritized:
            self._priorities = Priorities(total)
            self._largest = tf.Variable(1.0, trainable=False)  # of the weights so far
        else:
            self._row_of_step = _variable((total,), tf.int32)

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables, always in the same order."""
        order = [self._priorities.levels, self._largest] if self.settings.prioritized else [self._row_of_step]
        return list(tf.nest.flatten([self._stored, self._moved, self._held, self._written, *order]))

    @property
    def columns(self) -> dict[str, tf.Variable]:
        """The variables (rows of all slots, …), by name: what a row holds."""
        return {f"{name}/{i}": v for name, tree in self._stored.items() for i, v in enumerate(tf.nest.flatten(tree))}

    @property
    def counters(self) -> dict[str, tf.Variable]:
        """The variables (N,) that say where each slot stands, and those of priorities: they change everywhere at once."""
        found = {"moved": self._moved, "held": self._held, "written": self._written}
        if self.settings.prioritized:
            levels = {f"weights/{i}": level for i, level in enumerate(self._priorities.levels)}
            found |= {"largest": self._largest, **levels}
        return found

    def clear(self) -> None:
        """Forget all steps."""
        for variable in [self._stored["flags"], *self.counters.values()]:
            variable.assign(tf.zeros_like(variable))
        if self.settings.prioritized:
            self._largest.assign(1.0)

    def order_rows(self) -> bool:
        """Find the held steps among the rows again, after `columns` and `counters` were assigned. False: they are not there."""
        flags = self._stored["flags"].numpy()[:-1].reshape(self.num_envs, self.rows)
        rows_of_steps = np.zeros(self.num_envs * self.rows + 1, np.int32)
        for slot, (moved, held, written) in enumerate(
            zip(self._moved.numpy(), self._held.numpy(), self._written.numpy(), strict=True)
        ):
            newest_first = (moved - 1 - np.arange(self.rows)) % self.rows
            steps = newest_first[flags[slot, newest_first] > 0]
            if len(steps) != held:
                return False
            rows_of_steps[slot * self.rows + (written - 1 - np.arange(held)) % self.rows] = steps
        if self.settings.prioritized:
            weights = self._priorities.levels[0].numpy()[: flags.size]
            return bool(((weights > 0) == (flags.reshape(-1) > 0)).all())
        self._row_of_step.assign(rows_of_steps)
        return True

    @property
    def num_bytes(self) -> int:
        """The bytes of all variables."""
        return sum(int(v.dtype.size) * math.prod(v.shape) for v in self.variables)

    @property
    def steps(self) -> Any:
        """The number of steps ever written, int64 ()."""
        return tf.reduce_sum(self._written)

    @property
    def held(self) -> Any:
        """The number of steps held, from which `draw` draws, int32 ()."""
        return tf.reduce_sum(self._held)

    def write(self, rollout: Rollout) -> None:
        """Write a rollout of tensors (T, N, …) over the oldest steps. Rows whose mask is 0 are left out.

        A step that did not end its episode counts as cut if such rows follow it, or an observation that is not its successor:
        a collector may have begun an episode anew between two rollouts.

        Raises:
            ValueError: the rollout has other shapes than the ring was made for.
        """
        valid = rollout.mask > 0
        steps, slots = self._shape(rollout)
        ended = (rollout.terminations | rollout.truncations) & valid
        followed = tf.concat([valid[1:], tf.ones((1, slots), tf.bool)], axis=0)
        cut = valid & ~ended & ~followed
        closing = ended | cut
        cut_before = self._cut_before(rollout, valid)
        begin = self._at + cut_before
        shift = tf.cumsum(tf.cast(valid, tf.int32) + tf.cast(closing, tf.int32), axis=0, exclusive=True)
        row = (begin + shift) % self.rows
        here, after = self._number(row, valid), self._number((row + 1) % self.rows, valid)
        moved = tf.reduce_sum(tf.cast(valid, tf.int32) + tf.cast(closing, tf.int32), axis=0)
        last_is_open = tf.reduce_any(valid, axis=0) & ~_last(closing, valid)
        lost = self._steps_in(begin, moved + tf.cast(last_is_open, tf.int32), 2 * steps + 1)
        truncated = (rollout.truncations & valid) | cut
        flags = _STEP * tf.cast(valid, tf.uint8)
        flags += _TERMINATED * tf.cast(rollout.terminations & valid, tf.uint8) + _CUT * tf.cast(truncated, tf.uint8)
        # Successors first: where the episode goes on, the next step is then written over its own observation.
        self._put(after, {"observations": rollout.final_observations, "flags": tf.zeros_like(flags)})
        own = {name: getattr(rollout, name) for name in ("observations", "actions", "log_probs", "rewards")}
        self._put(here, own | {"flags": flags})
        self._order(here, after, row, valid)
        gained = tf.reduce_sum(tf.cast(valid, tf.int32), axis=0)
        self._moved.assign_add(tf.cast(cut_before + moved, tf.int64))
        self._held.assign_add(gained - lost)
        self._written.assign_add(tf.cast(gained, tf.int64))

    def draw(self, seed: Any, count: int, progress: Any = 0.0) -> Drawn:
        """Draw steps with replacement: uniformly from those held, or by priority.

        If nothing is held, the steps are of no meaning, and their weights are 0.

        Args:
            seed: int32 (2,).
            count: M.
            progress: share of training already done, 0 … 1, by which the power of the importance weights rises to 1.
        """
        to_place, to_rows = tf.unstack(random.split(seed, 2))
        some = self.held > 0
        if self.settings.prioritized:
            number = self._priorities.draw(to_place, count)
            number = tf.minimum(number, self.num_envs * self.rows)
            weights = self._importance(number, progress)
        else:
            number, weights = self._uniform(to_place, count), tf.ones((count,))
        rewards, discounts, last = self._walk(number)
        taken = {name: self._take(name, number) for name in ("observations", "actions", "log_probs")}
        return Drawn(
            **taken,
            rewards=rewards,
            discounts=discounts,
            next_observations=self._take("observations", last),
            weights=tf.where(some, weights / count, 0.0),
            seeds=random.split(to_rows, count),
            rows=number,
        )

    def reprioritize(self, rows: Any, priorities: Any) -> None:
        """Give steps other priorities. New steps have the largest that there was so far.

        Args:
            rows: int32 (M,), from `draw`. Steps that are no longer held are left out.
            priorities: float32 (M,), ≥ 0, to which 1e-6 is added: no step is lost. Of a step that comes twice, the greatest
                counts; one that is not finite changes nothing.
        """
        if not self.settings.prioritized:
            raise ValueError("Priorities are for a replay with prioritized=True.")
        weights = (tf.cast(priorities, tf.float32) + _LEAST_PRIORITY) ** self.settings.priority_exponent
        is_step = tf.gather(self._stored["flags"], rows) > 0
        counts = is_step & tf.math.is_finite(weights)
        rows = tf.where(counts, rows, self.num_envs * self.rows)
        weights = tf.where(counts, weights, 0.0)
        self._priorities.set(rows, weights)
        self._largest.assign(tf.maximum(self._largest, tf.reduce_max(weights)))

    @property
    def _at(self) -> Any:
        """The rows of the next steps, int32 (N,)."""
        return tf.cast(self._moved % self.rows, tf.int32)

    def _shape(self, rollout: Rollout) -> tuple[int, int]:
        """Return T and N of a rollout that the ring can take."""
        steps, slots = rollout.mask.shape
        if slots != self.num_envs or self.rows <= 2 * steps + 1:
            raise ValueError(
                f"This replay takes rollouts of at most {(self.rows - 2) // 2} steps in {self.num_envs} environments, got "
                f"{steps} steps in {slots}."
            )
        for name in ("observations", "actions", "log_probs", "rewards"):
            for stored, given in zip(
                tf.nest.flatten(self._stored[name]), tf.nest.flatten(getattr(rollout, name)), strict=True
            ):
                expected, got = (
                    (stored.dtype.name, *stored.shape[1:]),
                    (tf.as_dtype(given.dtype).name, *given.shape[2:]),
                )
                require(expected == got, name, f"{expected} in this replay", got)
        return steps, slots

    def _number(self, row: Any, valid: Any) -> Any:
        """Return the numbers of rows, int32 (T, N), over all slots; of those that are not valid, that of the spare row."""
        return tf.where(valid, tf.range(self.num_envs) * self.rows + row, self.num_envs * self.rows)

    def _cut_before(self, rollout: Rollout, valid: Any) -> Any:
        """Return 1 for each slot whose steps do not continue those before, int32 (N,), and flag the last of those as cut."""
        slots = tf.range(self.num_envs)
        before = slots * self.rows + (self._at - 1) % self.rows
        flags = tf.gather(self._stored["flags"], before)
        first = tf.argmax(valid, axis=0, output_type=tf.int32)
        same = tf.ones((self.num_envs,), tf.bool)
        expected = self._take("observations", slots * self.rows + self._at)
        for old, new in zip(tf.nest.flatten(expected), tf.nest.flatten(rollout.observations), strict=True):
            equal = old == _rows_of(tf.convert_to_tensor(new), first)
            same &= tf.reduce_all(tf.reshape(equal, (self.num_envs, -1)), axis=1)
        broken = tf.reduce_any(valid, axis=0) & (flags == _STEP) & ~same
        spare = self.num_envs * self.rows
        self._put(tf.where(broken, before, spare), {"flags": flags | _CUT})
        return tf.cast(broken, tf.int32)

    def _steps_in(self, begin: Any, count: Any, most: int) -> Any:
        """Return how many steps are in so many rows of each slot, int32 (N,)."""
        offset = tf.range(most)[:, None]
        flags = tf.gather(self._stored["flags"], tf.range(self.num_envs) * self.rows + (begin + offset) % self.rows)
        return tf.reduce_sum(tf.cast((offset < count) & (flags > 0), tf.int32), axis=0)

    def _order(self, here: Any, after: Any, row: Any, valid: Any) -> None:
        """Let new steps be drawn."""
        here, after, is_step = (tf.reshape(x, (-1,)) for x in (here, after, valid))
        if self.settings.prioritized:
            weights = tf.where(is_step, self._largest, 0.0)
            self._priorities.set(tf.concat([after, here], axis=0), tf.concat([tf.zeros(after.shape), weights], axis=0))
            return
        number = self._written + tf.cumsum(tf.cast(valid, tf.int64), axis=0, exclusive=True)
        place = self._number(tf.cast(number % self.rows, tf.int32), valid)
        self._row_of_step.scatter_update(tf.IndexedSlices(tf.reshape(row, (-1,)), tf.reshape(place, (-1,))))

    def _uniform(self, seed: Any, count: int) -> Any:
        """Return the numbers of rows of steps, int32 (count,), each as likely as any other."""
        words = tf.cast(random.bits(seed, 2 * count), tf.int64)
        numbers = (words[:count] % 2**30) * 2**32 + words[count:]  # of 62 bits
        until = tf.cumsum(tf.cast(self._held, tf.int64))
        place = numbers % tf.maximum(until[-1], 1)
        slot = tf.minimum(tf.searchsorted(until, place, side="right"), self.num_envs - 1)
        back = tf.gather(until, slot) - place  # 1: the newest
        step = (tf.gather(self._written, slot) - back) % self.rows
        first = slot * self.rows
        return first + tf.gather(self._row_of_step, first + tf.cast(step, tf.int32))

    def _importance(self, number: Any, progress: Any) -> Any:
        """Return (held · p)^−β of rows of probability p, divided by the greatest."""
        least = self.settings.importance_exponent
        power = least + (1.0 - least) * tf.cast(progress, tf.float32)
        weights = tf.maximum(self._priorities.weights(number), 1e-30)  # 0 only where nothing is held
        return (weights / tf.reduce_min(weights)) ** -power

    def _walk(self, number: Any) -> tuple[Any, Any, Any]:
        """Return the rewards that are added up from each row, the discounts, and the numbers of the rows of the successors."""
        base, row = number // self.rows * self.rows, number % self.rows
        along = base[:, None] + (row[:, None] + tf.range(self.settings.n_steps)) % self.rows
        along = tf.minimum(along, self.num_envs * self.rows)
        flags, rewards = tf.gather(self._stored["flags"], along), tf.gather(self._stored["rewards"], along)
        goes_on = tf.cast(flags[:, :-1] == _STEP, tf.int32)
        is_step = tf.cast(flags > 0, tf.int32)
        reached = tf.math.cumprod(tf.concat([tf.ones_like(is_step[:, :1]), goes_on], axis=1), axis=1) * is_step
        powers = np.float64(self._gamma) ** np.arange(self.settings.n_steps + 1)
        powers = tf.constant(powers.astype(np.float32))
        total = tf.reduce_sum(tf.where(reached > 0, powers[:-1] * rewards, 0.0), axis=1)
        length = tf.reduce_sum(reached, axis=1)
        last = tf.gather(flags, tf.maximum(length - 1, 0), batch_dims=1)
        discounts = tf.where(last & _TERMINATED > 0, 0.0, tf.gather(powers, length))
        return total, discounts, base + (row + length) % self.rows

    def _put(self, numbers: Any, values: Any) -> None:
        """Write leading axes of values, by name, to the rows of these numbers."""
        indices = tf.reshape(numbers, (-1,))
        for name, tree in values.items():
            for variable, x in zip(tf.nest.flatten(self._stored[name]), tf.nest.flatten(tree), strict=True):
                rows = tf.reshape(x, (-1, *variable.shape[1:]))
                variable.scatter_update(tf.IndexedSlices(rows, indices))

    def _take(self, name: str, numbers: Any) -> Any:
        return tf.nest.map_structure(lambda variable: tf.gather(variable, numbers), self._stored[name])


_NUMBERS = {
    "log_probs": tf.TensorSpec((None,), tf.float32),
    "rewards": tf.TensorSpec((None,), tf.float32),
    "flags": tf.TensorSpec((None,), tf.uint8),
}


def size_of(settings: Replay, observation_spec: Any, action_spec: Any, num_envs: int) -> int:
    """Return the bytes of a ring, without making it. The arguments are those of `Ring`."""
    total = num_envs * _rows(settings, num_envs) + 1
    specs = tf.nest.flatten([observation_spec, action_spec, _NUMBERS])
    stored = sum(int(spec.dtype.size) * math.prod(spec.shape[1:]) for spec in specs)
    order = 4 * sum(sizes(total)) + 4 if settings.prioritized else 4 * total
    return int(total * stored + 20 * num_envs + order)


def require_room(settings: Replay, observation_spec: Any, action_spec: Any, num_envs: int) -> None:
    """Raise a ValueError for a ring that is larger than the memory. The arguments are those of `Ring`."""
    size = size_of(settings, observation_spec, action_spec, num_envs)
    capacity.require_room(size, f"A replay of {settings.capacity:,} steps takes", "lower replay.capacity")


def _rows(settings: Replay, num_envs: int) -> int:
    """Return the rows of each slot."""
    return -(-settings.capacity // num_envs)


def _variable(shape: tuple[int, ...], dtype: Any) -> tf.Variable:
    return tf.Variable(tf.zeros(shape, dtype), trainable=False)


def _rows_of(x: Any, rows: Any) -> Any:
    """Return one row of each column of a tensor (T, N, …), given by rows (N,): (N, …)."""
    columns = tf.range(x.shape[1])
    flat = tf.reshape(x, (-1, *x.shape[2:]))
    return tf.gather(flat, rows * x.shape[1] + columns)


def _last(values: Any, valid: Any) -> Any:
    """Return the value of the last valid row of each column, bool (N,), False where there is none."""
    place = tf.where(valid, tf.range(valid.shape[0])[:, None], -1)
    return tf.reduce_any(values & (place == tf.reduce_max(place, axis=0)) & valid, axis=0)
