"""The environments of a vector environment, one a slot, with its autoreset mode and its seeds behind two methods."""

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
    environment that resets its environments itself is seeded once, from the stream, and goes on from there.

    Args:
        environment: the vector environment.
        sequence: the stream of seeds.

    Attributes:
        started: for each slot, how many episodes have had a seed of their own.
        generation: how often a run was gone on with; environments that are seeded once get another seed each time.
    """

    def __init__(self, environment: Environment, sequence: np.random.SeedSequence) -> None:
        self._environment = environment
        self._sequence = sequence
        self.started = [0] * environment.vector.num_envs
        self.generation = 0
        self._seeded = False

    @property
    def resets_late(self) -> bool:
        """Whether an episode begins only after another step, which resets."""
        return self._environment.autoreset_mode is AutoresetMode.NEXT_STEP

    def restart(self) -> Any:
        """Begins a new episode in every slot and returns the first observations (N, …)."""
        if self._environment.seeds_each_episode:
            return self._reset(self._seeds(range(len(self.started))), None)
        seed = None if self._seeded else integer_seed(child(self._sequence, self.generation))
        self._seeded = True
        return self._reset(seed, None)

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
        successors: Any,
        *,
        row: int,
        idle: bool,
    ) -> Any:
        """What to act on after a step that ended the episode of some slots.

        Args:
            ended: bool (N,).
            observations: (N, …), what the step returned.
            infos: what the step returned.
            successors: (T, N, …), where the true successors are put if the environments have already reset.
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
            for slot in slots:
                put_one(successors, (row, slot), _final_observation(infos, slot))
            return observations
        seeds = self._seeds(slots) if self._environment.seeds_each_episode and not idle else None
        return self._reset(seeds, {"reset_mask": ended})

    def _seeds(self, slots: Any) -> list[int | None]:
        seeds: list[int | None] = [None] * len(self.started)
        for slot in slots:
            seeds[slot] = integer_seed(child(self._sequence, slot, self.started[slot]))
            self.started[slot] += 1
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
