"""Many seeds of one command, each in a process of its own, some of them at a time."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlgrad.cli.output import Result, Table

_TRAIN = (sys.executable, "-c", "import sys; from rlgrad.cli import main; sys.exit(main())", "train")
_MOST = 1000  # seeds


class Ended(NamedTuple):
    """A run that ended.

    Attributes:
        seed: of the run.
        folder: of the run.
        status: exit status of its process.
        said: the last line that it wrote to stderr.
    """

    seed: int
    folder: Path
    status: int
    said: str


def seeds_of(text: str) -> list[int]:
    """Return the seeds that a text names: `0-9`, `1,4,7`, or both.

    Raises:
        ValueError: it names none, one twice, or too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not 0 <= last - first < _MOST:
            raise ValueError(f"--seeds is like 0-9 or 1,4,7, at most {_MOST:,} of them; got {text!r}.")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds names a seed twice: {text!r}.")
    return seeds


def train_each(words: Sequence[str], seeds: Sequence[int], folder: Path, at_once: int) -> Result:
    """Train a run for each seed, in `folder/seed-N`, and report what each reached.

    A run that fails leaves the others alone. Ctrl-C reaches all that are running, which save and end.

    Args:
        words: of `rlgrad train`, without a seed and a folder.
        seeds: of the runs.
        folder: of all runs.
        at_once: runs at a time.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    left, ended = list(seeds), list[Ended]()
    running: dict[int, subprocess.Popen[str]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    interrupted = False
    while running or (left and not interrupted):
        try:
            while left and len(running) < at_once and not interrupted:
                seed = left.pop(0)
                running[seed] = _begin(words, seed, folder / f"seed-{seed}")
            for seed, process in [*running.items()]:
                if process.poll() is not None:
                    ended.append(_end(seed, folder / f"seed-{seed}", running.pop(seed)))
                    print(_line(ended[-1]), flush=True)
            time.sleep(0.1)
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return _result(sorted(ended), folder)


def _begin(words: Sequence[str], seed: int, folder: Path) -> "subprocess.Popen[str]":
    command = [*_TRAIN, *words, "--seed", str(seed), "--run-dir", str(folder)]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    return subprocess.Popen(command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, **pipes)


def _end(seed: int, folder: Path, process: "subprocess.Popen[str]") -> Ended:
    said = process.communicate()[1].strip().splitlines()
    return Ended(seed, folder, process.returncode, said[-1] if said else "")


def _line(run: Ended) -> str:
    if run.status == 0:
        return f"seed {run.seed}: {_reached(run.folder)}"
    return f"seed {run.seed} failed with exit status {run.status}: {run.said}"


def _reached(folder: Path) -> str:
    mean = _greedy(folder)
    return f"everything is in {folder}" if mean is None else f"greedy return {mean:.1f}, in {folder}"


def _greedy(folder: Path) -> float | None:
    file = folder / "evaluation.json"
    return float(json.loads(file.read_text())["greedy"]["mean_return"]) if file.is_file() else None


def _result(ended: Sequence[Ended], folder: Path) -> Result:
    rows = [
        [str(run.seed), "–" if (mean := _greedy(run.folder)) is None else f"{mean:.1f}", str(run.folder)]
        for run in ended
    ]
    failed = [run.seed for run in ended if run.status]
    document = [
        {"seed": run.seed, "run": run.folder, "status": run.status, "greedy": _greedy(run.folder)} for run in ended
    ]
    notes = [f"Failed: seeds {', '.join(map(str, failed))}."] if failed else []
    table = Table(rows, ["seed", "greedy return", "folder"], right=(0, 1))
    return Result(document, [table, *notes, f"Next: rlgrad compare {folder}/*"], status=1 if failed else 0)
