"""Checkpoints: one .npz file of plain arrays each. Nothing in it is executed when it is read."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

FORMAT = 2


def save(
    folder: Path,
    timesteps: int,
    variables: Mapping[str, Sequence[keras.Variable]],
    state: Mapping[str, Any],
    keep: int = 3,
) -> Path:
    """Write a checkpoint, and remove all but the newest few.

    Args:
        folder: where.
        timesteps: environment steps taken, which name the file.
        variables: by group; saved in order.
        state: what JSON can hold.
        keep: how many checkpoints stay.

    Returns:
        The file. It appears whole or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"{group}/{i}": v.numpy() for group, values in variables.items() for i, v in enumerate(values)}
    arrays["state"] = np.frombuffer(json.dumps({"format": FORMAT, **state}).encode(), np.uint8)
    path = folder / f"{timesteps:012d}.npz"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in sorted(folder.glob("*.npz"))[:-keep]:
        old.unlink()
    return path


def newest(folder: Path) -> Path:
    """The checkpoint after the most steps.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(folder.glob("*.npz"))
    if not found:
        raise FileNotFoundError(f"{folder} holds no checkpoint: the run stopped before its first one.")
    return found[-1]


def load(path: Path, variables: Mapping[str, Sequence[keras.Variable]]) -> dict[str, Any]:
    """Assign a checkpoint's arrays to variables.

    Args:
        path: the file.
        variables: by group, in the order they were saved in. Groups that the file has and this lacks are left alone.

    Returns:
        The state that was saved with them.

    Raises:
        ValueError: the file is of another format, or the variables do not match it; none is changed then.
    """
    with np.load(path, allow_pickle=False) as file:
        state: dict[str, Any] = json.loads(bytes(file["state"]))
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
    for variable, array in pairs:
        variable.assign(array)
    return state
