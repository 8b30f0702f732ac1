"""The record that a collector hands to an agent."""

from typing import Any, NamedTuple


class Rollout(NamedTuple):
    """What the policy met: T time steps in N columns (environment slots, or whole episodes), time first.

    There is no `done`: returns stop at `terminations | truncations`, and only a termination makes the value of what
    follows zero. Rows where `mask` is 0 are padding or an autoreset step; they hold zeros or stale numbers and count
    for nothing.

    Attributes:
        observations: (T, N, …), what the policy saw. May be a tree of arrays.
        actions: (T, N, …), as sampled: before clipping, counted from 0.
        rewards: float32 (T, N), raw, in the environment's units.
        terminations: bool (T, N), the task ended after this step.
        truncations: bool (T, N), the episode was cut after this step (a time limit).
        final_observations: (T, N, …), the true successor of each step: at an episode's end the last observation of that
            episode, never the first of the next; where an episode goes on, what `observations` holds in the next row.
        log_probs: float32 (T, N), log π(a|s) in nats when the action was taken.
        mask: float32 (T, N), 1 for a real step.
        values: float32 (T, N), v(s_t). Zeros until the learner fills it.
        next_values: float32 (T, N), v of the true successor. Zeros until the learner fills it.
        initial_states: (N, …), what a policy with memory remembered before the first row: a tree of arrays. Nothing for others.
    """

    observations: Any
    actions: Any
    rewards: Any
    terminations: Any
    truncations: Any
    final_observations: Any
    log_probs: Any
    mask: Any
    values: Any
    next_values: Any
    initial_states: Any = ()
