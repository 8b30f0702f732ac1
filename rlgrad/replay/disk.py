"""A ring on disk: files written once, each with the rows that are new since the last one, so that a run resumes to the bit.

A checkpoint of a replay would grow by the whole replay each time. Here `save` writes new rows alone, as plain .npy files whose
names are the SHA-256 digests of their bytes, and returns a manifest: which files hold which rows, and where each slot stands.
The manifest belongs into the state of a checkpoint. Files of earlier manifests are never changed, so an earlier checkpoint
stays whole whenever the process dies. `prune` removes what no checkpoint needs any more.

A manifest's files hold at most twice the rows of the ring: if more would be needed, because some slots move faster than others,
the whole ring is written anew. So k checkpoints take at most 2 (k + 1) times the bytes of its rows; see `bound`.
"""

import hashlib
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.core import plain_files
from rlgrad.core.faults import write_whole, writing
from rlgrad.replay.ring import Ring

FORMAT = 1
_BYTES = 64 * plain_files.MIB  # of a file, about
_FILES = 1_000  # of a manifest, besides those of one ring written whole
_HEADER = 128  # bytes of a .npy file before its numbers
_NAME = re.compile(r"[0-9a-f]{64}\.npy")

Manifest = dict[str, Any]
"""Values that JSON can hold, and NumPy arrays."""
_Piece = tuple[int, int, int]  # slot, first row ever written there, count


class DamagedReplay(ValueError):
    """A file of a replay is missing, was cut or changed, or is of another replay."""


