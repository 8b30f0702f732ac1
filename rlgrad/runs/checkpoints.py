"""Checkpoints: one .npz file of plain arrays each. Nothing in it is executed when it is read.

A file appears whole or not at all, and is an archive that NumPy reads by itself. What it holds is vouched for by a SHA-256
digest of all bytes before it, kept as the archive's comment: a file that was cut or changed is refused.
"""

import hashlib
import io
import json
import logging
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rlgrad.core.faults import write_whole, writing

FORMAT = 3
BEST = "best.npz"
_DIGITS = 64  # of a SHA-256 digest
_STATE = "state"

_log = logging.getLogger("rlgrad")


class DamagedError(ValueError):
    """A checkpoint is not what was written: its file was cut or changed."""


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
        folder: where.
        timesteps: environment steps taken, which name the file.
        variables: by group; saved in order.
        state: dicts and lists of what JSON can hold and of NumPy arrays.
        keep: how many checkpoints stay.
        best: keep it as `best.npz` too, in place of the one before.

    Returns:
        The file. It appears whole or not at all.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"{group}/{i}": v.numpy() for group, values in variables.items() for i, v in enumerate(values)}
    plain = _without_arrays({"format": FORMAT, **state}, arrays)
    arrays[_STATE] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    path = folder / f"{timesteps:012d}.npz"
    write_whole(path, _archive(arrays))
    if best:
        copy = folder / f"{BEST}.partial"
        with writing(copy):
            shutil.copyfile(path, copy)
            copy.replace(folder / BEST)
    for old in found(folder)[keep:]:
        old.unlink()
    return path


def found(folder: Path) -> list[Path]:
    """The numbered checkpoints of a folder, newest first; whole or not."""
    return sorted((path for path in folder.glob("*.npz") if path.name != BEST), reverse=True)


def load(path: Path, variables: Mapping[str, Sequence[keras.Variable]]) -> dict[str, Any]:
    """Assign a checkpoint's arrays to variables.

    Args:
        path: the file.
        variables: by group, in the order they were saved in. Groups that the file has and this lacks are left alone.

    Returns:
        The state that was saved with them.

    Raises:
        DamagedError: the file was cut or changed since it was written.
        ValueError: the file is of another format, or the variables do not match it; none is changed then.
    """
    with np.load(io.BytesIO(_checked(path)), allow_pickle=False) as file:
        state: dict[str, Any] = json.loads(bytes(file[_STATE]))
        if state["format"] != FORMAT:
            raise ValueError(f"{path} has format {state['format']}, and this version of rlgrad reads {FORMAT}.")
        pairs = []
        for group, values in variables.items():
            stored = [file[f"{group}/{i}"] for i in range(sum(name.startswith(f"{group}/") for name in file.files))]
            shapes, expected = [a.shape for a in stored], [tuple(v.shape) for v in values]
            if shapes != expected:
                raise ValueError(
                    f"{path} holds {group} variables of shapes {shapes}, and the model has {expected}: it was made by another "
                    "model. Pass the one that the run was trained with."
                )
            pairs += list(zip(values, stored, strict=True))
        restored: dict[str, Any] = _with_arrays(state, file)
    for variable, array in pairs:
        variable.assign(array)
    return restored


def load_newest(folder: Path, variables: Mapping[str, Sequence[keras.Variable]]) -> dict[str, Any]:
    """`load` the newest checkpoint of a folder that is not damaged; each damaged one is named in the log.

    Raises:
        FileNotFoundError: there is none at all.
        DamagedError: all of them are damaged.
        ValueError: the newest whole one does not match.
    """
    paths = found(folder)
    if not paths:
        raise FileNotFoundError(f"{folder} holds no checkpoint: the run stopped before its first one.")
    for path in paths:
        try:
            return load(path, variables)
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


def _checked(path: Path) -> bytes:
    content = path.read_bytes()
    body, digest = content[:-_DIGITS], content[-_DIGITS:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise DamagedError(f"{path} is damaged: it is not what was written, by its checksum.")
    return content


def _without_arrays(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree with the name of an entry in place of each array, which is added to `arrays`."""
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
