"""Numbers that change while training: factors of progress, in any form.

A schedule is a text, which a file and a command line hold, or in Python a function from progress to the factor:

| schedule | factor at progress p, 0 … 1 |
|---|---|
| `constant` | 1 |
| `linear(end=0.0, over=1.0)` | goes straight from 1 to `end`, reached after a share `over` of training |
| `cosine(end=0.0, over=1.0)` | the same along half a cosine |
| `exponential(end=0.01, over=1.0)` | the same by a constant factor per step |
| `piecewise(at=[0.5, 0.8], values=[1.0, 0.1, 0.01])` | one value up to each place, then the next |
| `interpolated(at=[0.0, 0.1, 1.0], values=[0.0, 1.0, 0.0])` | straight between the values at these places |
| `my_schedules.py:warmup`, `module:name` | that function of p |

Arguments may be left out where they have a default: `cosine` alone goes to 0 at the end of training.
"""

import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from rlgrad.core import registry
from rlgrad.core.checks import check_keys, close_names

Schedule: TypeAlias = str | Callable[[Any], Any]
"""A schedule as a field takes it."""
GIVEN = "given as a function"  # in the place of a function that another process does not find
_FORMS: dict[str, dict[str, Any]] = {
    "constant": {},
    "linear": {"end": 0.0, "over": 1.0},
    "cosine": {"end": 0.0, "over": 1.0},
    "exponential": {"end": 0.01, "over": 1.0},
    "piecewise": {"at": None, "values": None},
    "interpolated": {"at": None, "values": None},
}
_EXAMPLE = "cosine(end=0.1)"
_PROBES = (0.0, 0.25, 0.5, 1.0)


def anneal(value: Any, schedule: Schedule, progress: Any) -> Any:
    """Return `value` times the factor of a schedule. `linear` alone is value · (1 − progress), 0 at the end of training.

    Args:
        value: at factor 1.
        schedule: a text or a function; see this file's table.
        progress: share of the run's environment steps already taken, 0 … 1: `batch.progress`, a number or a tensor.
    """
    if schedule == "constant":
        return value
    return value * (1.0 - progress) if schedule == "linear" else value * factor(schedule, progress)


def factor(schedule: Schedule, progress: Any) -> Any:
    """Return the factor of a schedule at a moment of training. See `anneal`."""
    if not isinstance(schedule, str):
        return schedule(progress)
    place, name, options = registry.parse_call(schedule, "a schedule", _EXAMPLE)
    if place:
        return _function(f"{place}:{name}")(progress, **options)
    return _of_form(name, _FORMS[name] | options, progress)


def require_schedule(schedule: Any, name: str) -> None:
    """Raise a ValueError for a schedule that is none, naming the field and what is wrong with it."""
    if callable(schedule) and not isinstance(schedule, type):
        _require_function(schedule, name)
        return
    if not isinstance(schedule, str):
        raise ValueError(f"{name} is a schedule, such as {_EXAMPLE!r}, or a function of progress; got {schedule!r}.")
    if GIVEN in schedule:
        raise ValueError(
            f"{name} was {schedule.strip('()')} that no other process finds: pass the agent with it, as in "
            "rlgrad.load(path, agent=…)."
        )
    place, form, options = registry.parse_call(schedule, name, _EXAMPLE)
    if place:
        _require_function(functools.partial(_function(f"{place}:{form}"), **options), name)
        return
    if form not in _FORMS:
        raise ValueError(
            f"{name}: there is no schedule {form!r}. {close_names(form, _FORMS)} Your own: my_schedules.py:function."
        )
    check_keys(options, _FORMS[form], f"argument of the schedule {form}, in {name},")
    _require_sound(form, _FORMS[form] | options, name)


def written(schedule: Schedule) -> str:
    """Return a schedule as a file holds it: a function by its place, if another process finds it there."""
    if isinstance(schedule, str):
        return schedule
    return registry.place_of(schedule) or f"({registry.spoken_name(schedule)}, {GIVEN})"


