"""Checks of what environments return against their spaces and Gymnasium's interface.

Everything is checked in the first reset and the first step of each slot, and whenever stepping fails. In a process of its own
an environment is checked at every step, since that costs next to nothing there. Numbers that are not finite, or outside of a
choice, are searched for in whole rollouts.
"""

import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import Space
from gymnasium.vector.utils import batch_space, create_empty_array

from rlgrad.core.checks import close_names
from rlgrad.core.faults import Blame
from rlgrad.environments.masking import MaskInObservation
from rlgrad.spaces.branches import match
from rlgrad.spaces.masks import MASK, nothing_allowed
from rlgrad.spaces.trees import arrays, ranges, slot_of

FAULT = "rlgrad_fault"  # the key of an info under which a process reports its fault
NOTHING = object()  # stands for the result of an environment that has returned nothing yet
_RESET, _STEP = ("observation", "info"), ("observation", "reward", "terminated", "truncated", "info")
_FEW, _LONG = 4, 60  # numbers and letters of a wrong value that messages show
_ADVICE = {
    "reward": "Give one number; where several agents are paid, wrap the environment so that it pays one.",
    "info": "Give a dict, an empty one if there is nothing to say.",
    "terminated": "Give a bool: wrap it in bool(…).",
    "truncated": "Give a bool: wrap it in bool(…).",
}
OLD_GYM = (
    "This is the old Gym API: Gymnasium's reset(seed=…, options=…) returns (observation, info), and its step tells terminated "
    "from truncated. Change both, or wrap the environment with the package shimmy."
)
_SIGNS_OF_OLD_GYM = (
    "not enough values to unpack (expected 5, got 4)",
    "not enough values to unpack (expected 2, got 1)",
    "got an unexpected keyword argument 'seed'",
    "got an unexpected keyword argument 'options'",
)


class Wrong(NamedTuple):
    """One wrong value that an environment returned."""

    tensor: str
    expected: str
    came: str
    advice: str

    def blame(self, slot: int | None) -> Blame:
        """Return the exception to raise."""
        text = f": expected {self.expected}, came {self.came}. {self.advice}"
        return Blame(slot, f"gave a wrong {self.tensor}", text.rstrip(), wrong_output=True)


