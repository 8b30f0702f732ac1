"""Rollouts by steps: their episodes go on from one to the next, and where a run goes on, from one process to the next."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rlgrad.data import Episode, Rollout
from rlgrad.environments.slots import Slots
from rlgrad.rollouts.episodes import RunningEpisodes
from rlgrad.rollouts.memory import Memory
from rlgrad.rollouts.playing import Tape, to_rollout
from rlgrad.spaces.trees import arrays

_log = logging.getLogger("rlgrad")
_ROWS_TO_PLAY_AGAIN = 5000  # of all slots, without learning


class Ongoing:
    """The episodes that N slots are in the middle of.

    Args:
        slots: the environments.
        memory: of the policy, in each slot.
        num_envs: N.
    """

    def __init__(self, slots: Slots, memory: Memory, num_envs: int) -> None:
        self._slots, self._memory, self._num_envs = slots, memory, num_envs
        self._observations: Any = None  # to act on next; none: nothing is running
        self._running = RunningEpisodes(num_envs)
        self._resets_first = np.zeros(num_envs, np.bool_)
        self._history = History()
        self._interrupted: Running | None = None  # to be gone on with

    def collect(self, policy: Any, play: Callable[[Any], tuple[Tape, Any]]) -> tuple[Rollout, list[Episode]]:
        """The next rollout, and the episodes that it finished.

        Args:
            policy: whose memory it is.
            play: from what to act on first (N, …) to a tape of T steps, and what to act on next.
        """
        observations, self._observations = self._observations, None
        if observations is None:
            observations = self._replayed(policy)
        if observations is None:  # the first rollout, or the one after an interrupted one
            observations = self._slots.restart()
            self._memory.begin(policy)
            self._running = RunningEpisodes(self._num_envs)
            self._resets_first[:] = False
            self._history = History()
        initial_states = self._memory.of(policy)
        tape, observations = play(observations)
        ends = tape.terminations | tape.truncations
        mask = np.ones(ends.shape, np.bool_)
        if self._slots.resets_late and (ends.any() or self._resets_first.any()):
            # The step after an episode's end only resets: its action is ignored and its successor begins an episode.
            mask[0], mask[1:] = ~self._resets_first, ~ends[:-1]
            tape.rewards[~mask] = 0.0
            self._resets_first = ends[-1]
        rollout = to_rollout(tape, mask, columns_per_slot=1, initial_states=initial_states)
        finished = self._running.advance(tape.rewards, tape.terminations, ends, mask)
        self._observations = observations
        self._history.add(tape.actions)
        if self._slots.seeds_each_episode:
            self._history.keep(int(self._running.lengths.max()))
        return rollout, finished

    def begin_anew(self) -> None:
        """Drops the episodes, if they have no seeds of their own and it would take long to play them again."""
        if not self._slots.seeds_each_episode and self._history.rows >= _ROWS_TO_PLAY_AGAIN:
            self._observations = self._interrupted = None

    def state(self) -> dict[str, Any] | None:
        """What `restore` takes; none where nothing is running."""
        if self._interrupted is not None:
            return self._interrupted._asdict()
        if self._observations is None:
            return None
        running = self._running
        rows = int(running.lengths.max()) if self._slots.seeds_each_episode else None
        return Running(
            actions=self._history.last(rows),
            observations=[array.copy() for _, array in arrays(self._observations, "")],
            returns=running.returns.copy(),
            lengths=running.lengths.copy(),
            resets_first=self._resets_first.copy(),
            memories=self._memory.state(),
        )._asdict()

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Goes on with the episodes of `state`, or with none, when the next rollout is collected."""
        self._observations = None
        self._interrupted = None if state is None else Running(**state)

    def _replayed(self, policy: Any) -> Any:
        """What to act on next in the episodes that were interrupted; none where there are none, or they cannot be replayed."""
        interrupted, self._interrupted = self._interrupted, None
        if interrupted is None:
            return None
        observations = replay(self._slots, interrupted, policy.distribution.to_environment)
        if observations is None:
            _log.warning(
                "This environment is not deterministic under a seed: replayed, its episodes went otherwise. Training goes on "
                "with new episodes; weights, optimizer and counters are those that were saved, but what follows is not what "
                "would have followed."
            )
            return None
        self._running.returns, self._running.lengths = interrupted.returns, interrupted.lengths
        self._resets_first = interrupted.resets_first
        self._memory.restore(policy, interrupted.memories)
        self._history = History()
        self._history.add(interrupted.actions)
        return observations


