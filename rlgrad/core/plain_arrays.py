"""Archives of plain arrays (.npz): their members are looked at before memory is taken for any of them."""

import math
import os
import zipfile
from typing import BinaryIO

import numpy as np

_PLAIN = "?biufcV"  # kinds of arrays; V are numbers that NumPy does not know, such as bfloat16
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_PACKED = 1_000  # times that a packed array may be as large as the file: zlib's limit is 1,032

UNREADABLE = (zipfile.BadZipFile, AttributeError, EOFError, LookupError, TypeError, ValueError, RecursionError)
"""Errors of reading an archive that is none, or holds something else than arrays."""


def require_stored(file: BinaryIO, *, packed: int | None = None) -> None:
    """Raise a ValueError unless an archive holds plain arrays, each of the size that its shape says.

    Args:
        file: the archive, whose position is at its beginning, before and after.
        packed: bytes that compressed arrays may have together; `None`: they are not compressed.
    """
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names, known = [member.filename for member in members], {zipfile.ZIP_STORED}
        if packed is not None:
            known.add(zipfile.ZIP_DEFLATED)
        if len(set(names)) < len(names) or any(member.compress_type not in known for member in members):
            raise ValueError("its arrays are packed, or two have one name")
        if sum(member.file_size for member in members) > (size if packed is None else min(packed, _PACKED * size)):
            raise ValueError("its arrays are larger than the file" if packed is None else "its arrays are too large")
        for member in members:
            with archive.open(member) as stream:
                shape, _, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
                length = stream.tell() + math.prod(shape) * dtype.itemsize
            if dtype.kind not in _PLAIN or dtype.names or min(shape, default=0) < 0 or length != member.file_size:
                raise ValueError(f"{member.filename} is no plain array of shape {shape}")
    file.seek(0)
