"""Recorded episodes on disk: plain .npz files in one folder, which any program can write, and which are read without pickle.

A file holds episodes one after the other, S steps in E of them:

    lengths        int (E,)          steps of each episode, at least 1
    terminated     bool (E,)         the task ended after the last of them; else the episode was cut, and its value goes on
    observations   (S + E, …)        one more than there are steps in each episode: the last one has no action
    actions        (S, …)            as the environment got them
    rewards        (S,)

Of a Dict of observations each part has an array, `observations/NAME`, and of a Tuple `observations/0`, …. So a row's successor
is the row after it, and no flag has to say where an episode ends.
"""

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces

from rlgrad.core import plain_files
from rlgrad.core.faults import write_whole, writing
from rlgrad.core.plain_arrays import UNREADABLE, require_stored
from rlgrad.spaces.branches import branch
from rlgrad.spaces.trees import arrays, map_arrays, ranges, storage

Array = np.ndarray[Any, Any]

MOST_FILES = 10_000
_UNPACKED = 4 * plain_files.ROWS  # bytes of a file's arrays, if they are compressed
_NAME = re.compile(r"episodes-(\d{6})\.npz")
_EDGE = 1e-5  # of the width of a Box, by which rounding may bring an action over its bound


class Episodes(NamedTuple):
    """Recorded episodes, one after the other, as the file's docstring says."""

    observations: Any
    actions: Array
    rewards: Array
    terminated: Array
    lengths: Array

    @property
    def steps(self) -> int:
        """The number of steps, S."""
        return len(self.rewards)

    @property
    def returns(self) -> Array:
        """The undiscounted return of each episode, float64 (E,)."""
        ends = np.cumsum(self.lengths)
        sums = np.concatenate([[0.0], np.cumsum(self.rewards, dtype=np.float64)])
        returned: Array = sums[ends] - sums[ends - self.lengths]
        return returned


def digest(episodes: Episodes) -> str:
    """Return the SHA-256 digest of what episodes hold, however their files are packed and named."""
    found = hashlib.sha256()
    for name, array in arrays(dict(episodes._asdict()), ""):
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return found.hexdigest()


def joined(parts: Sequence[Episodes]) -> Episodes:
    """Return the episodes of all parts, in their order."""
    together: Episodes = map_arrays(lambda *each: np.concatenate(each), *map(tuple, parts))
    return Episodes(*together)


def write(folder: Path, episodes: Episodes) -> Path:
    """Write episodes into the next file of a folder, which is made if there is none. Return the file.

    Raises:
        WriteFault: the file could not be written.
        ValueError: the folder is a link.
    """
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link, and what is written there would go elsewhere: name the folder itself.")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    taken = [int(found[1]) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))]
    content = dict(_named(episodes.observations, "observations"))
    content |= {name: getattr(episodes, name) for name in Episodes._fields[1:]}
    buffer = io.BytesIO()
    np.savez(buffer, **content)  # type: ignore[arg-type]  # its other argument is a flag
    path = folder / f"episodes-{max(taken, default=-1) + 1:06d}.npz"
    write_whole(path, buffer.getvalue())
    return path


def read(folder: Path, observation_space: Space[Any], action_space: Space[Any]) -> Episodes:
    """Read all .npz files of a folder, in the order of their names.

    Args:
        folder: of the files. Other files in it are left alone.
        observation_space: of the environment that the episodes are to be of.
        action_space: likewise.

    Raises:
        ValueError: a file is a link, is damaged, is too large or holds episodes of other spaces; names it.
    """
    files = sorted(folder.glob("*.npz"))
    if not files or len(files) > MOST_FILES:
        has = f"{len(files):,} of them" if files else "none"
        raise ValueError(
            f"A folder of recorded episodes has 1 to {MOST_FILES:,} .npz files, and {folder} has {has}: record some with "
            "rlgrad record-data."
        )
    return joined([fitting(_read(file, observation_space), observation_space, action_space, file) for file in files])


