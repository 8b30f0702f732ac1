"""Ctrl-C and a polite kill, answered at the end of what is being done."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_log = logging.getLogger("rlgrad")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether somebody asked to stop.

    Attributes:
        asked: whether.
    """

    def __init__(self) -> None:
        self.asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one is remembered, the next one is an exception at once."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        _log.info("Stopping after this update. (Once more: at once, and what follows the last checkpoint is lost.)")


@contextlib.contextmanager
def interruption() -> Iterator[Interruption]:
    """SIGINT and SIGTERM are remembered inside of this; only the main thread receives them."""
    asked = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, asked.ask) for number in _SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
