"""Files of a folder that may come from another person: no links are followed, and sizes are known before memory is taken.

A folder is looked through once, before anything in it is read or written (`require_plain`). Reading opens a file itself, not
what a link leads to, and takes regular files alone, so that a pipe cannot block and a device cannot be endless.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, TextIO

KIB, MIB = 2**10, 2**20
SETTINGS = 256 * KIB
"""The most bytes of a file of settings. YAML is read in Python, at some 100 KiB a second."""
DOCUMENT = 16 * MIB
"""The most bytes of a JSON file beside it: results, diagnoses, the description of a model."""
ROWS = 512 * MIB
"""The most bytes of a file of rows or events."""
_MOST_ENTRIES = 100_000


def require_plain(folder: Path) -> None:
    """Raise a ValueError if a folder holds a link, a pipe or a device where rlgrad reads and writes.

    Looked through are the folder itself and its `checkpoints`. The folder may be reached through a link: the user named it.

    Args:
        folder: of a run or a study.
    """
    for place in (folder, folder / "checkpoints"):
        if not place.is_dir():
            continue
        with os.scandir(place) as entries:
            for number, entry in enumerate(entries):
                if entry.is_symlink():
                    raise ValueError(
                        f"{entry.path} is a link, and what is written there would go elsewhere: put the file itself there, or "
                        "remove it."
                    )
                if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                    raise ValueError(f"{entry.path} is neither a file nor a folder: remove it.")
                if number >= _MOST_ENTRIES:
                    raise ValueError(f"{place} holds more than {_MOST_ENTRIES:,} files: it is no folder of a run.")


def opened(path: Path, most: int, *, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: the file.
        most: bytes that it may have.
        follow: take the file that a link leads to, because the user named the link.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is a link, no regular file, or larger.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    if not follow:
        if path.is_symlink():
            raise ValueError(f"{path} is a link: put the file itself in its place.")
        flags |= getattr(os, "O_NOFOLLOW", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is no regular file.")
        if found.st_size > most:
            raise ValueError(f"{path} has {found.st_size:,} bytes, and at most {most:,} are expected there.")
    except BaseException:
        file.close()
        raise
    return file


def read_bytes(path: Path, most: int, *, follow: bool = False) -> bytes:
    """Read a regular file. See `opened`."""
    with opened(path, most, follow=follow) as file:
        return file.read(most + 1)


def read_json(path: Path) -> Any:
    """Read a JSON document.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it holds no JSON; the message names it.
    """
    content = read_bytes(path, DOCUMENT)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error


def appending(path: Path, newline: str | None = None) -> TextIO:
    """Open a text file to add to it, itself and not what a link leads to. `newline` is as for `open`."""
    if path.is_symlink():
        raise ValueError(f"{path} is a link, and what is written there would go elsewhere: remove it.")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o666), "a", encoding="utf-8", newline=newline)


def sync(path: Path) -> None:
    """Have the system write a file to its disk before anything that is written after this."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
