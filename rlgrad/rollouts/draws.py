"""Random numbers of sampled actions: one stream a slot, so that a slot's actions do not depend on the slots beside it.

A generator is asked once for all steps of a rollout, not once a step. Distributions know nothing of it: they ask for an array
whose second axis is the slots, as they would ask `numpy.random.Generator`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlgrad.random import child

Array = np.ndarray[Any, Any]
_WHOLE_EPISODES = 1  # the last number of a key, which no episode's seed has


class SlotDraws:
    """The part of a `numpy.random.Generator` that distributions ask, with a generator for each slot.

    Rollouts by steps draw as much for one slot as for another, so that each stream continues. Whole episodes have numbers of
    their own for each time that all slots play one (`begin`), however long other slots play.

    Args:
        sequence: the stream of the run. Slot n has its child n.
        slots: numbers of the slots.
    """

    def __init__(self, sequence: np.random.SeedSequence, slots: Sequence[int]) -> None:
        self._sequence, self._slots = sequence, slots
        self._begun = 0
        self._generators = [np.random.Generator(np.random.PCG64(child(sequence, slot))) for slot in slots]
        self._together: np.random.Generator | None = None  # of an older checkpoint, one for all slots

    def begin(self, episodes: bool) -> None:
        """Prepare for a rollout: for `episodes`, begin the numbers of an episode in every slot."""
        if not episodes:
            return
        if self._together is None:
            keys = [(slot, self._begun, _WHOLE_EPISODES) for slot in self._slots]
            self._generators = [np.random.Generator(np.random.PCG64(child(self._sequence, *key))) for key in keys]
        self._begun += 1

    def random(self, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
        """Return uniform numbers, shape (count, slots, …)."""
        return self._drawn("random", shape, dtype)

    def standard_normal(self, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
        """Return standard normal numbers, shape (count, slots, …)."""
        return self._drawn("standard_normal", shape, dtype)

    def standard_exponential(self, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
        """Return exponential numbers, shape (count, slots, …)."""
        return self._drawn("standard_exponential", shape, dtype)

    def __getattr__(self, name: str) -> Callable[..., Array]:
        """Return any other method of a generator, for a distribution that draws other numbers; last comes the size."""
        if name.startswith("_"):  # asked by libraries, before there are generators
            raise AttributeError(name)

        def drawn(*arguments: Any, **options: Any) -> Array:
            *others, size = (*arguments, options.pop("size")) if "size" in options else arguments
            if self._together is not None:
                numbers: Array = getattr(self._together, name)(*others, size=size, **options)
                return numbers
            count, _, *event = size
            own = [getattr(g, name)(*others, size=(count, 1, *event), **options) for g in self._generators]
            return np.concatenate(own, axis=1)

        return drawn

    def state(self) -> Any:
        """Return what `restore` takes: numbers that JSON can hold."""
        if self._together is not None:
            return self._together.bit_generator.state
        return {"begun": self._begun, "slots": [_numbers(generator) for generator in self._generators]}

    def restore(self, state: Any) -> None:
        """Continue from `state`, or from that of an older version: one generator, which then goes on drawing for all slots."""
        self._together = None
        if "slots" not in state:
            self._together = np.random.Generator(np.random.PCG64())
            self._together.bit_generator.state = state
            return
        self._begun = state["begun"]
        for generator, numbers in zip(self._generators, state["slots"], strict=True):
            generator.bit_generator.state = _whole_state(numbers)

    def _drawn(self, kind: str, shape: tuple[int, ...], dtype: Any) -> Array:
        alone = self._together or (self._generators[0] if len(self._generators) == 1 else None)
        if alone is not None:
            numbers: Array = getattr(alone, kind)(shape, dtype=dtype)
            return numbers
        count, slots, *event = shape
        drawn = np.empty((slots, count, *event), dtype)
        for generator, out in zip(self._generators, drawn, strict=True):
            draw: Callable[..., Array] = getattr(generator, kind)
            draw(dtype=dtype, out=out)
        return drawn.swapaxes(0, 1)


def _numbers(generator: np.random.Generator) -> list[int]:
    state = generator.bit_generator.state
    return [state["state"]["state"], state["state"]["inc"], state["has_uint32"], state["uinteger"]]


def _whole_state(numbers: Sequence[int]) -> dict[str, Any]:
    state, inc, has_uint32, uinteger = numbers
    return {
        "bit_generator": "PCG64",
        "state": {"state": state, "inc": inc},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
