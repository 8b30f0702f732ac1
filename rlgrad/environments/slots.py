"""The environments of a vector environment, one a slot, with its autoreset mode and its seeds behind two methods."""

from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
from gymnasium.vector import AutoresetMode

from rlgrad.core.faults import Blame, EnvironmentFault, RemoteTraceback
from rlgrad.environments.guarding import (
    FAULT,
    NOTHING,
    from_infos,
    guards_of,
    raised,
    require_in_ranges,
    wrong_in_batch,
)
from rlgrad.environments.vector import Environment
from rlgrad.random import child, integer_seed
from rlgrad.spaces.trees import put_one, ranges, slot_of

_FIRST = "in the reset before step 0"


class Slots:
    """Starts episodes, each with its own seed where the vector environment takes one.

    The seed of an episode is a pure function of the stream, the slot and the episode's number in it. A vector
    environment that resets its environments itself is seeded at each restart, from the stream, and goes on from there.

    Args:
        environment: the vector environment.
        sequence: the stream of seeds.

    Attributes:
        started: for each slot, how many episodes have had a seed of their own.
        restarts: how often all slots were seeded together.
        seeds_each_episode: True if each episode has a seed of its own.
        resets_late: True if an episode begins only after one more step, which resets.
    """

    def __init__(self, environment: Environment, sequence: np.random.SeedSequence) -> None:
        self._environment = environment
        self._sequence = sequence
        self.started = [0] * environment.vector.num_envs
        self.restarts = 0
        self.seeds_each_episode = environment.seeds_each_episode
        self.resets_late = environment.autoreset_mode is AutoresetMode.NEXT_STEP
        self._guards = guards_of(environment.vector)
        self._looked_at: set[str] = set()  # "reset" and "step", once what they give was looked at
        self._ranges = ranges(environment.vector.single_observation_space)

    def restart(self) -> Any:
        """Begins a new episode in every slot and returns the first observations (N, …)."""
        if self.seeds_each_episode:
            self.started = [number + 1 for number in self.started]
        else:
            self.restarts += 1
        return self.restart_again()

    def restart_again(self, some: np.ndarray[Any, Any] | None = None, when: str = _FIRST) -> Any:
        """Begins the episodes again that are running, or those of some slots, bool (N,), and returns observations (N, …).

        Args:
            some: bool (N,); none: all.
            when: for messages.
        """
        if not self.seeds_each_episode:
            return self._reset(integer_seed(child(self._sequence, self.restarts - 1)), None, when)
        slots = range(len(self.started)) if some is None else np.flatnonzero(some).tolist()
        return self._reset(self._seeds(slots), None if some is None else {"reset_mask": some}, when)

    def step(self, actions: Any, row: int = 0) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step of every slot, as the vector environment returns it.

        Args:
            actions: (N, …).
            row: the number of the step, for messages.

        Raises:
            EnvironmentFault: an environment failed, or gave what it should not have; names slot and step.
        """
        try:
            stepped = self._environment.vector.step(actions)
        except Exception as error:
            self._explain(error, f"in step {row}")
        if "step" not in self._looked_at or FAULT in stepped[4]:
            self._look_at("step", stepped, f"in step {row}")
        return stepped

    def require_choices(self, before: Any, after: Any, first_row: int = 0) -> None:
        """Raise an OutputFault where an observation (T, N, …) is none of the choices that its space has.

        Args:
            before: what was acted on.
            after: what followed.
            first_row: the step of the first row, for the message.
        """
        # As for numbers that are not finite, the step that led there is named, not the one that began there.
        require_in_ranges(after, self._ranges, "after", first_row=first_row)
        require_in_ranges(before, self._ranges, "before", first_row=first_row)

    def renew(
        self,
        ended: np.ndarray[Any, Any],
        observations: Any,
        infos: dict[str, Any],
        *,
        successors: Any = None,
        row: int = 0,
        idle: bool,
    ) -> Any:
        """What to act on after a step that ended the episode of some slots.

        Args:
            ended: bool (N,).
            observations: (N, …), what the step returned.
            infos: what the step returned.
            successors: (T, N, …), where the true successors are put if the environments have already reset; none: nowhere.
            row: the row of this step in `successors`.
            idle: the slots have played what they should: reset them if they could not be stepped otherwise, but do not
                use up the seeds of later episodes.

        Returns:
            (N, …).
        """
        if self.resets_late:
            return observations
        slots = np.flatnonzero(ended).tolist()
        if self._environment.autoreset_mode is AutoresetMode.SAME_STEP:
            for slot in slots if successors is not None else ():
                put_one(successors, (row, slot), _final_observation(infos, slot))
            return observations
        when = f"in the reset after step {row}"
        if not self.seeds_each_episode or idle:
            return self._reset(None, {"reset_mask": ended}, when)
        for slot in slots:
            self.started[slot] += 1
        return self.restart_again(ended, when)

    def _seeds(self, slots: Iterable[int]) -> list[int | None]:
        """The seeds of the episodes that some slots have started last."""
        seeds: list[int | None] = [None] * len(self.started)
        for slot in slots:
            seeds[slot] = integer_seed(child(self._sequence, slot, self.started[slot] - 1))
        return seeds

    def _reset(self, seed: Any, options: dict[str, Any] | None, when: str) -> Any:
        try:
            begun = self._environment.vector.reset(seed=seed, options=options)
        except Exception as error:
            self._explain(error, when)
        if "reset" not in self._looked_at or FAULT in begun[1]:
            self._look_at("reset", begun, when)
        return begun[0]

    def _look_at(self, method: str, gave: Any, when: str) -> None:
        told = isinstance(gave, tuple) and isinstance(gave[-1], dict) and FAULT in gave[-1]
        wrong = from_infos(gave[-1]) if told else self._wrong(gave)
        if wrong is not None:
            raise wrong.fault(when) from (RemoteTraceback(wrong.trace) if wrong.trace else None)
        self._looked_at.add(method)

    def _wrong(self, gave: Any) -> Blame | None:
        """What is wrong with what the environments gave last, as each of them gave it or as all of them did."""
        space = self._environment.vector.single_observation_space
        each = next((found for found in (guard.wrong() for guard in self._guards) if found is not None), None)
        return each if each is not None or self._guards else wrong_in_batch(gave, space, len(self.started))

    def _explain(self, error: Exception, when: str) -> NoReturn:
        """Raise what happened in words: whose fault it was, if anybody's that can be named."""
        if isinstance(error, EnvironmentFault):
            raise error
        if isinstance(error, Blame):  # of one environment, which raised the cause
            raise error.fault(when) from error.__cause__
        wrong = self._wrong(NOTHING) or raised(None, error)
        raise wrong.fault(when) from error


def _final_observation(infos: dict[str, Any], slot: int) -> Any:
    try:
        final = infos["final_obs"]
    except KeyError:
        raise ValueError(
            "The vector environment says AutoresetMode.SAME_STEP but gave no infos['final_obs'] when an episode ended."
        ) from None
    return slot_of(final, slot)