Array = np.ndarray[Any, Any]


class Running(NamedTuple):
    """The episodes that are not over yet, of N slots.

    Attributes:
        actions: (rows, N, …), as the distribution gave them: the last ones, as far back as is needed.
        observations: (N, …), what to act on next; the arrays of the tree.
        returns: float64 (N,), what each has earned.
        lengths: int64 (N,), how many steps each has taken.
        resets_first: bool (N,), whether the next step only resets.
        memories: (N, …), what the policy remembers; the arrays of the tree.
    """

    actions: Array
    observations: list[Array]
    returns: Array
    lengths: Array
    resets_first: Array
    memories: list[Array]


class History:
    """The actions of the last rollouts, (T, N, …) each, as far back as the running episodes go.

    Attributes:
        rows: how many steps of each slot that is.
    """

    def __init__(self) -> None:
        self._tapes: list[Array] = []
        self.rows = 0

    def add(self, actions: Array) -> None:
        """Take in a rollout's actions, which nobody may change."""
        self._tapes.append(actions)
        self.rows += len(actions)

    def keep(self, rows: int) -> None:
        """Forget what is older than so many rows, but for the last rollout."""
        while len(self._tapes) > 1 and self.rows - len(self._tapes[0]) >= rows:
            self.rows -= len(self._tapes.pop(0))

    def last(self, rows: int | None = None) -> Array:
        """The last rows, or all of them."""
        whole = np.concatenate(self._tapes)
        return whole if rows is None else whole[len(whole) - rows :]


def replay(slots: Slots, running: Running, to_environment: Callable[[Array], Any]) -> Any:
    """Bring the environments of fresh slots to where the running episodes stand.

    Args:
        slots: with the counters that they had there.
        running: the episodes.
        to_environment: from the distribution's actions to those of the environment.

    Returns:
        What to act on next (N, …), or none where the environments did not do again what they had done.
    """
    play = _each if slots.seeds_each_episode else _together
    observations, returns = play(slots, running, to_environment)
    again = [array for _, array in arrays(observations, "")]
    pairs = zip(again, running.observations, strict=True)
    same = all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)
    return observations if same and np.allclose(returns, running.returns, rtol=1e-6, atol=1e-6) else None


def _together(slots: Slots, running: Running, to_environment: Callable[[Array], Any]) -> tuple[Any, Array]:
    """All that happened since the one seed that the slots were given."""
    observations, returns = slots.restart_again(), np.zeros(len(running.lengths))
    ended = np.zeros(len(returns), np.bool_)
    for actions in running.actions:
        observations, rewards, terminations, truncations, infos = slots.step(to_environment(actions))
        # What a step pays that only resets belongs to no episode.
        returns = np.where(ended, 0.0, returns) + np.where(ended & slots.resets_late, 0.0, rewards)
        ended = terminations | truncations
        if ended.any():
            observations = slots.renew(ended, observations, infos, idle=False)
    return observations, np.where(ended, 0.0, returns)


def _each(slots: Slots, running: Running, to_environment: Callable[[Array], Any]) -> tuple[Any, Array]:
    """Each slot's own episode.

    All slots can only be stepped together. So one with fewer steps than another plays them several times over, first as many
    as are left over, and ends its last time with the others. One without any is reset after each step.
    """
    rows, lengths = len(running.actions), running.lengths
    columns, period = np.arange(len(lengths)), np.maximum(lengths, 1)
    observations, returns = slots.restart_again(), np.zeros(len(lengths))
    for row in range(rows):
        at = np.where(row < rows % period, row, (row - rows % period) % period)
        begins = (at == 0) & (row > 0)
        if begins.any():
            slots.restart_again(begins)
        actions = running.actions[np.minimum(rows - lengths + at, rows - 1), columns]
        observations, rewards, *_ = slots.step(to_environment(actions))
        returns = np.where(at == 0, 0.0, returns) + rewards
    fresh = lengths == 0
    if rows and fresh.any():
        observations = slots.restart_again(fresh)
    return observations, np.where(fresh, 0.0, returns)
