"""Rollouts by steps: their episodes go on from one to the next, and where a run goes on, from one process to the next."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rlgrad.rollouts.episodes import Episode, RunningEpisodes
from rlgrad.rollouts.memory import Memory
from rlgrad.rollouts.playing import Tape, to_rollout
from rlgrad.rollouts.replaying import History, Running, replay
from rlgrad.rollouts.rollout import Rollout
from rlgrad.rollouts.slots import Slots
from rlgrad.rollouts.trees import arrays

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
