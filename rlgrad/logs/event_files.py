"""TensorBoard's event files: records with checksums, which can be taken back when a run resumes."""

import functools
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rlgrad.core import plain_files, rows
from rlgrad.logs import events

_POLYNOMIAL = 0x82F63B78  # CRC-32C, bits reversed
_ONES = 0xFFFFFFFF
_BLOCK = 512  # bytes whose checksum is found at once

_log = logging.getLogger("rlgrad")


def record(event: bytes) -> bytes:
    """Frame an event: its length (uint64, little-endian), a checksum of that, the event, and a checksum of the event."""
    length = struct.pack("<Q", len(event))
    return b"".join([length, struct.pack("<I", checksum(length)), event, struct.pack("<I", checksum(event))])


def records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each whole record of a file, and the event in it. A last one that is not whole is left out.

    Raises:
        ValueError: an event does not match its checksum.
    """
    at = 0
    while at + 16 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        end = at + 16 + length
        if end > len(data):
            return
        event = data[at + 12 : end - 4]
        if struct.unpack_from("<I", data, end - 4) != (checksum(event),):
            raise ValueError("an event does not match its checksum")
        yield data[at:end], event
        at = end


def take_back(folder: Path, timesteps: int) -> None:
    """Remove the events after a step, and a last record whose writing was interrupted.

    Args:
        folder: of the run.
        timesteps: environment steps at which the run resumes.
    """
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = plain_files.read_bytes(path, plain_files.ROWS)
        kept = b"".join(_until(data, timesteps, path))
        if len(kept) < len(data):
            rows.replace(path, kept)


def checksum(data: bytes) -> int:
    """Return the masked CRC-32C of some bytes, as TensorFlow's records hold it.

    The CRC is linear over GF(2): the CRC of a block is the XOR of what each of its bytes contributes, which depends on the
    byte and on how many follow it. So a table lookup and an XOR over the block take the place of a loop over its bytes.
    """
    table, crc = _contributions(), _ONES
    for first in range(0, len(data), _BLOCK):
        block = data[first : first + _BLOCK]
        if len(block) < 4:  # shorter than the CRC itself
            for byte in block:
                crc = int(table[0, (crc ^ byte) & 255]) ^ crc >> 8
        else:
            head = int.from_bytes(block[:4], "little") ^ crc
            block = head.to_bytes(4, "little") + block[4:]
            crc = int(np.bitwise_xor.reduce(table[_FOLLOWING[-len(block) :], np.frombuffer(block, np.uint8)]))
    crc ^= _ONES
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _ONES


_FOLLOWING = np.arange(_BLOCK)[::-1]  # how many bytes of a block follow each


@functools.cache
def _contributions() -> "np.ndarray[Any, np.dtype[np.uint32]]":
    """Return what each byte contributes to a CRC, uint32 (_BLOCK, 256), by the number of bytes that follow it."""
    table = np.zeros((_BLOCK, 256), np.uint32)
    table[0] = np.arange(256)
    for _ in range(8):
        table[0] = np.where(table[0] & 1, table[0] >> 1 ^ _POLYNOMIAL, table[0] >> 1)
    for i in range(1, 4):
        table[i] = table[i - 1] >> 8 ^ table[0, table[i - 1] & 255]
    known = 4
    while known < _BLOCK:  # as many bytes again follow what is known: its four bytes are looked up like any others
        low, high = table[:known], table[known : 2 * known]
        for byte in range(4):
            high ^= table[known - 1 - byte, low >> 8 * byte & 255]
        known *= 2
    return table


def _until(data: bytes, timesteps: int, path: Path) -> Iterator[bytes]:
    try:
        for framed, event in records(data):
            if events.step_of(event) <= timesteps:
                yield framed
    except ValueError:
        _log.warning("An event of %s cannot be read: it and those after it are left out.", path)
