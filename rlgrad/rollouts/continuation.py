"""Rollouts by steps: their episodes continue from one rollout to the next, and in a resumed run from another process."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rlgrad.data import Episode, Rollout
from rlgrad.environments.slots import Slots
from rlgrad.rollouts.base import ActingPolicy
from rlgrad.rollouts.episodes import RunningEpisodes
from rlgrad.rollouts.player import Player
from rlgrad.rollouts.soundness import Array
from rlgrad.rollouts.tape import to_rollout
from rlgrad.spaces.trees import arrays

_log = logging.getLogger("rlgrad")
_ROWS_TO_PLAY_AGAIN = 5000  # of all slots, without learning


class Continuation:
    """Collects rollouts by steps. Each begins where the one before ended.

    Args:
        player: plays the policy.

    Attributes:
        observations: (N, …), to act on next; `None`: nothing is running.
    """

    def __init__(self, player: Player) -> None:
        self._player, self._slots, self._memory = player, player.slots, player.memory
        self.observations: Any = None
        self._running = RunningEpisodes(player.num_envs)
        self._resets_first = np.zeros(player.num_envs, np.bool_)
        self._history = History()
        self._interrupted: Running | None = None  # episodes of another process, to be replayed
        self._rows_since_change: int | None = None  # of the environments by a call; `None`: running episodes saw none

    def collect(
        self, policy: ActingPolicy, actor: Callable[..., Any] | None, greedy: bool
    ) -> tuple[Rollout, list[Episode]]:
        """Play the next rollout, and return it with the episodes that it finished.

        Args:
            policy: acts.
            actor: its actor. `None`: taken from the policy.
            greedy: take the distribution's mode instead of sampling.
        """
        observations, self.observations = self.observations, None
        if observations is None:
            observations = self._replayed(policy)
        if observations is None:  # the first rollout, or the one after an interrupted one
            observations = self._slots.restart()
            self._memory.begin(policy)
            self._running = RunningEpisodes(self._player.num_envs)
            self._resets_first[:] = False
            self._history = History()
        initial_states = self._memory.of(policy)
        act = policy.actor() if actor is None else actor
        if self._player.infos is not None:
            self._player.infos.skipped = self._resets_first.copy()
        tape, observations = self._player.play(policy, act, greedy, observations)
        ends = tape.terminations | tape.truncations
        mask = np.ones(ends.shape, np.bool_)
        if self._slots.resets_late and (ends.any() or self._resets_first.any()):
            # The step after an episode's end only resets: its action is ignored and its successor begins an episode.
            mask[0], mask[1:] = ~self._resets_first, ~ends[:-1]
            tape.rewards[~mask] = 0.0
            self._resets_first = ends[-1]
        rollout = to_rollout(tape, mask, columns_per_slot=1, initial_states=initial_states)
        finished = self._running.advance(tape.rewards, tape.terminations, ends, mask)
        self.observations = observations
        self._history.add(tape.actions)
        if self._rows_since_change is not None:
            self._rows_since_change += len(tape.actions)
            if int(self._running.lengths.max()) <= self._rows_since_change:
                self._rows_since_change = None  # all episodes began after it
        if self._slots.seeds_each_episode:
            self._history.keep(int(self._running.lengths.max()))
        return rollout, finished

    def begin_anew(self) -> None:
        """Drop the running episodes if a replay would take long, without seeds of their own, or could not repeat them."""
        long = not self._slots.seeds_each_episode and self._history.rows >= _ROWS_TO_PLAY_AGAIN
        if long or self._rows_since_change is not None:
            self.observations = self._interrupted = self._rows_since_change = None

    def note_change(self) -> None:
        """Remember that the environments were changed while episodes run: a replay would begin them in changed ones."""
        self._rows_since_change = None if self.observations is None else 0

    def state(self) -> dict[str, Any] | None:
        """Return what `restore` takes; `None` if nothing is running."""
        if self._interrupted is not None:
            return self._interrupted._asdict()
        if self.observations is None:
            return None
        running = self._running
        rows = int(running.lengths.max()) if self._slots.seeds_each_episode else None
        return Running(
            actions=self._history.last(rows),
            observations=[array.copy() for _, array in arrays(self.observations, "")],
            returns=running.returns.copy(),
            lengths=running.lengths.copy(),
            resets_first=self._resets_first.copy(),
            memories=self._memory.state(),
        )._asdict()

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Continue with the episodes of `state`, if there are any, from the next rollout on."""
        self.observations = None
        self._interrupted = None if state is None else Running(**state)

    def _replayed(self, policy: ActingPolicy) -> Any:
        """Return the observations to act on next in interrupted episodes; `None` if there are none, or a replay differs."""
        interrupted, self._interrupted = self._interrupted, None
        if interrupted is None:
            return None
        observations = replay(self._slots, interrupted, policy.distribution.to_environment)
        if observations is None:
            _log.warning(
                "This environment is not deterministic under a seed, or was changed: a replay of its episodes gave other ones. "
                "Training continues with new episodes; weights, optimizer and counters are those that were saved, but the "
                "results are not those of a run without interruption."
            )
            return None
        self._running.returns, self._running.lengths = interrupted.returns, interrupted.lengths
        self._resets_first = interrupted.resets_first
        self._memory.restore(policy, interrupted.memories)
        self._history = History()
        self._history.add(interrupted.actions)
        return observations


