"""Errors for failures outside of rlgrad during a run: of an environment, or of a disk."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


class EnvironmentFault(RuntimeError):
    """An environment raised, did not answer in time, or lost its process. The message names the slot and the step.

    The environment's own exception, if there is one, is the `__cause__`.

    Attributes:
        trace: the environment's own traceback as text; empty if it raised nothing.
    """

    trace = ""


class OutputFault(EnvironmentFault, ValueError):
    """An environment returned a value of the wrong kind, shape or range. The message names slot, step and tensor."""


class EndlessEpisode(ValueError):
    """An episode of an environment without a time limit did not end in a generous number of steps."""


class WriteFault(OSError):
    """A file of a run could not be written. Files written earlier are unchanged."""


class Blame(Exception):
    """A slot's failure, raised by code that does not know the step; `fault` completes it: "slot 3 <what> in step 7<how>".

    Args:
        slot: the number of the slot. `None`: unknown.
        what: a verb and its object, such as "gave a wrong reward".
        how: the rest of the sentence, such as ": expected a number, got 'a'".
        wrong_output: True if the environment returned a wrong value, False if it returned none.
        trace: the environment's own traceback as text.
    """

    def __init__(self, slot: int | None, what: str, how: str, wrong_output: bool = False, trace: str = "") -> None:
        super().__init__(what)
        self.slot, self.what, self.how, self.wrong_output, self.trace = slot, what, how, wrong_output, trace

    def fault(self, when: str) -> EnvironmentFault:
        """Return the error to raise, with the time of the failure, such as "in step 7"."""
        who = "The vector environment" if self.slot is None else f"The environment in slot {self.slot}"
        fault = (OutputFault if self.wrong_output else EnvironmentFault)(f"{who} {self.what} {when}{self.how}")
        fault.trace = self.trace
        return fault


class RemoteTraceback(Exception):
    """The traceback of an exception in another process, as text. It serves as the cause of an exception in this one."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def __str__(self) -> str:
        return f"\n{self._text}"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that names the file and says what to do.

    Raises:
        WriteFault: an OSError was raised inside.
    """
    try:
        yield
    except WriteFault:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "Make room" if full else "Allow writing to it"
        raise WriteFault(
            f"{path} cannot be written: {os.strerror(error.errno or errno.EIO)}. Files written earlier are unchanged. "
            f"{advice}, then continue with rlgrad resume."
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one piece: a crash leaves the whole file or the previous one, never a part.

    A link of that name is replaced, and what it leads to is left alone.

    Raises:
        WriteFault: it could not be written. The previous file is unchanged.
    """
    with whole(path) as partial, partial.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Let the caller write a new file beside `path`, which takes its place when the context ends without an error.

    The name that is given is free: whoever creates that file follows no link.

    Raises:
        WriteFault: it could not be written. The previous file is unchanged.
    """
    # Writers of pictures and films look at the suffix. Readers of run folders know the name without one alone.
    partial = path.with_name(f"unfinished.partial{'' if path.suffix == '.npz' else path.suffix}")
    with writing(path):
        try:
            partial.unlink(missing_ok=True)  # left by a crash, or a link
            yield partial
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)  # a part is of no use, and may be what fills the disk
            raise


def in_words(error: OSError) -> str:
    """Return an error of the operating system as a sentence, without its number."""
    if error.errno is None:
        return str(error)
    return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
