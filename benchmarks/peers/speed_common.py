"""Shared by the sides of benchmarks/speed.py: how a side is asked, how it answers, when CartPole counts as solved.

A side's script is given one JSON object, the training of its row with the settings of this side, and prints one in its last
line. Standard library and NumPy only: every side runs in an environment of its own.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

THRESHOLD = 475.0  # of CartPole-v1's specification
CHECK_EVERY = 1024  # environment steps between two evaluations


def asked() -> dict[str, Any]:
    """The object that this script was given.

    Where it has a number of `cores`, the process keeps to as many from here on; `flags` are XLA's, which reads them once, when
    it is first used.
    """
    work: dict[str, Any] = json.loads(sys.argv[1])
    if "flags" in work:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {work['flags']}".strip()
    if "cores" in work:
        os.sched_setaffinity(0, range(work["cores"]))
    return work


def answer(numbers: dict[str, float], *packages: str) -> None:
    """Prints the measured numbers and the versions of what was measured."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    print(json.dumps({"metrics": numbers, "versions": found}), flush=True)


def rates(first: tuple[int, float], second: tuple[int, float]) -> dict[str, float]:
    """Of two equal trainings in one process, each (steps, seconds): the first includes compilation, the second does not."""
    compile_seconds = max(first[1] - second[1], 0.0)
    return {"steady": second[0] / second[1], "whole": first[0] / first[1], "compile": compile_seconds}


class Solved:
    """Notes when the greedy policy first reaches the threshold; the time that evaluating takes does not count.

    Ten episodes are played first, and a hundred where these reach it.

    Args:
        begun_at: `time.time()` at which the process was started.
        play: mean greedy return of so many fresh episodes.
    """

    def __init__(self, begun_at: float, play: Callable[[int], float]) -> None:
        self._begun_at, self._play = begun_at, play
        self._training_at = time.perf_counter()
        self._evaluating = 0.0
        self._due = CHECK_EVERY
        self._rows: list[float] = []
        self.numbers: dict[str, float] | None = None

    def start(self) -> None:
        """Training begins now."""
        self._training_at = time.perf_counter()

    def check(self, steps: int) -> bool:
        """After an update: whether it is solved."""
        self._rows.append(time.perf_counter() - self._training_at - self._evaluating)
        if steps < self._due or self.numbers is not None:
            return self.numbers is not None
        self._due = steps + CHECK_EVERY
        seconds, shell = self._rows[-1], time.time() - self._begun_at - self._evaluating
        begun = time.perf_counter()
        reached = self._play(10) >= THRESHOLD and self._play(100) >= THRESHOLD
        self._evaluating += time.perf_counter() - begun
        if reached:
            # The first update compiles; what it takes without that is taken to be what the others take.
            later, count = seconds - self._rows[0], len(self._rows)
            self.numbers = {"seconds": seconds, "shell_seconds": shell, "steps": steps}
            if count > 1:
                self.numbers["compiled_seconds"] = later * count / (count - 1)
        return reached
