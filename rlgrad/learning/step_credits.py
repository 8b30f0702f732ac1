"""The credit of each step of one episode, beside its values and returns: numbers to look at, not an update."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from rlgrad import random
from rlgrad.core.nested import map_leaves
from rlgrad.data import Batch, ReplayBatch, Rollout
from rlgrad.diagnostics.credited_steps import ERROR, StepCredits
from rlgrad.diagnostics.formulas import discounted_returns
from rlgrad.learning.asking import Now
from rlgrad.learning.learner import Learner
from rlgrad.learning.objective import PolicyObjective, expected_return
from rlgrad.learning.recorded_rollouts import CHUNK, rollouts
from rlgrad.policies.recurrent import RecurrentPolicy
from rlgrad.replay.recorded import Episodes
from rlgrad.spaces.trees import map_arrays
from rlgrad.streams import StreamAgent

Array = np.ndarray[Any, Any]


class Step(Protocol):
    """A step of an episode. See `rlgrad.playback.viewer.Transition`."""

    @property
    def observation(self) -> Any:
        """Before the action, as arrays of the policy's own kind."""

    @property
    def action(self) -> Any:
        """As the environment got it."""

    @property
    def reward(self) -> float:
        """In the environment's units."""

    @property
    def terminated(self) -> bool:
        """True if the task ended."""

    @property
    def after(self) -> Any:
        """The next observation."""


def of_episode(learner: Learner, steps: Sequence[Step], progress: float = 1.0) -> StepCredits:
    """Return what a learner's agent would credit the steps of an episode at the current weights. Nothing is changed.

    Args:
        learner: of the run.
        steps: of one episode from its beginning, at most `CHUNK`; one that did not terminate counts as cut after them.
        progress: share of the run already done, 0 … 1.

    Raises:
        NotImplementedError: the policy has a memory.
        ValueError: actions of several parts, no step, or too many.
    """
    if isinstance(learner.policy, RecurrentPolicy):
        raise NotImplementedError("a policy with memory learns from sequences, not from steps.")
    if not 1 <= len(steps) <= CHUNK:
        raise ValueError(f"an episode of 1 to {CHUNK:,} steps is needed, got {len(steps):,}.")
    rollout = _rollout(learner, steps)
    batch: Batch | ReplayBatch
    if learner.rehearsal is None:
        batch = learner.rows_of(rollout, tf.constant(progress, tf.float32))
    else:
        batch = learner.scaled(_as_drawn(learner, rollout, progress))
    objective = learner.objective(batch)
    now = objective.now(objective.linearize().outputs)
    values = (
        expected_return(learner.policy, now.q) if "q" in vars(now) else batch.values if learner.uses_value else None
    )
    return StepCredits(
        _credits(learner, objective, now),
        None if values is None else np.asarray(values, np.float64),
        _returns(learner, rollout, objective, now),
    )


def _rollout(learner: Learner, steps: Sequence[Step]) -> Rollout:
    """Return the steps as a rollout of one slot, (T, 1, …), with the log-probabilities of the current weights."""
    policy, seen = learner.policy, [step.observation for step in steps] + [steps[-1].after]
    episode = Episodes(
        observations=map_arrays(lambda *each: np.stack(each), *seen),
        actions=np.stack([np.asarray(step.action) for step in steps]),
        rewards=np.array([step.reward for step in steps], np.float32),
        terminated=np.array([steps[-1].terminated]),
        lengths=np.array([len(steps)], np.int64),
    )
    rollout: Rollout = map_leaves(tf.constant, next(iter(rollouts(episode, policy))))
    if "log_prob" not in learner.credited:
        return rollout
    observations, actions = policy.inputs(rollout), tf.nest.map_structure(policy.rows, rollout.actions)
    log_probs = Now({}, policy, _seeds(len(steps))).at(observations, actions).log_prob
    return rollout._replace(log_probs=tf.reshape(log_probs, (-1, 1)))


def _seeds(count: int) -> tf.Tensor:
    return random.split(tf.constant([0, 0], tf.int32), count)


