"""The state of a run's folder: locked while it is trained, so that two trainings never write into one; not begun; a run."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

NAME = "training.lock"
# Written before config.yaml, which makes a folder a run.
BEFORE_CONFIG = {
    "checkpoints",
    "run.json",
    "model.json",
    "value_model.json",
    "critic_model.json",
    "spaces.json",
    NAME,
    "unfinished.partial.yaml",
}


class Lock:
    """Held by one process at a time, and given up when the process ends, however it ends.

    Args:
        folder: of the run; it exists.

    Raises:
        FileExistsError: another training holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._file = folder / NAME, -1
        if fcntl is None:
            return
        while True:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(self._file)
                raise FileExistsError(
                    f"{folder} is being trained by another process: wait until that has ended, or choose another folder."
                ) from error
            except OSError:  # a file system that knows no locks
                return
            # The process that held it may have removed the file between the two calls above.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file), os.stat(self._path)):
                    return
            os.close(self._file)

    def release(self) -> None:
        """Let others train in the folder."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder while the context lasts."""
    lock = Lock(folder)
    try:
        yield
    finally:
        lock.release()


def describe_no_run(path: Path) -> str:
    """Return why a folder is no run, and what to do."""
    if (path / "checkpoints").is_dir() and {each.name for each in path.iterdir()} <= BEFORE_CONFIG:
        return (
            f"The training in {path} was killed before it began, and there is nothing to resume: give the command that started "
            "it once more, with the same folder."
        )
    within = next(
        (each for each in list(path.parents)[:2] if path.is_file() and (each / "config.yaml").is_file()), None
    )
    if within is not None:
        return f"{path} is a file of the run in {within}: give that folder."
    return f"{path} is no run folder: it has no config.yaml."
