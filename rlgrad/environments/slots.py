"""The slots of a vector environment: episodes with seeds of their own, and one way to step whatever its autoreset mode."""

from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlgrad.core.faults import Blame, EnvironmentFault, RemoteTraceback
from rlgrad.environments.guarding import (
    FAULT,
    NOTHING,
    blame_exception,
    find_wrong_in_batch,
    guards_of,
    reach,
    read_fault,
    require_in_ranges,
)
from rlgrad.environments.masking import MaskInObservation
from rlgrad.environments.processes import Processes
from rlgrad.environments.vector import Environment
from rlgrad.random import child, integer_seed
from rlgrad.spaces.trees import put_one, ranges, slot_of

_FIRST = "in the reset before step 0"


class Slots:
    """Steps all environments, and starts their episodes, each with its own seed if the vector environment takes one.

    The seed of an episode is a pure function of the stream, the slot and the episode's number in it. A vector environment that
    resets its environments itself is seeded at each restart, from the stream, and seeds its later episodes itself.

    Args:
        environment: the vector environment.
        sequence: the stream of seeds.
        first: number of the first slot, where other processes step slots of the same run.

    Attributes:
        started: for each slot, the number of episodes with a seed of their own so far.
        restarts: how often all slots were seeded together.
        seeds_each_episode: True if each episode has a seed of its own.
        resets_late: True if an episode begins only after one more step, which resets.
        can_rest: True if a slot can be left alone while others are stepped.
    """

    def __init__(self, environment: Environment, sequence: np.random.SeedSequence, first: int = 0) -> None:
        self._environment = environment
        self._sequence, self._first = sequence, first
        self.started = [0] * environment.vector.num_envs
        self.restarts = 0
        self.seeds_each_episode = environment.seeds_each_episode
        self.resets_late = environment.autoreset_mode is AutoresetMode.NEXT_STEP
        self._guards = guards_of(environment.vector)
        inner = environment.vector.env if isinstance(environment.vector, MaskInObservation) else environment.vector
        self._processes = inner if isinstance(inner, Processes) else None
        self.can_rest = bool(self._guards) or self._processes is not None
        self._resting = np.zeros(environment.vector.num_envs, np.bool_)
        self._checked: set[str] = set()  # "reset" and "step", once a result of theirs was checked
        self._ranges = ranges(environment.vector.single_observation_space)

    def restart(self) -> Any:
        """Begin a new episode in every slot, and return the first observations (N, …)."""
        self._rest(np.zeros_like(self._resting))
        if self.seeds_each_episode:
            self.started = [number + 1 for number in self.started]
        else:
            self.restarts += 1
        return self.restart_again()

    def restart_again(self, some: np.ndarray[Any, Any] | None = None, when: str = _FIRST) -> Any:
        """Begin the running episodes again, and return observations (N, …).

        Args:
            some: bool (N,), of these slots. `None`: of all.
            when: for messages.
        """
        if not self.seeds_each_episode:
            return self._reset(integer_seed(child(self._sequence, self.restarts - 1)), None, when)
        slots = range(len(self.started)) if some is None else np.flatnonzero(some).tolist()
        return self._reset(self._seeds(slots), None if some is None else {"reset_mask": some}, when)

    def step(self, actions: Any, row: int = 0) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every slot, and return what the vector environment returns.

        Args:
            actions: (N, …).
            row: the number of the step, for messages.

        Raises:
            EnvironmentFault: an environment failed, or returned a wrong value; names slot and step.
        """
        try:
            stepped = self._environment.vector.step(actions)
        except Exception as error:
            self._explain(error, f"in step {row}")
        if "step" not in self._checked or FAULT in stepped[4]:
            self._check("step", stepped, f"in step {row}")
        return stepped

    def reach(self, name: str, arguments: list[Any], options: dict[str, Any], sets: bool) -> list[Any]:
        """Call a method of every environment, or set an attribute. Return the result of each; of a vectorized class, its one.

        Args:
            name: of the method or attribute.
            arguments: of the method, or the value of the attribute.
            options: keyword arguments of the method.
            sets: True for an attribute.

        Raises:
            ValueError: an environment has no such member, or the method raised; names the slot.
        """
        vector: Any = self._environment.vector.unwrapped
        if self._guards or self._processes is not None:
            answers = vector.call("reach", name, arguments, options, sets)
        elif hasattr(vector, "call") and hasattr(vector, "set_attr"):
            answers = _reach_given(vector, name, arguments, options, sets)
        else:  # all environments are one object
            answers = [reach(vector, name, arguments, options, sets)]
        for slot, (_, wrong) in enumerate(answers):
            if wrong is not None:
                raise ValueError(f"The environment in slot {slot} was not reached: {wrong}")
        return [result for result, _ in answers]

    def require_choices(self, before: Any, after: Any, first_row: int = 0) -> None:
        """Raise an OutputFault for an observation (T, N, …) outside of the choices of its space.

        Args:
            before: observations that were acted on.
            after: their successors.
            first_row: the step of the first row, for the message.
        """
        # Successors come first, so that the message names the step that led to a value, not the one that began with it.
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
        """Return the observations to act on after a step that ended the episode of some slots.

        Args:
            ended: bool (N,).
            observations: (N, …), from the step.
            infos: from the step.
            successors: (T, N, …), to store the true successors in if the environments have already reset. `None`: not stored.
            row: the row of this step in `successors`.
            idle: the slots have played their episodes. Let them rest until all restart, if they can. Else reset them if they
                cannot be stepped otherwise, but keep the seeds of later episodes for later.

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
        if idle and self.can_rest:
            self._rest(self._resting | ended)
        if not self.seeds_each_episode or idle:
            return self._reset(None, {"reset_mask": ended}, when)
        for slot in slots:
            self.started[slot] += 1
        return self.restart_again(ended, when)

    def _rest(self, resting: np.ndarray[Any, Any]) -> None:
        """Leave some slots, bool (N,), alone. A reset only tells the vector environment that they may be stepped."""
        if np.array_equal(resting, self._resting):
            return
        self._resting = resting
        if self._processes is not None:
            self._processes.rest(resting.tolist())
        for guard, rests in zip(self._guards, resting.tolist(), strict=False):
            guard.resting = rests

    def _seeds(self, slots: Iterable[int]) -> list[int | None]:
        """Return the seeds of the episodes that some slots have started last."""
        seeds: list[int | None] = [None] * len(self.started)
        for slot in slots:
            seeds[slot] = integer_seed(child(self._sequence, self._first + slot, self.started[slot] - 1))
        return seeds

    def _reset(self, seed: Any, options: dict[str, Any] | None, when: str) -> Any:
        try:
            begun = self._environment.vector.reset(seed=seed, options=options)
        except Exception as error:
            self._explain(error, when)
        if "reset" not in self._checked or FAULT in begun[1]:
            self._check("reset", begun, when)
        return begun[0]

    def _check(self, method: str, gave: Any, when: str) -> None:
        reported = isinstance(gave, tuple) and isinstance(gave[-1], dict) and FAULT in gave[-1]
        wrong = read_fault(gave[-1]) if reported else self._wrong(gave)
        if wrong is not None:
            raise wrong.fault(when) from (RemoteTraceback(wrong.trace) if wrong.trace else None)
        self._checked.add(method)

    def _wrong(self, gave: Any) -> Blame | None:
        """Return the fault in the last results, of one environment if they are at hand, else of all together."""
        space = self._environment.vector.single_observation_space
        each = next((found for found in (guard.wrong() for guard in self._guards) if found is not None), None)
        return each if each is not None or self._guards else find_wrong_in_batch(gave, space, len(self.started))

    def _explain(self, error: Exception, when: str) -> NoReturn:
        """Raise an exception that names slot and step, if the slot is known."""
        if isinstance(error, EnvironmentFault):
            raise error
        if isinstance(error, Blame):  # of one environment, which raised the cause
            raise error.fault(when) from error.__cause__
        wrong = self._wrong(NOTHING) or blame_exception(None, error)
        raise wrong.fault(when) from error


def _reach_given(vector: Any, name: str, arguments: list[Any], options: dict[str, Any], sets: bool) -> list[Any]:
    """Reach the environments of a vector environment that the user made."""
    if isinstance(vector, SyncVectorEnv):
        return [reach(env, name, arguments, options, sets) for env in vector.envs]
    try:
        if sets:
            vector.get_attr(name)
            vector.set_attr(name, [arguments[0]] * vector.num_envs)
            return [(None, None)] * vector.num_envs
        return [(result, None) for result in vector.call(name, *arguments, **options)]
    except Exception as error:  # whatever the environments raise
        return [(None, f"{name} raised {type(error).__name__}: {error}")]


def _final_observation(infos: dict[str, Any], slot: int) -> Any:
    try:
        final = infos["final_obs"]
    except KeyError:
        raise ValueError(
            "The vector environment says AutoresetMode.SAME_STEP but gave no infos['final_obs'] when an episode ended."
        ) from None
    return slot_of(final, slot)
