"""What goes wrong outside of rlgrad while a run is under way: in an environment, or on a disk."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


class EnvironmentFault(RuntimeError):
    """An environment raised, gave no answer in time, or lost its process; the message names slot and step.

    What it raised itself is the `__cause__`.

    Attributes:
        trace: the environment's own traceback as text; empty where it raised nothing.
    """

    trace = ""


class OutputFault(EnvironmentFault, ValueError):
    """An environment gave something of the wrong kind, shape or range; the message names slot, step and tensor."""


class WriteFault(OSError):
    """A file of a run could not be written; those written before are as they were."""


class Blame(Exception):
    """What is wrong with a slot, raised where the step is not known: "slot 3 <what> in step 7<how>".

    Args:
        slot: whose environment it is; none: not known.
        what: a verb and its object, such as "gave a wrong reward".
        how: what follows, such as ": expected a number, came 'a'".
        wrong_output: the environment gave something; otherwise it gave nothing.
        trace: the environment's own traceback as text.
    """

    def __init__(self, slot: int | None, what: str, how: str, wrong_output: bool = False, trace: str = "") -> None:
        super().__init__(what)
        self.slot, self.what, self.how, self.wrong_output, self.trace = slot, what, how, wrong_output, trace

    def fault(self, when: str) -> EnvironmentFault:
        """The error that says when it was, such as "in step 7"."""
        who = "The vector environment" if self.slot is None else f"The environment in slot {self.slot}"
        fault = (OutputFault if self.wrong_output else EnvironmentFault)(f"{who} {self.what} {when}{self.how}")
        fault.trace = self.trace
        return fault


class RemoteTraceback(Exception):
    """The traceback of an exception in another process, as text: what can be the cause of an exception in this one."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def __str__(self) -> str:
        return f"\n{self._text}"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file in an error of the operating system, which says only what was wrong.

    Raises:
        WriteFault: an OSError was raised inside.
    """
    try:
        yield
    except WriteFault:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "Make room" if full else "Let it be written"
        raise WriteFault(
            f"{path} cannot be written: {os.strerror(error.errno or errno.EIO)}. What was written before is as it was. "
            f"{advice}, then go on: rlgrad resume."
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        WriteFault: it could not be written; one that was there before is as it was.
    """
    partial = path.with_name("unfinished.partial")  # no name that a reader of such files would look into
    with writing(path):
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)  # half a file helps nobody, and may be what fills the disk
            raise


def in_words(error: OSError) -> str:
    """An error of the operating system as a sentence, without its number."""
    if error.errno is None:
        return str(error)
    return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
