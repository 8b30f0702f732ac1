"""The record of what is drawn from a replay."""

from typing import Any, NamedTuple


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
