"""The memory that there is, so that sizes are refused before they fill it."""

import os
from functools import cache
from pathlib import Path

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container
_UNKNOWN = 64 * 2**30


@cache
def memory() -> int:
    """Return the bytes of memory that this process may have at most."""
    try:
        known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, OSError, ValueError):  # another system
        known = [_UNKNOWN]
    for file in _LIMITS:
        try:
            known.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # there is none, or "max"
            continue
    return min(known)


def require_room(size: int, what: str, advice: str) -> None:
    """Raise a ValueError for arrays that are larger than the memory.

    Args:
        size: in bytes.
        what: the beginning of the sentence.
        advice: the end of the sentence.
    """
    if size > memory():
        raise ValueError(f"{what} {size / 2**30:,.0f} GiB, and this machine has {memory() / 2**30:.0f}: {advice}.")
