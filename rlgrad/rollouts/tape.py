"""The arrays that playing fills, and their way to a rollout."""

from typing import Any, NamedTuple

import numpy as np

from rlgrad.data import Episode, Rollout
from rlgrad.rollouts.episodes import whole_episodes
from rlgrad.rollouts.soundness import Array, require_finite, require_finite_array
from rlgrad.spaces.trees import arrays, map_arrays


class Tape(NamedTuple):
    """The steps that were played, (T, N, …), before it is known which of them count. The names are those of `Rollout`.

    Rewards are float64, so that returns are summed in full precision; the rest has the rollout's dtypes.
    """

    observations: Any
    actions: Array
    rewards: Array
    terminations: Array
    truncations: Array
    final_observations: Any
    log_probs: Any


def lengthened(tree: Any, rows: int) -> Any:
    """Return arrays (T, …) with so many rows: copies with zeros in the new ones, or the arrays themselves if they have them."""

    def longer(x: Array) -> Array:
        if len(x) == rows:
            return x
        longer = np.zeros((rows, *x.shape[1:]), x.dtype)
        longer[: len(x)] = x
        return longer

    return map_arrays(longer, tree)


def keep_first_episodes(tape: Tape, limit: int) -> tuple[Tape, Array]:
    """Keep the first episode of each column, truncated in row `limit` − 1 if it has not ended before.

    Returns:
        The tape, changed in place: zeros outside those episodes; and bool (T, N), True inside them.
    """
    over = np.logical_or.accumulate(tape.terminations | tape.truncations, axis=0)
    if limit <= len(over):
        tape.truncations[limit - 1] |= ~over[limit - 1]
        over[limit - 1 :] = True
    mask = np.ones(over.shape, np.bool_)
    mask[1:] = ~over[:-1]
    played = int(mask.any(axis=1).sum())  # later rows were never written, and their memory need not be touched
    for _, array in arrays(tape, ""):
        array[:played][~mask[:played]] = 0
    return tape, mask


def outcomes(tape: Tape, limit: int, columns_per_slot: int) -> list[Episode]:
    """Return the first episode of each column, in the order of the columns.

    Args:
        tape: with or without observations.
        limit: the most steps of an episode.
        columns_per_slot: for messages.

    Raises:
        FloatingPointError: a reward is not finite.
    """
    tape, mask = keep_first_episodes(tape, limit)
    require_finite_array(tape.rewards, "reward at", columns_per_slot)
    return whole_episodes(tape.rewards, tape.terminations, mask)


def merge_tapes(tapes: list[Tape], masks: list[Array]) -> tuple[Tape, Array]:
    """Merge k tapes (T, N) into one (T, N · k), whose column `n · k + j` is column n of tape j; and masks likewise.

    T is that of the longest tape.
    """
    if len(tapes) == 1:
        return tapes[0], masks[0]
    rows = max(map(len, masks))
    tapes, masks = [Tape(*lengthened(tuple(tape), rows)) for tape in tapes], [lengthened(m, rows) for m in masks]

    def interleave(*parts: Array) -> Array:
        stacked = np.stack(parts, axis=2)
        return stacked.reshape(stacked.shape[0], -1, *stacked.shape[3:])

    return Tape(*map_arrays(interleave, *tapes)), interleave(*masks)


def to_rollout(tape: Tape, mask: Array, columns_per_slot: int, initial_states: Any) -> Rollout:
    """Make the rollout of a tape.

    Args:
        tape: the steps.
        mask: bool (T, N), True for the steps that count.
        columns_per_slot: for messages.
        initial_states: (N, …), of a policy with memory.

    Raises:
        FloatingPointError: a reward or an observation is not finite in float32.
    """
    with np.errstate(over="ignore"):  # what does not fit into float32 becomes infinite, and is reported below
        rewards = tape.rewards.astype(np.float32)
    rollout = Rollout(
        observations=tape.observations,
        actions=tape.actions,
        rewards=rewards,
        terminations=tape.terminations,
        truncations=tape.truncations,
        final_observations=tape.final_observations,
        log_probs=tape.log_probs,
        mask=mask.astype(np.float32),
        initial_states=initial_states,
    )
    require_finite(rollout, columns_per_slot, tape.rewards)
    return rollout
