"""The environments of a vector environment, one a slot, with its autoreset mode and its seeds behind two methods."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from rlgrad.random import child, integer_seed
from rlgrad.rollouts.environments import Environment
from rlgrad.rollouts.trees import put_one, slot_of

_SEVERAL = (
    "The environment gives several numbers where a step has one reward, one 'terminated' and one 'truncated', as those of "
    "several agents do: wrap it so that it gives one of each."
)


class Slots:
    """Starts episodes, each with its own seed where the vector environment takes one.

    The seed of an episode is a pure function of the stream, the slot and the episode's number in it. A vector
    environment that resets its environments itself is seeded at each restart, from the stream, and goes on from there.

    Args:
        environment: the vector environment.
        sequence: the stream of seeds.

    Attributes:
        started: for each slot, how many episodes have had a seed of their own.
        restarts: how often all slots were given one seed together.
    """

    def __init__(self, environment: Environment, sequence: np.random.SeedSequence) -> None:
        self._environment = environment
        self._sequence = sequence
        self.started = [0] * environment.vector.num_envs
        self.restarts = 0

    @property
    def seeds_each_episode(self) -> bool:
        """Whether each episode has a seed of its own."""
        return self._environment.seeds_each_episode

    @property
    def resets_late(self) -> bool:
        """Whether an episode begins only after another step, which resets."""
        return self._environment.autoreset_mode is AutoresetMode.NEXT_STEP

    def restart(self) -> Any:
        """Begins a new episode in every slot and returns the first observations (N, …)."""
        if self.seeds_each_episode:
            self.started = [number + 1 for number in self.started]
        else:
            self.restarts += 1
        return self.restart_again()

    def restart_again(self, some: np.ndarray[Any, Any] | None = None) -> Any:
        """Begins the episodes again that are running, or those of some slots, bool (N,), and returns observations (N, …)."""
        if not self.seeds_each_episode:
            return self._reset(integer_seed(child(self._sequence, self.restarts - 1)), None)
        slots = range(len(self.started)) if some is None else np.flatnonzero(some).tolist()
        return self._reset(self._seeds(slots), None if some is None else {"reset_mask": some})

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step of every slot, as the vector environment returns it."""
        try:
            stepped = self._environment.vector.step(actions)
        except ValueError as error:
            if "array element with a sequence" in str(error):  # Gymnasium's, where a step gives a tuple of rewards
                raise ValueError(_SEVERAL) from error
            self._explain(error)
            raise
        if np.shape(stepped[1]) != (len(self.started),):
            raise ValueError(_SEVERAL)
        return stepped

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
        if not self.seeds_each_episode or idle:
            return self._reset(None, {"reset_mask": ended})
        for slot in slots:
            self.started[slot] += 1
        return self.restart_again(ended)

    def _seeds(self, slots: Iterable[int]) -> list[int | None]:
        """The seeds of the episodes that some slots have started last."""
        seeds: list[int | None] = [None] * len(self.started)
        for slot in slots:
            seeds[slot] = integer_seed(child(self._sequence, slot, self.started[slot] - 1))
        return seeds

    def _reset(self, seed: Any, options: dict[str, Any] | None) -> Any:
        try:
            return self._environment.vector.reset(seed=seed, options=options)[0]
        except ValueError as error:
            self._explain(error)
            raise

    def _explain(self, error: ValueError) -> None:
        # Gymnasium copies observations into arrays of the space's shape; what NumPy says when that fails names neither.
        if "shape" in str(error):
            space = self._environment.vector.single_observation_space
            raise ValueError(
                f"An observation may not have the shape of the observation space {space}: {error}."
            ) from error


def _final_observation(infos: dict[str, Any], slot: int) -> Any:
    try:
        final = infos["final_obs"]
    except KeyError:
        raise ValueError(
            "The vector environment says AutoresetMode.SAME_STEP but gave no infos['final_obs'] when an episode ended."
        ) from None
    return slot_of(final, slot)
