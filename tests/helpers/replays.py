"""Rollouts of random episodes, and a replay in plain Python lists that says what a ring must return."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from rlgrad.data import Rollout


class Step(NamedTuple):
    """One step, and how its episode went on: whether anything is known after its successor."""

    observation: float
    action: int
    log_prob: float
    reward: float
    terminated: bool
    closed: bool
    successor: float


class Player:
    """Plays episodes whose observations are numbers that never come twice, with dummy rows and both kinds of ends."""

    def __init__(self, slots, seed=0, end=0.2, idle=0.1):
        self.rng, self.end, self.idle = np.random.default_rng(seed), end, idle
        self.clock = 0
        self.now = [self.fresh() for _ in range(slots)]
        self.was_closed = [True] * slots

    def fresh(self):
        self.clock += 1
        return float(self.clock)

    def begin_anew(self, slot):
        self.now[slot] = self.fresh()

    def play(self, steps):
        slots = len(self.now)
        seen, after = np.zeros((steps, slots)), np.zeros((steps, slots))
        rewards, log_probs = self.rng.normal(size=(2, steps, slots))
        actions = self.rng.integers(0, 5, (steps, slots))
        terminations, truncations = np.zeros((2, steps, slots), bool)
        mask = np.ones((steps, slots))
        for t in range(steps):
            for n in range(slots):
                if self.rng.random() < self.idle:
                    mask[t, n], seen[t, n], after[t, n] = 0, -7, -8
                    terminations[t, n] = True  # stale: nobody may read it
                    continue
                chance = self.rng.random()
                terminations[t, n] = chance < self.end * 0.6
                truncations[t, n] = self.end * 0.4 < chance < self.end  # sometimes both
                seen[t, n], after[t, n] = self.now[n], self.fresh()
                ended = terminations[t, n] or truncations[t, n]
                self.now[n] = self.fresh() if ended else after[t, n]
        return as_rollout(seen, actions, rewards, terminations, truncations, after, log_probs, mask)


def as_rollout(seen, actions, rewards, terminations, truncations, after, log_probs, mask):
    numbers = lambda x: np.asarray(x, np.float32)
    return Rollout(
        numbers(seen), np.asarray(actions, np.int64), numbers(rewards), terminations, truncations, numbers(after),
        numbers(log_probs), numbers(mask),
    )  # fmt: skip


def tensors(rollout):
    return tf.nest.map_structure(lambda x: None if x is None else tf.constant(x), rollout)


class Lists:
    """The replay of plain lists: for each slot, its steps and the last observations of episodes, in order."""

    def __init__(self, slots, rows, gamma, n_steps):
        self.rows, self.gamma, self.n_steps = rows, gamma, n_steps
        self.entries = [[] for _ in range(slots)]  # steps, and None for an observation alone

    def write(self, rollout):
        for n, entries in enumerate(self.entries):
            before = entries[-1] if entries else None
            for t in range(len(rollout.mask)):
                if rollout.mask[t, n] == 0:
                    if before is not None and t > 0 and rollout.mask[t - 1, n]:
                        before = self._close(n)
                    continue
                if before is not None and before.successor != rollout.observations[t, n]:
                    self._close(n)
                ended = bool(rollout.terminations[t, n] or rollout.truncations[t, n])
                row = (x[t, n] for x in (rollout.observations, rollout.actions, rollout.log_probs, rollout.rewards))
                before = Step(*row, bool(rollout.terminations[t, n]), ended, rollout.final_observations[t, n])
                entries.append(before)
                if ended:
                    entries.append(None)
                    before = None

    def _close(self, n):
        self.entries[n][-1] = self.entries[n][-1]._replace(closed=True)
        self.entries[n].append(None)

    def held(self):
        """The steps that are held, by their observation, with what a draw of each must return."""
        found = {}
        for entries in self.entries:
            is_open = bool(entries) and entries[-1] is not None
            first = max(len(entries) - self.rows + is_open, 0)
            for i in range(first, len(entries)):
                if entries[i] is not None:
                    found[float(entries[i].observation)] = self._expected(entries[i : i + self.n_steps])
        return found

    def _expected(self, steps):
        total, discount = 0.0, 1.0
        for step in steps:
            total += discount * float(step.reward)
            discount *= self.gamma
            last = step
            if step.closed:
                break
        return steps[0], total, 0.0 if last.terminated else discount, last.successor