def fitting(episodes: Episodes, observation_space: Space[Any], action_space: Space[Any], source: Any) -> Episodes:
    """Return episodes as they are stored for an environment, if they can be of it.

    Args:
        episodes: of any types of numbers.
        observation_space: of the environment.
        action_space: likewise.
        source: for messages.

    Raises:
        ValueError: they cannot; says what is wrong.
    """
    lengths, terminated = np.asarray(episodes.lengths), np.asarray(episodes.terminated)
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or not len(lengths) or lengths.min() < 1:
        raise ValueError(f"{source}: lengths holds a whole number ≥ 1 for each episode, and it is {_kind(lengths)}.")
    if lengths.max() > 2**40 or terminated.dtype != np.bool_ or terminated.shape != lengths.shape:
        raise ValueError(
            f"{source}: terminated holds a bool for each of {len(lengths):,} episodes, not {_kind(terminated)}."
        )
    steps = int(lengths.sum(dtype=np.int64))
    rewards = _numbers(episodes.rewards, (steps,), np.dtype(np.float32), f"{source}: rewards")
    known = dict(arrays(storage(observation_space, (steps + len(lengths),)), "observation"))
    limits, found = ranges(observation_space), {}
    for name, array in arrays(episodes.observations, "observation"):
        if name not in known:
            raise ValueError(f"{source} has {name}, and the environment's observations have {', '.join(known)}.")
        like = known.pop(name)
        found[name] = _numbers(array, like.shape, like.dtype, f"{source}: {name}")
        low, high = limits.get(name, (-np.inf, np.inf))
        if name in limits and ((found[name] < low) | (found[name] > high)).any():
            raise ValueError(f"{source}: {name} is outside of the environment's {observation_space}.")
    if known:
        raise ValueError(f"{source} has no {', '.join(known)}, which the environment's observations have.")
    values = iter(found.values())
    observations = map_arrays(lambda _: next(values), episodes.observations)
    actions = _actions(episodes.actions, steps, action_space, source)
    return Episodes(observations, actions, rewards, terminated, lengths.astype(np.int64))


def _actions(actions: Any, steps: int, space: Space[Any], source: Any) -> Array:
    """Return actions in the space's dtype, if they are of it."""
    if branch(space) is not None or space.shape is None or space.dtype is None:
        raise ValueError(
            f"Recorded actions are of a Box, Discrete, MultiDiscrete or MultiBinary space, not of {space}."
        )
    found = _numbers(actions, (steps, *space.shape), space.dtype, f"{source}: actions")
    low, high, edge = _bounds(space)
    if ((found < low - edge) | (found > high + edge)).any():
        raise ValueError(f"{source}: actions are outside of the environment's {space}.")
    return found


def _bounds(space: Any) -> tuple[Any, Any, Any]:
    """Return the least and the greatest action, and how far over them rounding may go."""
    if isinstance(space, spaces.Box):
        low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
        width = np.where(np.isfinite(high - low), high - low, 0.0)
        return low, high, _EDGE * width if np.issubdtype(space.dtype, np.floating) else 0.0
    if isinstance(space, spaces.MultiBinary):
        return 0, 1, 0
    start = np.asarray(getattr(space, "start", 0))
    return start, start + np.asarray(space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n) - 1, 0


def _numbers(array: Any, shape: tuple[int, ...], dtype: Any, name: str) -> Array:
    """Return an array of a shape and dtype, from one whose numbers fit: whole ones for whole ones, and all of them finite."""
    array, dtype = np.asarray(array), np.dtype(dtype)
    if array.shape != shape or array.dtype.kind not in "biuf":
        raise ValueError(f"{name} are expected of the shape {shape}, and are {_kind(array)}.")
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = array.astype(dtype)
    if dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError(f"{name} are not finite.")
        if not np.isfinite(found).all():
            raise ValueError(f"{name} are too large for {dtype}, up to {np.abs(array).max():g}: scale them down.")
    elif (found != array).any():
        raise ValueError(f"{name} are whole numbers of {dtype} here, and are {_kind(array)} of others.")
    return found


def _kind(array: Array) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _named(tree: Any, name: str) -> Iterator[tuple[str, Array]]:
    if isinstance(tree, dict | tuple):
        parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, inner in parts:
            yield from _named(inner, f"{name}/{key}")
    else:
        yield name, tree


def _read(path: Path, observation_space: Space[Any]) -> Episodes:
    """Read one file. A part of the observations that it lacks is an array of nothing, which `fitting` refuses."""
    wanted = dict(_named(_tree_of_names(observation_space, "observations"), ""))
    with plain_files.opened(path, plain_files.ROWS) as file:
        try:
            require_stored(file, packed=_UNPACKED)
            with np.load(file, allow_pickle=False) as found:
                content = {name: found[name] for name in found.files}
        except UNREADABLE as error:
            raise ValueError(f"{path} holds no recorded episodes: {error}.") from error
    names = {*Episodes._fields[1:], *(str(name) for name in wanted.values())}
    lacking = sorted(names - content.keys())
    if lacking:
        raise ValueError(
            f"{path} has no {', '.join(lacking)}: it holds {', '.join(sorted(content)) or 'nothing'}. Recorded episodes of "
            f"this environment have {', '.join(sorted(names))}."
        )
    observations = map_arrays(lambda name: content[str(name)], _tree_of_names(observation_space, "observations"))
    return Episodes(observations, *(content[name] for name in Episodes._fields[1:]))


def _tree_of_names(space: Space[Any], name: str) -> Any:
    parts = branch(space)
    if parts is None:
        return np.str_(name)
    return parts.build([_tree_of_names(part, f"{name}/{key}") for key, part in parts.parts.items()])
