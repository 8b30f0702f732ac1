"""TensorBoard's event files as records, so that a run that goes on can take back what it will write again."""

import logging
import struct
from collections.abc import Iterator
from pathlib import Path

from rlgrad.logs import files

_log = logging.getLogger("rlgrad")


def take_back(folder: Path, timesteps: int) -> None:
    """Remove every event after so many environment steps, and a last record that a process was killed in the middle of."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        kept = b"".join(_until(data, timesteps, path))
        if len(kept) < len(data):
            files.replace(path, kept)


def records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each whole record of a file, and the event in it.

    A record is the event's length (uint64, little-endian), a checksum of it (4 bytes), the event, and a checksum (4 bytes).
    """
    at = 0
    while at + 16 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        end = at + 16 + length
        if end > len(data):
            return
        yield data[at:end], data[at + 12 : end - 4]
        at = end


def _until(data: bytes, timesteps: int, path: Path) -> Iterator[bytes]:
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    for record, event in records(data):
        try:
            step = Event.FromString(event).step
        except DecodeError:
            _log.warning("An event of %s cannot be read: it and those after it are left out.", path)
            return
        if step <= timesteps:
            yield record