def _require_sound(form: str, given: dict[str, Any], name: str) -> None:
    if form in ("piecewise", "interpolated"):
        at, values = given["at"], given["values"]
        more = 1 if form == "piecewise" else 0
        if not (_are_numbers(at) and _are_numbers(values)) or len(values) != len(at) + more or not at:
            many = "one value more" if more else "as many values"
            raise ValueError(f"{name}: {form} takes at=[…], places between 0 and 1, and {many}.")
        if list(at) != sorted(set(at)) or min(at) < 0.0 or max(at) > 1.0:
            raise ValueError(f"{name}: the places of {form} rise from 0 to at most 1, got at={list(at)}.")
        if min(values) < 0.0:
            raise ValueError(f"{name}: the values of {form} are factors ≥ 0, got {list(values)}.")
        return
    for key, value in given.items():
        low, high = (0.0, math.inf) if key == "end" else (0.0, 1.0)
        above = key == "over" or form == "exponential"
        if not _are_numbers([value]) or not (low < value if above else low <= value) or value > high:
            what = ("above 0" if above else "at least 0") + (" and at most 1" if key == "over" else "")
            raise ValueError(f"{name}: {key} of {form} is {what}, got {value!r}.")


def _require_function(function: Callable[[Any], Any], name: str) -> None:
    """Call a function with numbers and in a graph, where it will run."""
    import tensorflow as tf

    try:
        values = [float(function(progress)) for progress in _PROBES]
    except Exception as error:  # whatever the user's function raises
        raise ValueError(f"{name} is called with the progress of training, 0 … 1, and raised {error!r}.") from error
    if not all(map(math.isfinite, values)) or min(values) < 0.0:
        raise ValueError(f"{name} returns a finite factor ≥ 0; for progress {_PROBES} it returned {values}.")
    try:
        tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec((), tf.float32))
    except Exception as error:
        raise ValueError(
            f"{name} is compiled, with a tensor as progress, and raised {type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]} Use tf.where in place of `if`, and tf.cos in place of math.cos."
        ) from error


def _of_form(name: str, given: dict[str, Any], progress: Any) -> Any:
    if name == "constant":
        return 1.0
    if name in ("piecewise", "interpolated"):
        return _by_parts(name, given["at"], given["values"], progress)
    done, end = _between(progress / given["over"]), given["end"]
    if name == "exponential":
        return end**done
    way = done if name == "linear" else 0.5 * (1.0 - _of(progress).cos(math.pi * done))
    return 1.0 + (end - 1.0) * way


@functools.lru_cache(maxsize=64)
def _function(place: str) -> Callable[..., Any]:
    found = registry.find("rlgrad.schedules", place)
    if not callable(found):
        raise ValueError(f"{place} is no function of progress.")
    function: Callable[..., Any] = found
    return function


def _by_parts(form: str, at: Sequence[float], values: Sequence[float], progress: Any) -> Any:
    result = values[0] + 0.0 * progress
    for i, begin in enumerate(at if form == "piecewise" else at[:-1]):
        if form == "piecewise":
            share = _of(progress).where(progress >= begin, 1.0, 0.0)
        else:
            share = _between((progress - begin) / (at[i + 1] - begin))
        result = result + (values[i + 1] - values[i]) * share
    return result


def _are_numbers(values: Any) -> bool:
    each = values if isinstance(values, list | tuple) else [None]
    return all(isinstance(x, numbers.Real) and not isinstance(x, bool) and math.isfinite(x) for x in each)


def _between(x: Any) -> Any:
    ops = _of(x)
    return ops.minimum(ops.maximum(x, 0.0), 1.0)


def _of(x: Any) -> Any:
    """Return the module whose functions take a number: NumPy, or TensorFlow for its tensors."""
    if isinstance(x, numbers.Real | np.ndarray | np.generic):
        return np
    import tensorflow as tf

    return tf
