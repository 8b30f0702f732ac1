"""Ctrl-C and SIGTERM end training after the current update."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_log = logging.getLogger("rlgrad")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """A request to stop.

    Attributes:
        asked: True once a signal came.
    """

    def __init__(self) -> None:
        self.asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: remember the first one, raise KeyboardInterrupt at the next."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        _log.info("Stopping after this update. (Once more: at once, and training since the last checkpoint is lost.)")


@contextlib.contextmanager
def interruption() -> Iterator[Interruption]:
    """Remember SIGINT and SIGTERM while the context lasts, in the main thread; other threads receive no signals."""
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
