"""The loop in which a policy meets its environments, and the arrays that it fills."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rlgrad.data import Episode, Rollout
from rlgrad.environments.slots import Slots
from rlgrad.rollouts.checks import Array, _check_finite, _require_finite_row, require_finite
from rlgrad.rollouts.episodes import whole_episodes
from rlgrad.spaces.masks import require_allowed
from rlgrad.spaces.trees import arrays, map_arrays, put

if TYPE_CHECKING:  # the distributions import TensorFlow, which collecting does not need
    from rlgrad.distributions import Distribution


class Tape(NamedTuple):
    """What was played, (T, N, …), before it is known which steps count. The names are those of `Rollout`.

    Rewards are float64, so that returns are summed in full; the rest has the rollout's dtypes.
    """

    observations: Any
    actions: Array
    rewards: Array
    terminations: Array
    truncations: Array
    final_observations: Any
    log_probs: Any


def play(
    slots: Slots,
    empty: Any,
    shape: tuple[int, int],
    observations: Any,
    *,
    act: Callable[[Any], Any],
    distribution: "Distribution",
    generator: np.random.Generator | None,
    forget: Callable[[Array], None],
    one_episode: bool,
    record: bool = True,
) -> tuple[Tape, Any]:
    """Steps all slots T times, or only until each has ended an episode.

    Args:
        slots: the environments.
        empty: storage for no observation, (0, …).
        shape: (T, N).
        observations: (N, …), what to act on first.
        act: from observations (N, …) to the parameters of the distribution.
        distribution: picks actions.
        generator: draws all that the actions need at once; none: they are the most likely ones.
        forget: is told the slots, bool (N,), whose next observation begins an episode.
        one_episode: stop when each slot has ended one episode, and begin no second one.
        record: keep observations and log-probabilities; else the tape has () in their place, however long it is.

    Returns:
        The tape, zeros where nothing was played, and what to act on next (N, …).

    Raises:
        FloatingPointError: an observation that is not kept, of an episode that counts, is not finite.
    """
    (rows, num_envs), kept = shape, shape[0] if record else 1
    seen, successors = (
        map_arrays(lambda x: np.zeros((kept, num_envs, *x.shape[1:]), x.dtype), empty) for _ in range(2)
    )
    actions, noise, said = np.zeros(0), None, []
    rewards, terminations, truncations = np.zeros(shape), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    ended, unfinished = np.zeros(num_envs, np.bool_), np.ones(num_envs, np.bool_)
    late = slots.resets_late
    for row in range(rows):
        acted_on = put(seen, row % kept, observations)
        require_allowed(acted_on, ended, row)
        parameters = act(acted_on)
        if record:
            said.append(parameters)
        if generator is None:
            chosen = distribution.mode(parameters)[0]
        else:
            noise = distribution.noise(parameters, generator, rows) if noise is None else noise
            chosen = distribution.pick(parameters, noise[row])
        if row == 0:
            actions = np.zeros((rows, *chosen.shape), chosen.dtype)
        actions[row] = chosen
        stepped = slots.step(distribution.to_environment(chosen), row)
        observations, rewards[row], terminations[row], truncations[row], infos = stepped
        put(successors, row % kept, observations)
        if late and np.count_nonzero(ended):
            forget(ended)
        if not record:
            slots.require_choices(seen, successors, row)
            _require_finite_row(seen, successors, unfinished, row)
        np.logical_or(terminations[row], truncations[row], out=ended)
        if np.count_nonzero(ended):
            unfinished &= ~ended
            if not late:
                forget(ended)
            observations = slots.renew(
                ended, observations, infos, successors=successors, row=row % kept, idle=one_episode
            )
            if one_episode and not unfinished.any():
                break
    if not record:
        return Tape((), actions, rewards, terminations, truncations, (), ()), observations
    log_probs, played = np.zeros(shape, np.float32), len(said)
    slots.require_choices(*(map_arrays(lambda x: x[:played], tree) for tree in (seen, successors)))
    parameters = map_arrays(lambda *parts: np.concatenate(parts).reshape(played, *parts[0].shape), *said)
    log_probs[:played] = distribution.numpy_log_prob(parameters, actions[:played])
    return Tape(seen, actions, rewards, terminations, truncations, successors, log_probs), observations


def first_episode(tape: Tape) -> tuple[Tape, Array]:
    """Keeps the first episode of each column, cut at the last row where it has not ended by itself.

    Returns:
        The tape, in place, zeros outside those episodes; and bool (T, N), True inside them.
    """
    over = np.logical_or.accumulate(tape.terminations | tape.truncations, axis=0)
    mask = np.ones(over.shape, np.bool_)
    mask[1:] = ~over[:-1]
    tape.truncations[-1] |= ~over[-1]
    played = int(mask.any(axis=1).sum())  # what lies behind was never written, nor need its memory be touched
    for _, array in arrays(tape, ""):
        array[:played][~mask[:played]] = 0
    return tape, mask


def outcomes(tape: Tape, columns_per_slot: int) -> list[Episode]:
    """What the first episode of each column came to, in the order of the columns.

    Args:
        tape: what was played; whether observations were kept makes no difference.
        columns_per_slot: for messages.

    Raises:
        FloatingPointError: a reward is not finite.
    """
    tape, mask = first_episode(tape)
    _check_finite(tape.rewards, "reward at", columns_per_slot)
    return whole_episodes(tape.rewards, tape.terminations, mask)


def side_by_side(tapes: list[Tape], masks: list[Array]) -> tuple[Tape, Array]:
    """Merges k tapes (T, N) into one (T, N · k), whose column `n · k + j` is column n of tape j; and masks likewise."""
    if len(tapes) == 1:
        return tapes[0], masks[0]

    def interleave(*parts: Array) -> Array:
        stacked = np.stack(parts, axis=2)
        return stacked.reshape(stacked.shape[0], -1, *stacked.shape[3:])

    return Tape(*map_arrays(interleave, *tapes)), interleave(*masks)


def to_rollout(tape: Tape, mask: Array, columns_per_slot: int, initial_states: Any) -> Rollout:
    """The rollout of a tape whose steps count where `mask`, bool (T, N), is True.

    Args:
        tape: what was played.
        mask: bool (T, N).
        columns_per_slot: for messages.
        initial_states: (N, …), of a policy with memory.

    Raises:
        FloatingPointError: a reward or an observation is not finite.
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
    require_finite(rollout, columns_per_slot)
    return rollout
