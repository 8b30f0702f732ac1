"""Processes that run tests without importing TensorFlow again: one imports it and forks for each request.

`python workers.py ask SOCKET ARGUMENT...` runs pytest with these arguments in such a process, and exits as pytest does.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from importlib import import_module
from pathlib import Path

_PRELOADED = ("tensorflow", "keras", "gymnasium", "hypothesis", "yaml", "tyro", "rich.progress", "pytest", "xdist")
_EVERY = 0.02  # seconds between two looks at a test process


def serve(path: str, tree: Path) -> None:
    """Answer requests until the process is ended. Nothing of rlgrad is imported here: it is what changes.

    Args:
        path: of the Unix socket.
        tree: where tests run.
    """
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for name in _PRELOADED:
        import_module(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            connection, _ = listening.accept()
            with connection:
                _answer(connection, listening)


def ask(path: str, arguments: list[str]) -> int:
    """Return the exit status of pytest with these arguments, and print what it prints."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(json.dumps(arguments).encode() + b"\n")
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    status, _, text = reply.decode(errors="replace").partition("\n")
    print(text)
    if not status:
        raise SystemExit("The process that runs the tests has ended.")
    return int(status)


def _answer(connection: socket.socket, listening: socket.socket) -> None:
    arguments = json.loads(connection.makefile("rb").readline())
    output = Path(f"{listening.getsockname()}.output")
    child = os.fork()
    if child == 0:
        listening.close()
        connection.close()
        _test(arguments, output)
    try:
        status = _waited(child, connection)
    finally:  # also if this process is ended
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
    else:
        code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(OSError):
            connection.sendall(f"{code if code >= 0 else 1}\n".encode() + output.read_bytes())


def _waited(child: int, connection: socket.socket) -> int | None:
    """Return the status of a process when it ends. `None`: whoever asked has given up."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        readable, _, _ = select.select([connection], [], [], 0)
        if readable:
            return None
        time.sleep(_EVERY)


def _test(arguments: list[str], output: Path) -> None:
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        import pytest

        status = int(pytest.main(arguments))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(ask(sys.argv[2], sys.argv[3:]))
