"""Updates from what a replay remembers: draw, credit, move, follow, as often as the steps that were played allow."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import tensorflow as tf

from rlgrad import random
from rlgrad.agent import Agent
from rlgrad.data import Metrics, ReplayBatch, Rollout
from rlgrad.environments.goals import GoalRewards
from rlgrad.learning.hindsight import relabelled
from rlgrad.learning.recorded_rollouts import CHUNK, rollouts, rows_for
from rlgrad.policies.policy import Policy
from rlgrad.replay.recorded import Episodes
from rlgrad.replay.records import Replay
from rlgrad.replay.ring import Ring
from rlgrad.replay.store import require_room

_FINEST = 10_000  # denominator of the ratio of updates to steps

Update = Callable[[ReplayBatch, Any], tuple[Metrics, Any]]
"""Make one update from a batch, with a seed. Return its metrics, and the priorities of the rows, `None` if they have none."""


class Rehearsal:
    """A replay, and how many updates it is due.

    Args:
        agent: has the replay's settings.
        policy: says what is stored.
        num_envs: slots that rollouts are played in.
        goals: of the environment, which a replay with hindsight asks.

    Attributes:
        variables: for checkpoints, besides those of the replay, which has files of its own.
        goals: of the environment; `None`: there is no hindsight.
        from_data: the replay holds recorded episodes, `fill` puts them there, and nothing is played.
        steps_per_call: steps that a call of the learner counts: those of a rollout, or of data as many gradient steps.
    """

    def __init__(self, agent: Agent, policy: Policy, num_envs: int, goals: GoalRewards | None = None) -> None:
        assert agent.replay is not None
        assert agent.num_steps is not None
        self._settings = agent.replay
        if agent.replay.hindsight and goals is None:
            raise ValueError("replay.hindsight asks the environment for the rewards of goals: train with rlgrad.train.")
        self.goals = goals if agent.replay.hindsight else None
        steps, self._gamma = agent.num_steps, agent.gamma
        self._specs, self._num_envs = (policy.observation_spec, policy.action_spec), num_envs
        self._steps, self._stacks = steps, stacks_of(policy.observation_spec, self._settings.frames)
        self.from_data = self._settings.data is not None
        self.steps_per_call = steps * num_envs
        self._ratio = Fraction(self._settings.updates_per_step).limit_denominator(_FINEST)
        self._most = self.steps_per_call if self.from_data else math.ceil(self.steps_per_call * self._ratio) + 1
        self._filled: Ring | None = None
        if not self.from_data:
            require_room(self._settings, *self._specs, num_envs, stacks=self._stacks)
        self._made = tf.Variable(0, dtype=tf.int64, trainable=False, name="updates_made")
        self.variables = [self._made]

    @cached_property
    def ring(self) -> Ring:
        """The replay. Its memory is taken when it is first used."""
        if not self.from_data:
            return self._ring(self._settings, self._num_envs, self._steps)
        if self._filled is None:
            raise ValueError(
                "A replay of recorded episodes is to be filled with them first: rehearsal.fill(episodes, policy)."
            )
        return self._filled

    @property
    def needs_filling(self) -> bool:
        """True for a replay of recorded episodes that does not hold them yet."""
        return self.from_data and self._filled is None

    def fill(self, episodes: Episodes, policy: Policy) -> None:
        """Put recorded episodes into the replay. Called outside of programs, once, before anything is learned.

        Raises:
            ValueError: they do not fit into memory, or `replay.frames` is of stacks that they are not.
        """
        settings = replace(self._settings, capacity=rows_for(episodes, self._stacks), warmup=0)
        ring = self._ring(settings, 1, CHUNK)
        for rollout in rollouts(episodes, policy):
            ring.write(rollout)
        if self._stacks is not None:
            ring.require_stacks()
        self._filled = ring

    def _ring(self, settings: Replay, num_envs: int, steps: int) -> Ring:
        return Ring(settings, *self._specs, num_envs, steps=steps, gamma=self._gamma, stacks=self._stacks)

    @property
    def batch_size(self) -> int:
        """Steps of a batch."""
        return self._settings.batch_size

    @property
    def num_steps(self) -> int:
        """Steps that can be drawn now."""
        return int(tf.reduce_sum(self.ring.held))

    def prepare(self) -> None:
        """Make the replay. Called before a program is traced: variables that are made meanwhile cost a second trace."""
        assert self.ring is not None

    def check(self) -> None:
        """Raise a ValueError if stacks of frames were written that are none. Called after a program has run."""
        if self._stacks is not None:
            self.ring.require_stacks()

    def remember(self, rollout: Rollout) -> None:
        """Write a rollout into the replay. Part of a compiled program, as is all below."""
        if not self.from_data:
            self.ring.write(rollout)

    def draw(self, seed: Any, progress: Any) -> tuple[ReplayBatch, Any]:
        """Return a batch of the replay, and where its rows are."""
        drawn = self.ring.draw(seed, self._settings.batch_size, progress)
        numbers = {name: getattr(drawn, name) for name in ReplayBatch._fields if name != "progress"}
        batch = ReplayBatch(**numbers, progress=progress)
        if self.goals is not None:
            share, gamma = self._settings.hindsight, self._gamma
            batch = relabelled(batch, drawn.rows, self.ring, self.goals, share=share, gamma=gamma, seed=seed)
        return batch, drawn.rows

    def updates(self, update: Update, names: Sequence[str], progress: Any, seed: Any) -> tuple[Metrics, tf.Tensor]:
        """Make the updates that are due.

        Args:
            update: makes one.
            names: of the metrics that it returns, without `nonfinite_step`.
            progress: share of the run already done, 0 … 1.
            seed: int32 (2,).

        Returns:
            Means of the metrics over the updates that measured them, NaN if none did, with `gradient_steps`, how many there
            were; and the number of the first update that was left out because it was not finite, −1 if there was none.
        """
        count = self._due()

        def body(i: tf.Tensor, bad: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            own = random.fold_in(seed, i)
            batch, rows = self.draw(own, progress)
            metrics, priorities = update(batch, own)
            bad = tf.where(metrics["nonfinite_step"] >= 0, i, bad)
            if priorities is not None:
                self.ring.reprioritize(rows, priorities)
            values = tf.stack([tf.cast(metrics[name], tf.float32) for name in names])
            known = ~tf.math.is_nan(values)  # a policy that waits for its turn measures nothing
            return i + 1, bad, sums + tf.stack([tf.where(known, values, 0.0), tf.cast(known, tf.float32)])

        start = (tf.constant(0), tf.constant(-1), tf.zeros((2, len(names))))
        made, bad, sums = tf.while_loop(
            lambda i, bad, _: (i < count) & (bad < 0), body, start, maximum_iterations=self._most
        )
        self._made.assign_add(tf.cast(made, tf.int64))
        means: Metrics = dict(zip(names, tf.unstack(sums[0] / sums[1]), strict=True))  # 0/0 is NaN
        return means | {"gradient_steps": tf.cast(made, tf.float32)}, bad

    def _due(self) -> tf.Tensor:
        """Return how many updates the steps that were played allow and were not made yet, int32 (); of data all of a call."""
        if self.from_data:
            return tf.constant(self._most)
        beyond = tf.maximum(self.ring.steps - self._settings.warmup, 0)
        allowed = beyond * self._ratio.numerator // self._ratio.denominator
        return tf.cast(tf.clip_by_value(allowed - self._made, 0, self._most), tf.int32)


def stacks_of(observation_spec: Any, frames: int | None) -> Any:
    """Return a tree like the observations: `frames` of each leaf that shows so many along its first axis, else `None`.

    `None` for all of them without `frames`.

    Raises:
        ValueError: no leaf shows so many.
    """
    if frames is None:
        return None
    stacks = tf.nest.map_structure(
        lambda spec: frames if spec.shape.rank > 1 and spec.shape[1] == frames else None, observation_spec
    )
    if all(k is None for k in tf.nest.flatten(stacks)):
        shapes = [tuple(spec.shape[1:]) for spec in tf.nest.flatten(observation_spec)]
        raise ValueError(
            f"replay.frames={frames} is of observations that stack so many frames first, and these have {shapes}."
        )
    return stacks