def _as_drawn(learner: Learner, rollout: Rollout, progress: float) -> ReplayBatch:
    """Return the steps as a replay would give them, all of them once, in their order."""
    agent, policy = learner.agent, learner.policy
    assert agent.replay is not None
    rewards, terminated = rollout.rewards.numpy()[:, 0], bool(rollout.terminations[-1, 0])
    count = len(rewards)
    added = np.minimum(agent.replay.n_steps, count - np.arange(count))
    powers = agent.gamma ** np.arange(agent.replay.n_steps)
    sums = [float(powers[:m] @ rewards[t : t + m]) for t, m in enumerate(added)]
    last = np.arange(count) + added - 1  # of the steps that are added up
    goes_on = ~(terminated & (last == count - 1))
    after = tf.nest.map_structure(policy.rows, rollout.final_observations)
    return ReplayBatch(
        observations=policy.inputs(rollout),
        actions=tf.nest.map_structure(policy.rows, rollout.actions),
        log_probs=policy.rows(rollout.log_probs),
        rewards=tf.constant(sums, tf.float32),
        discounts=tf.constant(agent.gamma**added * goes_on, tf.float32),
        next_observations=tf.nest.map_structure(lambda x: tf.gather(x, last), after),
        weights=tf.ones(count),
        seeds=_seeds(count),
        progress=tf.constant(progress, tf.float32),
    )


def _credits(learner: Learner, objective: PolicyObjective, now: Any) -> dict[str, Array]:
    agent, batch = learner.agent, objective.batch
    if isinstance(agent, StreamAgent):
        if agent.decides_ahead:  # the episode says what was done next
            batch = batch._replace(next_actions=tf.concat([batch.actions[1:], batch.actions[-1:]], axis=0))
        return {ERROR: np.asarray(agent.td_error(batch, now), np.float64)}
    credit = {name: np.asarray(c, np.float64) for name, c in agent.credit(batch, now).items()}
    by_step = {name: _by_step(learner, name, c) for name, c in credit.items() if c.ndim and name not in agent.scalars}
    varying = {name: c for name, c in by_step.items() if np.ptp(c) > 0.0}
    return varying or by_step


def _by_step(learner: Learner, name: str, credit: Array) -> Array:
    """Return one number for each step."""
    if credit.ndim == 1:
        return credit
    rows = credit.reshape(len(credit), -1)
    distribution: Any = learner.policy.distribution
    if name != "q":
        return np.asarray(np.linalg.norm(rows, axis=1))
    if not learner.policy.critics and distribution.support is not None:
        return np.asarray(rows @ np.asarray(distribution.atoms, np.float64))
    return np.asarray(rows.mean(axis=1))


def _returns(learner: Learner, rollout: Rollout, objective: PolicyObjective, now: Any) -> Array | None:
    scaled = rollout.rewards if learner.reward_scale is None else learner.reward_scale.scale(rollout.rewards)
    rewards, following = np.asarray(scaled, np.float64)[:, 0], 0.0
    if not bool(rollout.terminations[-1, 0]):
        after = _value_after(learner, rollout, objective.batch, now)
        if after is None:
            return None
        following = after
    return discounted_returns(rewards, learner.agent.gamma, following)


def _value_after(learner: Learner, rollout: Rollout, batch: Any, now: Any) -> float | None:
    """Return what the networks say of the last observation, `None` if they say nothing of it."""
    policy = learner.policy
    if learner.rehearsal is None:
        return float(policy.values(rollout)[1][-1, 0]) if learner.uses_value else None
    if policy.says_action_values:
        return float(tf.reduce_max(now.at(batch.next_observations).expected[-1]))
    if not policy.critics:
        return None
    there = now.at(batch.next_observations)
    if policy.critics_of_actions:
        values = tf.reduce_mean(there.q_values[-1], axis=0)
        return float(tf.reduce_sum(tf.nn.softmax(there.logits[-1]) * values))
    return float(tf.reduce_mean(now.at(batch.next_observations, there.action).q[-1]))
