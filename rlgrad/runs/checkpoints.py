"""Checkpoints: one .npz file of plain arrays each. Nothing in it is executed when it is read.

A file appears whole or not at all, and NumPy alone can read it. The archive's comment is a SHA-256 digest of all bytes before
it: a file that was cut or changed is refused. The digest is no signature, so what a file says of itself is not believed: its
arrays are stored as they are, and each has the size that its shape says, before memory is taken for any of them.
"""

import hashlib
import io
import json
import logging
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np

from rlgrad.core import plain_files
from rlgrad.core.faults import write_whole, writing
from rlgrad.core.plain_arrays import UNREADABLE, require_stored
from rlgrad.core.settings import count

FORMAT = 3
BEST = "best.npz"
_DIGITS = 64  # of a SHA-256 digest
_STATE, _IS_BEST = "state", "is_best"
_NUMBERED = re.compile(r"\d{12}\.npz")
_MOST_STATE = 2 * 2**30  # bytes beside the variables: the state of running episodes

Reader = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray] | None]

_log = logging.getLogger("rlgrad")


class DamagedError(ValueError):
    """The file of a checkpoint was cut or changed since it was written."""


def save(
    folder: Path,
    timesteps: int,
    variables: Mapping[str, Sequence[keras.Variable]],
    state: Mapping[str, Any],
    keep: int = 3,
    best: bool = False,
) -> Path:
    """Write a checkpoint, and remove all but the newest few.

    Args:
        folder: of the run's checkpoints.
        timesteps: environment steps taken; they name the file.
        variables: by group; saved in order.
        state: dicts and lists of NumPy arrays and of values that JSON can hold.
        keep: number of checkpoints that stay.
        best: copy it to `best.npz`, replacing the one before.

    Returns:
        The path of the file.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"{group}/{i}": v.numpy() for group, values in variables.items() for i, v in enumerate(values)}
    plain = _without_arrays({"format": FORMAT, _IS_BEST: best, **state}, arrays)
    arrays[_STATE] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    path = folder / f"{timesteps:012d}.npz"
    content = _archive(arrays)
    write_whole(path, content)
    if best:
        write_whole(folder / BEST, content)
    for old in numbered(folder)[keep:]:
        old.unlink()
    return path


def plain_state(path: Path) -> dict[str, Any]:
    """Return the state in a checkpoint without its arrays; nothing of a file that is missing or damaged."""
    try:
        with _opened(path, _MOST_STATE + path.stat().st_size) as file:
            state: dict[str, Any] = json.loads(bytes(file[_STATE]))
            return state
    except (DamagedError, OSError):
        return {}


def numbered(folder: Path) -> list[Path]:
    """Return the numbered checkpoints of a folder, newest first, damaged ones included. A file of another name is none."""
    return sorted((path for path in folder.glob("*.npz") if _NUMBERED.fullmatch(path.name)), reverse=True)


def find(folder: Path, which: str | int) -> Path:
    """Return the file of a checkpoint.

    Args:
        folder: of the run's checkpoints.
        which: `"last"`, `"best"`, or the environment steps at which it was written.

    Raises:
        ValueError: there is none; the message has those that there are.
    """
    there = numbered(folder)
    known = {"last": there[0]} if there else {}
    known |= {"best": folder / BEST} if (folder / BEST).is_file() else {}
    known |= {str(int(path.stem)): path for path in there}
    try:
        return known[which if which in ("last", "best") else str(count(which, "checkpoint"))]
    except (KeyError, ValueError) as error:
        named = ", ".join(known) or "none"
        raise ValueError(f"There is no checkpoint {which!r} in {folder}. There are: {named}.") from error


def complete(folder: Path, state: Mapping[str, Any]) -> None:
    """Do what the process that wrote the newest checkpoint may have been killed before: copy it to `best.npz`, tidy up.

    Args:
        folder: of the run's checkpoints.
        state: of the newest checkpoint.
    """
    if state.get(_IS_BEST):
        newest, best = numbered(folder)[0], folder / BEST
        content = _content(newest)
        if not best.is_file() or _content(best) != content:
            write_whole(best, content)
    for left in folder.glob("*.partial"):
        left.unlink()


def _content(path: Path) -> bytes:
    return plain_files.read_bytes(path, path.stat().st_size)


def load(
    path: Path,
    variables: Mapping[str, Sequence[keras.Variable]],
    check: Callable[[Mapping[str, Any]], None] | None = None,
    readers: Mapping[str, Reader] | None = None,
) -> dict[str, Any]:
    """Assign a checkpoint's arrays to variables.

    Args:
        path: the file.
        variables: by group, in the order in which they were saved. Further groups in the file are ignored.
        check: looks at the state first, and raises if it is of another run.
        readers: by group; each takes the arrays of the file, and returns those of the variables, or `None` if they are others.

    Returns:
        The state that was saved with them.

    Raises:
        DamagedError: the file was cut or changed since it was written.
        ValueError: the file has another format, or the variables do not match it. No variable is changed then.
    """
    most = _MOST_STATE + sum(16 * math.prod(v.shape) for values in variables.values() for v in values)
    with _opened(path, most) as file:
        state: dict[str, Any] = json.loads(bytes(file[_STATE]))
        version, known = state["format"], variables if state["format"] == FORMAT else {}
        stored = {group: [file[f"{group}/{i}"] for i in range(_count(file.files, group))] for group in known}
        restored: dict[str, Any] = _with_arrays(state, file) if known else {}
    if version != FORMAT:
        raise ValueError(f"{path} has format {version!r}, and this version of rlgrad reads {FORMAT}.")
    if check is not None:
        check(restored)
    for group, read in (readers or {}).items():
        arrays = read(stored[group])
        stored[group] = stored[group] if arrays is None else [*arrays]
    for group, values in variables.items():
        shapes, expected = [a.shape for a in stored[group]], [tuple(v.shape) for v in values]
        if shapes != expected:
            raise ValueError(
                f"{path} holds {group} variables of shapes {shapes}, and the model has {expected}: it was made by another "
                "model. Pass the one that the run was trained with."
            )
    for group, values in variables.items():
        for variable, array in zip(values, stored[group], strict=True):
            variable.assign(array)
    return restored


def _count(names: Sequence[str], group: str) -> int:
    return sum(name.startswith(f"{group}/") for name in names)


def load_newest(
    folder: Path,
    variables: Mapping[str, Sequence[keras.Variable]],
    check: Callable[[Mapping[str, Any]], None] | None = None,
    readers: Mapping[str, Reader] | None = None,
) -> dict[str, Any]:
    """Load the newest checkpoint of a folder that is not damaged. A warning names each damaged one. See `load`.

    Raises:
        FileNotFoundError: the folder has no checkpoint.
        DamagedError: every checkpoint is damaged.
        ValueError: the variables do not match the checkpoint.
    """
    paths = numbered(folder)
    if not paths:
        raise FileNotFoundError(f"{folder} holds no checkpoint: the run stopped before its first one.")
    for path in paths:
        try:
            return load(path, variables, check, readers)
        except DamagedError as error:
            _log.warning("%s The one before it is used.", error)
    raise DamagedError(f"Every checkpoint in {folder} is damaged: this run cannot be loaded.")


def write_text(path: Path, text: str) -> None:
    """Write a small file that appears whole or not at all."""
    write_whole(path, text.encode())


def _archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its other argument is a flag
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"0" * _DIGITS  # the last bytes of the file
    content = buffer.getvalue()[:-_DIGITS]
    return content + hashlib.sha256(content).hexdigest().encode()


@contextmanager
def _opened(path: Path, most: int) -> Iterator[Any]:
    """Open a checkpoint's arrays, which NumPy reads one by one.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        DamagedError: the file was cut or changed, or the code inside the context does not find in it what it looks for.
        ValueError: the file is a link, or larger.
    """
    with plain_files.opened(path, most) as file:
        _require_digest(path, file)
        try:
            require_stored(file)
            with np.load(file, allow_pickle=False) as arrays:
                yield arrays
        except UNREADABLE as error:
            raise DamagedError(f"{path} is damaged, though its checksum is right: {error}.") from error


def _require_digest(path: Path, file: BinaryIO) -> None:
    left, digest = os.fstat(file.fileno()).st_size - _DIGITS, hashlib.sha256()
    while left > 0:
        block = file.read(min(left, plain_files.MIB))
        digest.update(block)
        left -= len(block) or left
    if digest.hexdigest().encode() != file.read():
        raise DamagedError(f"{path} is damaged: it is not what was written, by its checksum.")
    file.seek(0)


def _without_arrays(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return the tree with each array replaced by the name of an entry, and add the arrays to `arrays` under these names."""
    if isinstance(tree, Mapping):
        return {key: _without_arrays(value, arrays) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_arrays(value, arrays) for value in tree]
    if isinstance(tree, np.ndarray):
        name = f"{_STATE}/{len(arrays)}"
        arrays[name] = tree
        return {"array": name}
    return tree


def _with_arrays(tree: Any, arrays: Any) -> Any:
    if isinstance(tree, dict):
        return (
            arrays[tree["array"]] if tree.keys() == {"array"} else {k: _with_arrays(v, arrays) for k, v in tree.items()}
        )
    return [_with_arrays(value, arrays) for value in tree] if isinstance(tree, list) else tree