class Running(NamedTuple):
    """The unfinished episodes of N slots, as a checkpoint keeps them.

    Attributes:
        actions: (rows, N, …), as the distribution gave them: the last ones, as many as a replay needs.
        observations: (N, …), to act on next; the arrays of the tree.
        returns: float64 (N,), of each so far.
        lengths: int64 (N,), steps of each so far.
        resets_first: bool (N,), True if the next step only resets.
        memories: (N, …), states of the policy; the arrays of the tree.
    """

    actions: Array
    observations: list[Array]
    returns: Array
    lengths: Array
    resets_first: Array
    memories: list[Array]


class History:
    """The actions of the last rollouts, (T, N, …) each, back to the beginning of the running episodes.

    Attributes:
        rows: the number of steps of each slot.
    """

    def __init__(self) -> None:
        self._tapes: list[Array] = []
        self.rows = 0

    def add(self, actions: Array) -> None:
        """Add a rollout's actions. The array is kept, and must not be changed."""
        self._tapes.append(actions)
        self.rows += len(actions)

    def keep(self, rows: int) -> None:
        """Forget rollouts that are older than so many rows; the last rollout stays."""
        while len(self._tapes) > 1 and self.rows - len(self._tapes[0]) >= rows:
            self.rows -= len(self._tapes.pop(0))

    def last(self, rows: int | None = None) -> Array:
        """Return the last rows. `None`: all of them."""
        whole = np.concatenate(self._tapes)
        return whole if rows is None else whole[len(whole) - rows :]


def replay(slots: Slots, running: Running, to_environment: Callable[[Array], Any]) -> Any:
    """Bring the environments of fresh slots to where the running episodes stand.

    Args:
        slots: with the counters that they had there.
        running: the episodes.
        to_environment: from the distribution's actions to those of the environment.

    Returns:
        The observations (N, …) to act on next, or `None` if the environments gave others than before.
    """
    if not (all(slots.started) if slots.seeds_each_episode else slots.restarts):
        return None  # they had seeds of the other kind: those environments were stepped in another way
    play = _each if slots.seeds_each_episode else _together
    observations, returns = play(slots, running, to_environment)
    if observations is None:
        return None
    again = [array for _, array in arrays(observations, "")]
    pairs = zip(again, running.observations, strict=True)
    same = all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)
    return observations if same and np.allclose(returns, running.returns, rtol=1e-6, atol=1e-6) else None


def _together(slots: Slots, running: Running, to_environment: Callable[[Array], Any]) -> tuple[Any, Array]:
    """Replay all steps since the slots were seeded together."""
    observations, returns = slots.restart_again(), np.zeros(len(running.lengths))
    ended = np.zeros(len(returns), np.bool_)
    for actions in running.actions:
        observations, rewards, terminations, truncations, infos = slots.step(to_environment(actions))
        # The reward of a step that only resets belongs to no episode.
        returns = np.where(ended, 0.0, returns) + np.where(ended & slots.resets_late, 0.0, rewards)
        ended = terminations | truncations
        if ended.any():
            observations = slots.renew(ended, observations, infos, idle=False)
    return observations, np.where(ended, 0.0, returns)


def _each(slots: Slots, running: Running, to_environment: Callable[[Array], Any]) -> tuple[Any, Array]:
    """Replay the episode of each slot.

    Slots can only be stepped together. A slot with fewer steps than the longest one repeats its episode, so that its last
    repetition ends in the last row; the rows before the first whole repetition are filled with a part of one. A slot without
    steps is reset after each row. The observations are `None` if an episode ends before it has its steps.
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
        observations, rewards, terminations, truncations, _ = slots.step(to_environment(actions))
        if (terminations | truncations).any():  # where the running episode did not end
            return None, returns
        returns = np.where(at == 0, 0.0, returns) + rewards
    fresh = lengths == 0
    if rows and fresh.any():
        observations = slots.restart_again(fresh)
    return observations, np.where(fresh, 0.0, returns)
