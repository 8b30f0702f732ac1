"""Numbers that environments say in their infos, gathered over steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlgrad.core.checks import close_names
from rlgrad.core.faults import OutputFault

Array = np.ndarray[Any, Any]
Sums = dict[str, tuple[float, int]]
"""For each name the sum of its values, and their number."""


class InfoSums:
    """Adds up the values of some keys of the infos, over every step of every slot whose info has them.

    A key that is there at the end of episodes alone, such as `is_success`, is so added up over episodes.

    Args:
        names: keys; `outer.inner` is a key of the dict under another one.
        same_step: True if the step that ends an episode resets at once: its own info is then the `final_info`.

    Attributes:
        skipped: bool (N,), slots whose next step belongs to no episode, since it only resets.
    """

    def __init__(self, names: Sequence[str], same_step: bool) -> None:
        self._names, self._same_step = tuple(names), same_step
        self._sums: Sums = {}
        self._seen: set[str] = set()  # keys of all infos, until every name was met
        self._met: set[str] = set()
        self.skipped: Array | None = None

    def add(self, infos: Mapping[str, Any], counts: Array, ended: Array) -> None:
        """Add a step of all slots.

        Args:
            infos: from the vector environment.
            counts: bool (N,), the slots whose step belongs to an episode.
            ended: bool (N,), the slots whose episode ended in this step.

        Raises:
            OutputFault: a value is no number.
        """
        if not infos:
            return
        final = infos.get("final_info") if self._same_step and ended.any() else None
        for name in self._names:
            if self._same_step:
                self._add(name, infos, counts & ~ended)
                if isinstance(final, Mapping):
                    self._add(name, final, counts & ended)
            else:
                self._add(name, infos, counts)
        if len(self._met) < len(self._names):
            self._seen |= {key for part in (infos, final or {}) for key in part if not key.startswith("_")}

    def drain(self) -> Sums:
        """Return the sums since the last call."""
        sums, self._sums = self._sums, {}
        return sums

    def missing(self) -> str | None:
        """Return a sentence on the names that no info had so far; `None` if there are none."""
        absent = [name for name in self._names if name not in self._met]
        if not absent:
            return None
        seen = sorted(self._seen - {"final_info", "final_obs"})
        known = close_names(absent[0], seen) if seen else "The infos are empty."
        return f"No info had {', '.join(map(repr, absent))} so far, which log_info asks for. {known}"

    def _add(self, name: str, infos: Mapping[str, Any], counts: Array) -> None:
        values, given = _find(infos, name, len(counts))
        if values is None:
            return
        chosen = counts & given
        if not chosen.any():
            return
        self._met.add(name)
        try:
            numbers = np.array([float(value) for value in np.asarray(values, dtype=object)[chosen]])
        except (TypeError, ValueError) as error:
            raise _no_number(name, np.asarray(values, dtype=object)[chosen][0]) from error
        known = numbers[~np.isnan(numbers)]  # a value that there is not
        total, count = self._sums.get(name, (0.0, 0))
        self._sums[name] = total + float(known.sum()), count + len(known)


def _find(infos: Mapping[str, Any], name: str, num_envs: int) -> tuple[Any, Array]:
    """Return the values of a name (N, …), and bool (N,), where there is one; `None` without values."""
    given = np.ones(num_envs, np.bool_)
    part: Any = infos
    for key in [name] if name in infos else name.split("."):
        if not isinstance(part, Mapping) or key not in part:
            return None, given
        given = given & np.asarray(part.get(f"_{key}", given), np.bool_)
        part = part[key]
    return part, given


def _no_number(name: str, value: Any) -> OutputFault:
    shown = f"an array of shape {np.shape(value)}" if np.ndim(value) else repr(value)
    return OutputFault(
        f"log_info has {name!r}, whose value in an info is {shown}, and a log takes one number for each step: log another "
        "key, or one inside of it, as in 'outer.inner'."
    )