class Guarded(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that knows its slot. It keeps its last result, and adds the slot to exceptions.

    Args:
        env: the environment.
        slot: its number.
        mask_width: numbers in `info["action_mask"]`. `None`: there is no such mask.
        remote: True in a process of its own. Exceptions cannot leave it, so `info` reports them, and each result is checked at
            once.
    """

    def __init__(self, env: Any, slot: int, mask_width: int | None = None, remote: bool = False) -> None:
        super().__init__(env)
        self.slot, self.mask_width, self._remote = slot, mask_width, remote
        self.gave: Any = NOTHING
        self.resting = False  # True: the environment is left alone, and its last observation is given again

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Reset the environment."""
        if self.resting:
            return self.gave[0], {}
        try:
            self.gave = self.env.reset(seed=seed, options=options)
        except Exception as error:
            self.gave = NOTHING
            if not self._remote:
                raise blame_exception(self.slot, error) from error
            return self._blank(), {FAULT: _as_info(blame_exception(self.slot, error))}
        wrong = self.wrong() if self._remote else None
        return self.gave if wrong is None else (self._blank(), {FAULT: _as_info(wrong)})

    def step(self, action: Any) -> Any:
        """Step the environment."""
        if self.resting:
            return self.gave[0], 0.0, False, False, {}
        try:
            gave = self.gave = self.env.step(action)
        except Exception as error:
            self.gave = NOTHING
            if not self._remote:
                raise blame_exception(self.slot, error) from error
            return self._blank(), 0.0, False, False, {FAULT: _as_info(blame_exception(self.slot, error))}
        wrong = self.wrong() if self._remote else None
        return gave if wrong is None else (self._blank(), 0.0, False, False, {FAULT: _as_info(wrong)})

    def reach(self, name: str, arguments: list[Any], options: dict[str, Any], sets: bool) -> tuple[Any, str | None]:
        """See `reach`."""
        return reach(self.env, name, arguments, options, sets)

    def wrong(self) -> Blame | None:
        """Return the fault in the environment's last result; `None` if there is none."""
        found = next(_wrong_in(self.gave, self.env.observation_space, self.mask_width), None)
        return None if found is None else found.blame(self.slot)

    def _blank(self) -> Any:
        return slot_of(create_empty_array(self.env.observation_space, 1), 0)


def reach(env: Any, name: str, arguments: list[Any], options: dict[str, Any], sets: bool) -> tuple[Any, str | None]:
    """Call a method of an environment, or of all that one object holds; or set an attribute.

    Returns:
        The result, and a sentence on what went wrong or `None`. An exception would end an environment's process.
    """
    single = isinstance(env, gymnasium.Env)
    try:
        member = env.get_wrapper_attr(name) if single else getattr(env, name)
    except AttributeError:
        return None, _missing(env.unwrapped, name)
    if sets:
        env.set_wrapper_attr(name, arguments[0]) if single else setattr(env, name, arguments[0])
        return None, None
    if not callable(member):
        return None, f"its {name!r} is no method: it is set with set_env_attr."
    try:
        return member(*arguments, **options), None
    except Exception as error:
        return None, f"{name} raised {type(error).__name__}: {error}"


def _missing(env: Any, name: str) -> str:
    """Return a sentence on a method or an attribute that an environment does not have, with those that are near."""
    own = [each for each in dir(env) if not each.startswith("_") and not hasattr(gymnasium.Env, each)]
    return f"{type(env).__name__} has no {name!r}. {close_names(name, own)}"


def read_fault(infos: Mapping[str, Any]) -> Blame:
    """Return the fault that the first of the slots with one has reported."""
    reported = infos[FAULT]
    slot = int(np.flatnonzero(reported["_slot"])[0])
    return Blame(slot, *(reported[name][slot] for name in ("what", "how", "wrong_output", "trace")))


def find_wrong_in_batch(gave: Any, space: Space[Any], num_envs: int) -> Blame | None:
    """Return the fault in the result of a vector environment; `None` if there is none.

    Args:
        gave: from its `reset` or `step`.
        space: one environment's observations.
        num_envs: slots.
    """
    found = next(_wrong_in(gave, batch_space(space, num_envs), None, (num_envs,)), None)
    return None if found is None else found.blame(None)


def require_in_ranges(
    tree: Any, known: Mapping[str, tuple[Any, Any]], when: str, columns_per_slot: int = 1, first_row: int = 0
) -> None:
    """Raise an OutputFault for an observation outside of the choices of its space.

    Args:
        tree: of NumPy arrays (T, N, …).
        known: from `ranges`.
        when: "before" or "after" the step of its row.
        columns_per_slot: of the N columns.
        first_row: the step of the first row, for the message.
    """
    if not known:
        return
    for name, array in arrays(tree, "observation"):
        if name in known and array.size:
            low, high = known[name]
            bad = (array < low) | (array > high)
            if bad.any():
                row, column = np.argwhere(bad)[0, :2].tolist()
                wrong = Wrong(name, f"values from {low} to {high}", f"{array[row, column]}", "")
                raise wrong.blame(column // columns_per_slot).fault(f"{when} step {first_row + row}")


def require_allowed_somewhere(rollout: Any, columns_per_slot: int) -> None:
    """Raise an OutputFault for a step that counts although its mask forbade every action."""
    observations = rollout.observations
    if not isinstance(observations, dict) or MASK not in observations:
        return
    forbidden = ~np.asarray(observations[MASK]).astype(bool).any(axis=-1) & (rollout.mask > 0)
    if forbidden.any():
        row, column = np.argwhere(forbidden)[0].tolist()
        raise nothing_allowed(column // columns_per_slot, row)


def guards_of(vector: Any) -> list[Guarded]:
    """Return the guarded environments of a vector environment that steps them in this process; of others an empty list."""
    inner = vector.env if isinstance(vector, MaskInObservation) else vector
    return [env for env in getattr(inner, "envs", ()) if isinstance(env, Guarded)]


def blame_exception(slot: int | None, error: Exception) -> Blame:
    """Return the fault for an exception that an environment raised."""
    own = error.__traceback__.tb_next if error.__traceback__ else None  # without the frame that caught it
    trace = "".join(traceback.format_exception(type(error), error, own))
    text = str(error).strip()
    how = f": {text}" + (f". {OLD_GYM}" if looks_like_old_gym(error) else "") if text else "."
    return Blame(slot, f"raised {type(error).__name__}", how, trace=trace)


def looks_like_old_gym(error: Exception) -> bool:
    """Return True for what Python raises where an environment has the `reset` or `step` of the old Gym."""
    return any(sign in str(error) for sign in _SIGNS_OF_OLD_GYM)


def _is_of_old_gym(gave: Any, space: Space[Any]) -> bool:
    """Return True for the result of a `step` with one `done`, or of a `reset` without an info."""
    step = isinstance(gave, tuple) and len(gave) == 4 and isinstance(gave[3], dict)
    return step or (not isinstance(gave, tuple) and space.contains(gave))


def _as_info(blame: Blame) -> dict[str, Any]:
    return {
        "slot": blame.slot,
        "what": blame.what,
        "how": blame.how,
        "wrong_output": blame.wrong_output,
        "trace": blame.trace,
    }


def _wrong_in(gave: Any, space: Space[Any], mask_width: int | None, leading: tuple[int, ...] = ()) -> Iterator[Wrong]:
    """Yield the faults in the result of `reset` or `step`, of one environment or with a leading axis of several."""
    if gave is NOTHING:
        return
    names = _STEP if isinstance(gave, tuple) and len(gave) > len(_RESET) else _RESET
    if not isinstance(gave, tuple) or len(gave) != len(names):
        both = f"a tuple ({', '.join(_RESET)}) from reset and ({', '.join(_STEP)}) from step"
        yield Wrong("result", both, _text(gave), OLD_GYM if _is_of_old_gym(gave, space) else "")
        return
    parts = dict(zip(names, gave, strict=True))
    yield from _wrong_observation(parts["observation"], space, "observation")
    if "reward" in parts:
        yield from _wrong_numbers(parts["reward"], "reward", "fiu", leading)
        yield from _wrong_numbers(parts["terminated"], "terminated", "b", leading)
        yield from _wrong_numbers(parts["truncated"], "truncated", "b", leading)
    info = parts["info"]
    if not isinstance(info, dict):
        yield Wrong("info", "a dict", _text(info), _ADVICE["info"])
    elif mask_width is not None and MASK in info and np.shape(info[MASK]) != (mask_width,):
        yield Wrong(f"info[{MASK!r}]", f"one number for each of {mask_width} actions", _text(info[MASK]), "")


def _wrong_observation(value: Any, space: Space[Any], name: str) -> Iterator[Wrong]:
    for part, leaf, given, expected in match(space, value, name):
        if expected is not None:
            yield Wrong(part, expected, _text(given), f"Its space is {leaf}.")
            return
        array, dtype = _array(given), np.dtype(leaf.dtype or np.float32)
        fits = array is not None and array.dtype.kind in "biuf" and _casts(array, dtype)
        if array is None or not fits or array.shape != leaf.shape:
            yield Wrong(
                part, f"{dtype} {leaf.shape}", _text(given), f"Its space is {leaf}: change the one or the other."
            )
            return
        for low, high in ranges(leaf).values():
            if array.size and ((array < low) | (array > high)).any():
                yield Wrong(part, f"values from {low} to {high}", _text(given), f"Its space is {leaf}.")


def _casts(array: Any, dtype: Any) -> bool:
    """Return True if an array of this type can hold the numbers. Integers of another type may be held if they fit."""
    if np.can_cast(array.dtype, dtype, "same_kind"):
        return True
    integers = array.dtype.kind in "iu" and dtype.kind in "iu"
    return integers and bool((array == array.astype(dtype)).all())


def _wrong_numbers(value: Any, name: str, kinds: str, shape: tuple[int, ...]) -> Iterator[Wrong]:
    array = _array(value)
    if array is None or array.dtype.kind not in kinds or array.shape != shape:
        each = "a bool" if kinds == "b" else "a number"
        expected = f"{each} for each of {shape[0]} slots" if shape else each
        yield Wrong(name, expected, _text(value), _ADVICE[name])


def _array(value: Any) -> Any:
    try:
        return np.asarray(value)
    except (ValueError, TypeError):  # lists of lists of different lengths
        return None


def _text(value: Any) -> str:
    """Describe a value in a few words."""
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype} {value.shape}" + (f": {value.tolist()}" if value.size <= _FEW else "")
    text = repr(value)
    return f"{text if len(text) <= _LONG else text[: _LONG - 1] + '…'} ({type(value).__name__})"
