"""The ring: the last steps of every environment, in variables that compiled programs write and draw from.

Each slot has rows. A row is a step, or, wherever an episode ends, the last observation of that episode alone. So row i + 1 of a
slot holds the true successor of row i, observations are stored once, n-step returns walk along rows, and both ends stay apart:

    row        0     1     2     3     4     5            s₃ ended its episode, and s₅ is the newest step:
    holds      s₁    s₂    s₃    end   s₄    s₅  (s₆)     the row after it holds its successor until s₆ is written there
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad import random
from rlgrad.core.nested import map_leaves
from rlgrad.data import Rollout
from rlgrad.replay.drawn import Drawn
from rlgrad.replay.priorities import Priorities
from rlgrad.replay.records import Replay
from rlgrad.replay.searching import last_where
from rlgrad.replay.store import NUMBERS, Store, first_of, last_of, require_room, rows_of, stacks_of, variable

_STEP, _TERMINATED, _CUT = 1, 2, 4  # flags of a row; 0: an observation alone, or nothing
_LEAST_PRIORITY, _MOST_WEIGHT = 1e-6, 1e28  # sums of 2³⁰ weights stay finite


class Ring:
    """The last steps of N slots, from which batches are drawn.

    `write`, `draw` and `reprioritize` work inside a program that XLA compiles, and outside of one; the other methods outside.

    Args:
        settings: how much is kept, and how it is drawn.
        observation_spec: a tree of `tf.TensorSpec` (None, …), as observations are stored.
        action_spec: likewise, of actions.
        num_envs: N.
        steps: T, rows of one rollout.
        gamma: discount per step.
        stacks: a tree like the observations: of a leaf that shows the last k frames along its first axis, k; else `None`. Of
            such a leaf a row holds the newest frame alone. `None`: there are no such leaves. See `require_stacks`.

    Attributes:
        settings: as given.
        num_envs: N.
        rows: of each slot.
        variables: all that a checkpoint keeps, always in the same order.

    Raises:
        ValueError: the ring does not fit into memory, or is too small for a rollout; or a leaf cannot be such a stack.
    """

    def __init__(
        self,
        settings: Replay,
        observation_spec: Any,
        action_spec: Any,
        num_envs: int,
        *,
        steps: int,
        gamma: float,
        stacks: Any = None,
    ) -> None:
        require_room(settings, observation_spec, action_spec, num_envs, stacks=stacks)
        self.settings, self.num_envs, self.rows = settings, num_envs, rows_of(settings, num_envs)
        specs = {"observations": observation_spec, "actions": action_spec} | NUMBERS
        if settings.hindsight:
            specs["episodes"] = tf.TensorSpec((None,), tf.int32)
            self._episode = variable((num_envs,), tf.int32)  # number of each slot's newest, counted from 1
        self._store = Store(specs, stacks_of(observation_spec, stacks), num_envs, self.rows)
        if self.rows < self._least(steps):
            least = (self._least(steps) - 1) * num_envs + 1
            raise ValueError(
                f"replay.capacity is at least {least:,}, for rollouts of {steps:,} steps in {num_envs:,} environments; got "
                f"{settings.capacity:,}: raise it, or lower num_steps."
            )
        self._gamma = gamma
        self._moved = variable((num_envs,), tf.int64)  # rows ever written; the next step's row, counted around
        self._held = variable((num_envs,), tf.int32)
        self._written = variable((num_envs,), tf.int64)
        if settings.prioritized:
            self._priorities = Priorities(num_envs * self.rows + 1)
            self._largest = tf.Variable(1.0, trainable=False)  # of the weights so far
        else:
            self._row_of_step = variable((num_envs * self.rows + 1,), tf.int32)

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables, always in the same order."""
        order = [self._priorities.levels, self._largest] if self.settings.prioritized else [self._row_of_step]
        order += [self._episode] if self.settings.hindsight else []
        counts = [self._store.faults, self._moved, self._held, self._written]
        return list(tf.nest.flatten([self._store.tree, counts, *order]))

    @property
    def columns(self) -> dict[str, tf.Variable]:
        """The variables (rows of all slots, …), by name: what a row holds."""
        return self._store.columns

    @property
    def counters(self) -> dict[str, tf.Variable]:
        """The variables (N,) that say where each slot stands, and those of priorities: they change everywhere at once."""
        found = {"moved": self._moved, "held": self._held, "written": self._written, "faults": self._store.faults}
        found |= {"episode": self._episode} if self.settings.hindsight else {}
        if self.settings.prioritized:
            levels = {f"weights/{i}": level for i, level in enumerate(self._priorities.levels)}
            found |= {"largest": self._largest, **levels}
        return found

    def clear(self) -> None:
        """Forget all steps."""
        numbered = [self._store.tree["episodes"]] if self.settings.hindsight else []
        for cleared in [self._flags, *numbered, *self.counters.values()]:
            cleared.assign(tf.zeros_like(cleared))
        if self.settings.prioritized:
            self._largest.assign(1.0)

    def order_rows(self) -> bool:
        """Find the held steps among the rows again, after `columns` and `counters` were assigned. False: they are not there."""
        flags = self._flags.numpy()[:-1].copy().reshape(self.num_envs, self.rows)
        places = np.zeros(self.num_envs * self.rows + 1, np.int32)
        counters = (self._moved.numpy(), self._held.numpy(), self._written.numpy())
        for slot, (moved, held, written) in enumerate(zip(*counters, strict=True)):
            is_open = flags[slot, (moved - 1) % self.rows] == _STEP
            flags[slot, (moved + is_open + np.arange(self._store.before)) % self.rows] = 0  # as `write` leaves them
            newest_first = (moved - 1 - np.arange(self.rows)) % self.rows
            steps = newest_first[flags[slot, newest_first] > 0]
            if len(steps) != held:
                return False
            places[slot * self.rows + (written - 1 - np.arange(held)) % self.rows] = steps
        self._flags.assign(np.append(flags.reshape(-1), np.uint8(0)))
        if self.settings.prioritized:
            weights = self._priorities.levels[0].numpy()[: flags.size]
            return bool(((weights > 0) == (flags.reshape(-1) > 0)).all())
        self._row_of_step.assign(places)
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
        """Write a rollout of arrays or tensors (T, N, …) over the oldest steps. Rows whose mask is 0 are left out.

        A step that did not end its episode counts as cut if such rows follow it, or an observation that is not its successor:
        a collector may have begun an episode anew between two rollouts.

        Raises:
            ValueError: the rollout has other shapes than the ring was made for.
        """
        rollout = map_leaves(tf.convert_to_tensor, rollout)
        values = {name: getattr(rollout, name) for name in ("observations", "actions", "log_probs", "rewards")}
        valid = self._valid(rollout, values)
        count = tf.cast(valid, tf.int32)
        ended = (rollout.terminations | rollout.truncations) & valid
        cut = valid & ~ended & ~tf.concat([valid[1:], tf.ones_like(valid[:1])], axis=0)
        closing = ended | cut
        goes_on, cut_before = self._continued(rollout, valid)
        first = tf.range(valid.shape[0])[:, None] == tf.argmax(valid, axis=0, output_type=tf.int32)
        opening = valid & tf.where(first, ~goes_on, ~tf.concat([valid[:1], (valid & ~closing)[:-1]], axis=0))
        rows = count + tf.cast(closing, tf.int32) + self._store.before * tf.cast(opening, tf.int32)
        begin, moved = self._at + cut_before, tf.reduce_sum(rows, axis=0)
        row = begin + tf.cumsum(rows, axis=0) - 1 - tf.cast(closing, tf.int32)
        here, after = self._store.number(row, valid), self._store.number(row + 1, valid)
        any_valid = tf.reduce_any(valid, axis=0)
        until = moved + tf.cast(any_valid & ~last_of(closing, valid), tf.int32)
        # Steps after the last row lose the older frames of their stacks.
        emptied, lost = self._lose(
            begin, tf.where(any_valid, until + self._store.before, 0), self._least(valid.shape[0])
        )
        flags = _STEP * tf.cast(valid, tf.uint8) + _TERMINATED * tf.cast(rollout.terminations & valid, tf.uint8)
        flags += _CUT * tf.cast((rollout.truncations & valid) | cut, tf.uint8)
        episodes = {}
        if self.settings.hindsight:
            episodes["episodes"] = self._episode + tf.cumsum(tf.cast(opening, tf.int32), axis=0)
            self._episode.assign(episodes["episodes"][-1])
        # Successors first: where the episode goes on, the next step is then written over its own observation.
        self._store.put_before(row, opening, rollout.observations)
        self._store.put(after, {"observations": rollout.final_observations} | episodes)
        self._store.put(here, values | {"flags": flags} | episodes)
        self._store.count_faults(rollout.observations, rollout.final_observations, valid)
        self._order(here, row, valid, emptied)
        gained = tf.reduce_sum(count, axis=0)
        self._moved.assign_add(tf.cast(cut_before + moved, tf.int64))
        self._held.assign_add(gained - lost)
        self._written.assign_add(tf.cast(gained, tf.int64))

    def require_stacks(self) -> None:
        """Raise a ValueError, outside of programs, if observations written so far are not the stacks that `stacks` says.

        What is drawn is wrong then: call it before anything drawn is kept.
        """
        self._store.require_stacks()

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
            number = tf.minimum(number, self._store.spare)
            weights = self._importance(number, progress)
        else:
            number, weights = self._uniform(to_place, count), tf.ones((count,))
        rewards, discounts, last = self._walk(number)
        taken = {name: self._store.take(name, number) for name in ("observations", "actions", "log_probs")}
        return Drawn(
            **taken,
            rewards=rewards,
            discounts=discounts,
            next_observations=self._store.take("observations", last),
            weights=tf.where(some, weights / count, 0.0),
            seeds=random.split(to_rows, count),
            rows=number,
        )

    def reprioritize(self, rows: Any, priorities: Any) -> None:
        """Give steps other priorities. New steps have the largest that there was so far.

        Args:
            rows: int32 (M,), from `draw`. Steps that are no longer held are left out.
            priorities: float32 (M,), ≥ 0, to which 1e-6 is added: no step is lost. Of a step that comes twice, the greatest
                counts. One that is negative, not finite or beyond 1e28 changes nothing.
        """
        if not self.settings.prioritized:
            raise ValueError("Priorities are for a replay with prioritized=True.")
        priorities = tf.cast(priorities, tf.float32)
        counts = (priorities >= 0.0) & (priorities <= _MOST_WEIGHT) & (tf.gather(self._flags, rows) > 0)
        weights = (priorities + _LEAST_PRIORITY) ** self.settings.priority_exponent
        rows = tf.where(counts, rows, self._store.spare)
        weights = tf.where(counts, weights, 0.0)
        self._priorities.set(rows, weights)
        self._largest.assign(tf.maximum(self._largest, tf.reduce_max(weights)))

    def later(self, rows: Any, seed: Any) -> Any:
        """Draw, for each of some steps, an observation that followed in its episode, each as likely as any other.

        Args:
            rows: int32 (M,), from `draw`, of a replay with hindsight.
            seed: int32 (2,).

        Returns:
            Numbers of rows, int32 (M,), for `observed`: of the step's own successor or a later one, up to the last one so far.
        """
        base, row, at = rows // self.rows * self.rows, rows % self.rows, tf.gather(self._at, rows // self.rows)
        newest = tf.gather(self._flags, base + (at - 1) % self.rows)
        is_open = tf.cast(newest == _STEP, tf.int32)  # then the row after the newest step is its successor
        most = (at - row - 1) % self.rows + is_open
        count = last_where(lambda k: self._same_episode(base, row, k), most, self.rows)
        drawn = tf.cast(random.uniform(seed, tuple(rows.shape)) * tf.cast(count, tf.float32), tf.int32)
        return base + (row + 1 + tf.minimum(drawn, count - 1)) % self.rows

    def observed(self, rows: Any) -> Any:
        """Return the observations of rows, int32 (M,): a tree of (M, …)."""
        return self._store.take("observations", rows)

    def _same_episode(self, base: Any, row: Any, after: Any) -> Any:
        numbers = self._store.tree["episodes"]
        return tf.gather(numbers, base + (row + after) % self.rows) == tf.gather(numbers, base + row)

    @property
    def _at(self) -> Any:
        """The rows of the next steps, int32 (N,)."""
        return tf.cast(self._moved % self.rows, tf.int32)

    @property
    def _flags(self) -> tf.Variable:
        return self._store.tree["flags"]

    def _least(self, steps: int) -> int:
        """Return the least number of rows of a slot for rollouts of so many steps, of an episode each."""
        return (2 + self._store.before) * (steps + 1)

    def _valid(self, rollout: Rollout, values: Any) -> Any:
        """Return which rows of a rollout count, bool (T, N), after its shapes were checked."""
        steps, slots = rollout.mask.shape
        if slots != self.num_envs or self.rows < self._least(steps):
            raise ValueError(
                f"This replay takes rollouts of at most {self.rows // (2 + self._store.before) - 1} steps in {self.num_envs} "
                f"environments, got {steps} steps in {slots}."
            )
        self._store.require_layout(values)
        self._store.require_layout({"observations": rollout.final_observations})
        return tf.convert_to_tensor(rollout.mask) > 0

    def _continued(self, rollout: Rollout, valid: Any) -> tuple[Any, Any]:
        """Return the slots whose steps go on where those before ended, bool (N,), and 1 for those that were cut there.

        The newest step of a slot that was cut is flagged so.
        """
        slots = tf.range(self.num_envs)
        newest = self._store.number(self._at - 1, True)
        flags = tf.gather(self._flags, newest)
        first = tf.argmax(valid, axis=0, output_type=tf.int32)
        same = tf.ones((self.num_envs,), tf.bool)
        expected = self._store.take("observations", slots * self.rows + self._at)
        for old, new in zip(tf.nest.flatten(expected), tf.nest.flatten(rollout.observations), strict=True):
            equal = old == first_of(tf.convert_to_tensor(new), first)
            same &= tf.reduce_all(tf.reshape(equal, (self.num_envs, -1)), axis=1)
        is_open = flags == _STEP
        cut = tf.reduce_any(valid, axis=0) & is_open & ~same
        self._store.put(tf.where(cut, newest, self._store.spare), {"flags": flags | _CUT})
        return is_open & same, tf.cast(cut, tf.int32)

    def _lose(self, begin: Any, count: Any, most: int) -> tuple[Any, Any]:
        """Take the steps out of so many rows of each slot, int32 (N,), at most `most`.

        Returns:
            The numbers of the rows, int32 (most · N,), and how many steps there were in each slot, int32 (N,).
        """
        offset = tf.range(most)[:, None]
        inside = offset < count
        numbers = self._store.number(begin + offset, inside)
        lost = inside & (tf.gather(self._flags, numbers) > 0)
        self._store.put(numbers, {"flags": tf.zeros(numbers.shape, tf.uint8)})
        return tf.reshape(numbers, (-1,)), tf.reduce_sum(tf.cast(lost, tf.int32), axis=0)

    def _order(self, here: Any, row: Any, valid: Any, emptied: Any) -> None:
        """Let new steps be drawn, and those of emptied rows no more."""
        if self.settings.prioritized:
            numbers = tf.concat([emptied, tf.reshape(here, (-1,))], axis=0)
            weights = tf.where(tf.reshape(valid, (-1,)), self._largest, 0.0)
            self._priorities.set(numbers, tf.concat([tf.zeros(emptied.shape), weights], axis=0))
            return
        step = self._written + tf.cumsum(tf.cast(valid, tf.int64), axis=0, exclusive=True)
        places = tf.reshape(self._store.number(tf.cast(step % self.rows, tf.int32), valid), (-1,))
        self._row_of_step.scatter_update(tf.IndexedSlices(tf.reshape(row % self.rows, (-1,)), places))

    def _uniform(self, seed: Any, count: int) -> Any:
        """Return the numbers of rows of steps, int32 (count,), each as likely as any other."""
        upper, lower = (tf.cast(words, tf.int64) for words in random.pairs(seed, count))
        numbers = upper % 2**30 * 2**32 + lower  # of 62 bits
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
        along = tf.minimum(along, self._store.spare)
        flags, rewards = (tf.gather(self._store.tree[name], along) for name in ("flags", "rewards"))
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