class Segments:
    """The files of one run's replay.

    Args:
        folder: for these files alone. It is made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: Manifest | None = None

    def save(self, ring: Ring) -> Manifest:
        """Write the rows that are new since the last `save` or `restore`, and return what `restore` needs.

        Raises:
            WriteFault: a file could not be written. Earlier manifests can still be restored.
            ValueError: the folder is a link.
        """
        layout = _layout(ring)
        counters = {name: np.array(variable.numpy()) for name, variable in ring.counters.items()}
        moved = counters["moved"].tolist()
        last = self._last if self._last is not None and self._last["layout"] == layout else None
        kept = [] if last is None else [file for file in last["files"] if _is_needed(file, moved, ring.rows)]
        new = list(_new_pieces(None if last is None else last["counters"]["moved"].tolist(), moved, ring.rows))
        files = math.ceil(_count(new) / _rows_of_a_file(ring))
        stored = _count(new) + sum(_count(file["rows"]) for file in kept)
        gone = any(not (self.folder / file["name"]).is_file() for file in kept)
        if gone or stored > 2 * ring.num_envs * ring.rows or len(kept) + files > _FILES + _files_of(ring):
            kept, new = [], list(_new_pieces(None, moved, ring.rows))
        if self.folder.is_symlink():
            raise ValueError(f"{self.folder} is a link, and what is written there would go elsewhere: remove it.")
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        written = [self._write(ring, pieces) for pieces in _split(new, _rows_of_a_file(ring))]
        self._last = {"format": FORMAT, "layout": layout, "counters": counters, "files": kept + written}
        return self._last

    def restore(self, ring: Ring, manifest: Mapping[str, Any]) -> None:
        """Give a ring the rows and counters that a manifest says. Every draw is then what it would have been.

        Raises:
            DamagedReplay: a file is missing, changed or of another replay; the message names it. The ring is unchanged, or
                empty if the files are sound and do not hold what the manifest says.
        """
        if manifest.get("format") != FORMAT or manifest.get("layout") != _layout(ring):
            raise DamagedReplay(
                f"The replay in {self.folder} was made for other observations, actions or settings: it cannot be continued "
                "with these."
            )
        for name, variable in ring.counters.items():
            value = manifest["counters"].get(name)
            if not isinstance(value, np.ndarray) or value.shape != variable.shape or value.dtype != variable.dtype.name:
                raise DamagedReplay(f"The manifest of the replay in {self.folder} has no sound {name!r}.")
        for file in manifest["files"]:
            self._content(ring, file)
        ring.clear()
        for file in manifest["files"]:
            _assign(ring, file["rows"], self._content(ring, file))
        for name, variable in ring.counters.items():
            variable.assign(manifest["counters"][name])
        if not ring.order_rows():
            ring.clear()
            raise DamagedReplay(f"The files in {self.folder} do not hold the steps that their manifest says.")
        self._last = dict(manifest)

    def prune(self, manifests: Iterable[Mapping[str, Any]]) -> None:
        """Remove the files that none of these manifests needs, and what a write that was cut short has left.

        Those of the last `save` or `restore` stay, since the next `save` builds on them.

        Raises:
            WriteFault: a file could not be removed.
        """
        known = [*manifests, *([] if self._last is None else [self._last])]
        needed = {file["name"] for manifest in known for file in manifest["files"]}
        with writing(self.folder):
            for path in sorted(self.folder.glob("*")):
                if (_NAME.fullmatch(path.name) and path.name not in needed) or path.name.startswith(
                    "unfinished.partial"
                ):
                    path.unlink(missing_ok=True)

    def _write(self, ring: Ring, pieces: list[_Piece]) -> dict[str, Any]:
        numbers = _numbers(ring, pieces)
        columns = [tf.gather(variable, numbers).numpy() for variable in ring.columns.values()]
        rows = [np.ascontiguousarray(x.reshape(len(x), math.prod(x.shape[1:]))).view(np.uint8) for x in columns]
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(rows, axis=1))
        content = buffer.getvalue()
        name = f"{hashlib.sha256(content).hexdigest()}.npy"
        write_whole(self.folder / name, content)
        return {"name": name, "rows": [list(piece) for piece in pieces]}

    def _content(self, ring: Ring, file: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """Return the rows of a file as bytes (rows, bytes of a row), after its name, size and digest were checked."""
        name, pieces = file["name"], file["rows"]
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not _are_sound(pieces, ring):
            raise DamagedReplay(f"The manifest of the replay in {self.folder} names {name!r}, which is no file of one.")
        shape = _count(pieces), _row_bytes(ring)
        path, size = self.folder / name, _HEADER + math.prod(shape)
        try:
            content = plain_files.read_bytes(path, size)
        except FileNotFoundError:
            raise DamagedReplay(f"{path} is missing: the replay cannot be continued without it.") from None
        except (OSError, ValueError) as error:
            raise DamagedReplay(f"{path} is no file of this replay. {error}") from error
        if len(content) != size or f"{hashlib.sha256(content).hexdigest()}.npy" != name:
            raise DamagedReplay(f"{path} is damaged: it is not what was written, by its checksum.")
        return np.frombuffer(content, np.uint8, offset=_HEADER).reshape(shape)


def bound(ring: Ring, checkpoints: int) -> int:
    """Return the most bytes that the files of so many checkpoints take, the next one that is being written included."""
    of_one = 2 * ring.num_envs * ring.rows * _row_bytes(ring) + _HEADER * (_FILES + _files_of(ring))
    return (checkpoints + 1) * of_one


def _layout(ring: Ring) -> dict[str, Any]:
    """Return what a ring of the same layout can read: its size, and what a row holds."""
    columns = [[name, v.dtype.name, v.shape[1:].as_list()] for name, v in ring.columns.items()]
    return {"rows": ring.rows, "num_envs": ring.num_envs, "columns": columns, "counters": list(ring.counters)}


def _new_pieces(before: list[int] | None, moved: list[int], rows: int) -> Iterator[_Piece]:
    """Yield the rows of each slot to write: from the last step written before, which may have been cut since, to a successor.

    Args:
        before: rows ever written of each slot when they were last saved. `None`: all that are held are to be written.
        moved: rows ever written of each slot. The row of this number may hold a successor.
        rows: of each slot.
    """
    for slot, end in enumerate(moved):
        known = 0 if before is None else before[slot] - 1
        if before is None or end != before[slot]:
            first = max(known, end - rows + 1, 0)
            yield slot, first, end - first + 1


def _split(pieces: list[_Piece], most: int) -> Iterator[list[_Piece]]:
    """Yield the pieces in parts of at most so many rows, cut where need be."""
    part: list[_Piece] = []
    room = most
    for slot, begin, length in pieces:
        first, count = begin, length
        while count:
            taken = min(count, room)
            part.append((slot, first, taken))
            first, count, room = first + taken, count - taken, room - taken
            if not room:
                yield part
                part, room = [], most
    if part:
        yield part


def _is_needed(file: Mapping[str, Any], moved: list[int], rows: int) -> bool:
    """Return True if a file holds a row that is not overwritten yet."""
    return any(first + count - 1 >= moved[slot] - rows for slot, first, count in file["rows"])


def _are_sound(pieces: Any, ring: Ring) -> bool:
    """Return True for pieces of this ring's slots, no larger together than the ring: before memory is taken for them."""
    return (
        isinstance(pieces, list)
        and all(isinstance(piece, list | tuple) and [type(x) for x in piece] == [int] * 3 for piece in pieces)
        and all(0 <= slot < ring.num_envs and first >= 0 and count >= 1 for slot, first, count in pieces)
        and _count(pieces) <= ring.num_envs * ring.rows
    )


def _count(pieces: Iterable[Iterable[int]]) -> int:
    return sum(count for _, _, count in pieces)


def _row_bytes(ring: Ring) -> int:
    return sum(int(v.dtype.size) * math.prod(v.shape[1:]) for v in ring.columns.values())


def _rows_of_a_file(ring: Ring) -> int:
    return max(1, _BYTES // _row_bytes(ring))


def _files_of(ring: Ring) -> int:
    """Return the number of files of a ring that is written whole."""
    return math.ceil(ring.num_envs * ring.rows / _rows_of_a_file(ring))


def _numbers(ring: Ring, pieces: Iterable[Iterable[int]]) -> np.ndarray[Any, Any]:
    """Return the numbers of rows over all slots."""
    parts = [slot * ring.rows + np.arange(first, first + count) % ring.rows for slot, first, count in pieces]
    return np.concatenate(parts).astype(np.int32)


def _assign(ring: Ring, pieces: Iterable[Iterable[int]], content: np.ndarray[Any, Any]) -> None:
    numbers, at = _numbers(ring, pieces), 0
    for variable in ring.columns.values():
        shape = (len(numbers), *variable.shape[1:])
        size = int(variable.dtype.size) * math.prod(shape[1:])
        column = np.ascontiguousarray(content[:, at : at + size]).view(variable.dtype.as_numpy_dtype).reshape(shape)
        variable.scatter_update(tf.IndexedSlices(tf.constant(column), numbers))
        at += size
