"""Checkpoints: one .npz file of plain arrays each. Nothing in it is executed when it is read.

A file appears whole or not at all, and NumPy alone can read it. The archive's comment is a SHA-256 digest of all bytes before
it: a file that was cut or changed is refused.
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
    plain = _without_arrays({"format": FORMAT, **state}, arrays)
    arrays[_STATE] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    path = folder / f"{timesteps:012d}.npz"
    write_whole(path, _archive(arrays))
    if best:
        copy = folder / f"{BEST}.partial"
        with writing(copy):
            shutil.copyfile(path, copy)
            copy.replace(folder / BEST)
    for old in numbered(folder)[keep:]:
        old.unlink()
    return path


def numbered(folder: Path) -> list[Path]:
    """Return the numbered checkpoints of a folder, newest first, damaged ones included."""
    return sorted((path for path in folder.glob("*.npz") if path.name != BEST), reverse=True)


def load(path: Path, variables: Mapping[str, Sequence[keras.Variable]]) -> dict[str, Any]:
    """Assign a checkpoint's arrays to variables.

    Args:
        path: the file.
        variables: by group, in the order in which they were saved. Further groups in the file are ignored.

    Returns:
        The state that was saved with them.

    Raises:
        DamagedError: the file was cut or changed since it was written.
        ValueError: the file has another format, or the variables do not match it. No variable is changed then.
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
    """Load the newest checkpoint of a folder that is not damaged. A warning names each damaged one.

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
