"""The loop in which a policy acts in its environments, one step of all slots after the other."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rlgrad.environments.infos import InfoSums
from rlgrad.environments.slots import Slots
from rlgrad.rollouts.base import ActingPolicy
from rlgrad.rollouts.blocks import Block, in_groups
from rlgrad.rollouts.draws import SlotDraws
from rlgrad.rollouts.lengths import MOST_STEPS, endless
from rlgrad.rollouts.memory import Memory
from rlgrad.rollouts.recording import Recording, stored
from rlgrad.rollouts.soundness import Array, require_finite_row
from rlgrad.rollouts.tape import Tape
from rlgrad.spaces.masks import MASK, require_allowed
from rlgrad.spaces.trees import map_arrays

_BLOCK = 1024  # steps of whole episodes whose random numbers are drawn at once


class Player:
    """Plays a policy in all slots together.

    Args:
        slots: the environments.
        empty: storage (0, …) of one environment's observations.
        lengths: numbers of rows that a tape may have, in ascending order: T alone for rollouts by steps.
        draws: gives the random numbers of sampled actions.
        block: which slots of the run these are.
        one_episode: stop when each slot has ended an episode, and begin no second one.
        limit: the most steps of an episode that is played like this; `None`: unknown.

    Attributes:
        slots: the environments.
        num_envs: N.
        memory: what the policy remembers in each slot.
        idle_steps: steps that slots were made to take after their only episode, because they cannot rest.
        infos: adds up values of the infos. `None`: nobody asks for them.
    """

    def __init__(
        self,
        slots: Slots,
        empty: Any,
        lengths: tuple[int, ...],
        draws: SlotDraws,
        block: Block,
        one_episode: bool,
        limit: int | None = None,
    ) -> None:
        self.slots, self.num_envs = slots, len(slots.started)
        self.memory = Memory(self.num_envs)
        self.idle_steps = 0
        self.infos: InfoSums | None = None
        self._lengths, self._draws, self._one_episode, self._limit = lengths, draws, one_episode, limit
        self._slots_of_run = block
        self._empty, self._masked = empty, isinstance(empty, dict) and MASK in empty

    def play(
        self, policy: ActingPolicy, act: Callable[..., Any], greedy: bool, observations: Any, record: bool = True
    ) -> tuple[Tape, Any]:
        """Step all slots T times, or until each has ended an episode.

        Args:
            policy: has the distribution that picks actions.
            act: its actor.
            greedy: take the most likely actions. Else the random numbers of many steps are drawn at once.
            observations: (N, …), to act on first.
            record: keep observations and log-probabilities. Else the tape has `()` in their place.

        Returns:
            The tape, as long as the first of the lengths that holds it, zeros where nothing was played; and the observations
            (N, …) to act on next.

        Raises:
            FloatingPointError: an observation that is not kept, of an episode that counts, is not finite.
            OutputFault: an observation that its space does not have, or a mask that forbids every action.
            EndlessEpisode: an episode without a limit did not end.
        """
        if record and self._lengths == (1,) and not self._one_episode and not self.memory.of(policy):
            return self._play_one(policy, act, greedy, observations)
        return self._play_rows(policy, act, greedy, observations, record)

    def _play_rows(
        self, policy: ActingPolicy, act: Callable[..., Any], greedy: bool, observations: Any, record: bool
    ) -> tuple[Tape, Any]:
        slots, memory, distribution = self.slots, self.memory, policy.distribution
        recording = Recording(self._empty, self.num_envs, self._lengths, keep=record)
        noise, said, block = np.zeros(0), [], self._block
        ended, unfinished = np.zeros(self.num_envs, np.bool_), np.ones(self.num_envs, np.bool_)
        self._draws.begin(self._one_episode)
        act = in_groups(act, self._slots_of_run, in_numpy=getattr(policy, "acts_in", None) == "numpy")
        act, late, counts_idle = memory.actor(policy, act), slots.resets_late, self._one_episode and not slots.can_rest
        remembers = bool(memory.of(policy))
        for row in range(self._most):
            recording.make_room(row)
            acted_on = recording.see(row, observations)
            if self._masked:
                require_allowed(acted_on, ended | ~unfinished if self._one_episode else ended, row)
            parameters = act(acted_on)
            if record:
                said.append(parameters)
            if row % block == 0 and not greedy:
                noise = distribution.noise(parameters, self._draws, block)
            chosen = distribution.mode(parameters)[0] if greedy else distribution.pick(parameters, noise[row % block])
            stepped = slots.step(distribution.to_environment(chosen), row)
            observations, at = stepped[0], recording.step(row, chosen, stepped)
            self._add_infos(stepped, row, ended, unfinished)
            if remembers and late and np.count_nonzero(ended):
                memory.forget(ended)
            if not record:
                slots.require_choices(recording.seen, recording.successors, row)
                require_finite_row(recording.seen, recording.successors, unfinished, row)
            np.logical_or(recording.terminations[row], recording.truncations[row], out=ended)
            if counts_idle:
                self.idle_steps += self.num_envs - int(np.count_nonzero(unfinished))
            if not np.count_nonzero(ended):
                continue
            unfinished &= ~ended
            if not late:
                observations = self._begin(ended, recording.successors, at, remembers, stepped)
            if self._one_episode and not unfinished.any():
                break
        else:
            self._require_end(unfinished)
        tape = recording.tape()
        if not record:
            return tape, observations
        played = len(said)
        slots.require_choices(
            *(map_arrays(lambda x: x[:played], tree) for tree in (recording.seen, recording.successors))
        )
        return tape._replace(log_probs=self._log_probs(distribution, said, tape.actions)), observations

    def _play_one(
        self, policy: ActingPolicy, act: Callable[..., Any], greedy: bool, observations: Any
    ) -> tuple[Tape, Any]:
        """Step all slots once, as `play` does. An agent that learns from each step as it comes waits for nothing else."""
        slots, distribution, ended = self.slots, policy.distribution, np.zeros(self.num_envs, np.bool_)
        act = in_groups(act, self._slots_of_run, in_numpy=getattr(policy, "acts_in", None) == "numpy")
        seen = stored(self._empty, observations)
        if self._masked:
            require_allowed(seen, ended, 0)
        parameters = act(seen)
        if greedy:
            chosen = distribution.mode(parameters)[0]
        else:
            chosen = distribution.pick(parameters, distribution.noise(parameters, self._draws, 1)[0])
        stepped = slots.step(distribution.to_environment(chosen))
        after, rewards, terminations, truncations, _ = stepped
        unfinished = np.ones(self.num_envs, np.bool_)
        self._add_infos(stepped, 0, ended, unfinished)
        seen, successors = (map_arrays(lambda x: x[None], tree) for tree in (seen, stored(self._empty, after)))
        log_probs = np.asarray(distribution.numpy_log_prob(parameters, chosen), np.float32)[None]
        over = terminations | truncations
        if over.any() and not slots.resets_late:
            after = self._begin(over, successors, 0, False, stepped)
        slots.require_choices(seen, successors)
        # Copies, since a vector environment may write its next step into the same arrays.
        rewards = np.array(rewards, np.float64)[None]
        terminations, truncations = (np.array(x, np.bool_)[None] for x in (terminations, truncations))
        return Tape(seen, chosen[None], rewards, terminations, truncations, successors, log_probs), after

    def _add_infos(self, stepped: tuple[Any, ...], row: int, ended: Array, unfinished: Array) -> None:
        """Add what the infos of a step say. `ended`: slots whose episode ended in the step before."""
        if self.infos is None:
            return
        counts = unfinished if self._one_episode else np.ones_like(ended)
        if self.slots.resets_late:  # the step after an end only resets
            before = self.infos.skipped if row == 0 else ended
            counts = counts if before is None else counts & ~before
        self.infos.add(stepped[4], counts, stepped[2] | stepped[3])

    def _begin(self, ended: Array, successors: Any, at: int, remembers: bool, stepped: tuple[Any, ...]) -> Any:
        """Begin the next episodes, or let slots rest that have played theirs. Return the observations to act on next."""
        if remembers:
            self.memory.forget(ended)
        return self.slots.renew(ended, stepped[0], stepped[4], successors=successors, row=at, idle=self._one_episode)

    def _require_end(self, unfinished: Array) -> None:
        if self._one_episode and self._limit is None:
            raise endless(int(np.count_nonzero(unfinished)), self.num_envs)

    @property
    def _most(self) -> int:
        """The most steps of a call."""
        if not self._one_episode:
            return self._lengths[-1]
        return MOST_STEPS if self._limit is None else self._limit

    @property
    def _block(self) -> int:
        """The number of steps whose random numbers are drawn at once."""
        return min(self._most, _BLOCK) if self._one_episode else self._most

    def _log_probs(self, distribution: Any, said: list[Any], actions: Array) -> Array:
        """Return log π(a|s) (T, N) of the rows that were played, zeros in the others, from the parameters of each row."""
        log_probs, played = np.zeros(actions.shape[:2], np.float32), len(said)
        parameters = map_arrays(lambda *parts: np.concatenate(parts).reshape(played, *parts[0].shape), *said)
        log_probs[:played] = distribution.numpy_log_prob(parameters, actions[:played])
        return log_probs
