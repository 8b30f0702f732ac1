"""Change the numeric modules in small ways, one at a time, and see whether their tests notice.

    python tests/mutation                             a sample of every module of modules.toml
    python tests/mutation rlgrad/estimators.py --sample 40 --seed 1

Cosmic Ray makes the changes, in a copy of the tree. A sample of all that it can make is drawn: places in the code first, then
one change for each, the same ones for the same seed. Annotations are left out. A change that survives is either a hole in the
tests or means the same: then it belongs into equivalent.toml, with the reason. The exit status is 1 where fewer than 90 % of
what is not equivalent are noticed, or a module's tests fail as it is.
"""

import argparse
import ast
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkItem

sys.path.insert(0, str(Path(__file__).parent))
import workers

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GOAL = 0.9
_PYTEST = [
    "-m",
    "not slow and not xla",  # a plain graph computes the same, and is traced sooner
    "-x",
    "-q",
    "-n",
    "0",
    "-p",
    "no:cacheprovider",
    "--hypothesis-seed=0",
    "--tb=no",
    "-W",
    "ignore",
]
# Removing a decorator, or another type of exception to catch, breaks everything or nothing.
_LEFT_OUT = ("core/RemoveDecorator", "core/ExceptionReplacer", "core/VariableReplacer", "core/VariableInserter")


@dataclass
class Count:
    """How a module's changes ended."""

    killed: int = 0
    equivalent: list[str] = field(default_factory=list)
    survived: list[str] = field(default_factory=list)
    timeouts: list[str] = field(default_factory=list)  # of those killed

    @property
    def noticed(self) -> float:
        """Share of what is not equivalent."""
        return self.killed / max(1, self.killed + len(self.survived))


def main() -> int:
    """Run the mutations that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="files as modules.toml names them; all without any")
    parser.add_argument("--sample", type=int, help="changes for each module; without: as modules.toml says")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, help="seconds for one change's tests; without: as modules.toml says")
    parser.add_argument("--output", type=Path, help="add each module's result to this file, as JSON lines")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the process that runs the tests is ended, too
    settings = tomllib.loads((HERE / "modules.toml").read_text())
    known = settings["modules"]
    unknown = [name for name in given.modules if name not in known]
    if unknown:
        parser.error(f"modules.toml has no {', '.join(unknown)}")
    sample, timeout = given.sample or settings["sample"], given.timeout or settings["timeout"]
    counts, broken = {}, []
    with _copy() as tree, _server(tree) as path:
        for name in given.modules or known:
            begun = time.perf_counter()
            tests = [*settings["everywhere"], *_of_settings(name, settings), *known[name]]
            if workers.ask(path, [*_PYTEST, *tests]) != 0:
                broken.append(name)
                print(f"{name}: its tests fail before anything is changed", flush=True)
                continue
            counts[name] = _mutate(tree, path, name, tests, sample, given.seed, timeout)
            _show(name, counts[name], time.perf_counter() - begun)
            if given.output:
                with given.output.open("a") as file:
                    file.write(json.dumps({"module": name, "seed": given.seed, **vars(counts[name])}) + "\n")
    total = Count(sum(c.killed for c in counts.values()))
    for count in counts.values():
        total.equivalent += count.equivalent
        total.survived += count.survived
    print(
        f"{total.noticed:.0%} of {total.killed + len(total.survived)} are noticed, {len(total.equivalent)} are equivalent"
    )
    return 0 if total.noticed >= GOAL and not broken else 1


def _of_settings(name: str, settings: dict[str, Any]) -> list[str]:
    """Return the tests that come before those of a module with settings."""
    tests: list[str] = settings["settings"]
    return tests if any(fnmatch(name, pattern) for pattern in settings["records"]) else []


@contextlib.contextmanager
def _copy() -> Iterator[Path]:
    """Give a copy of the tree in which rlgrad is importable as it is when installed."""
    with tempfile.TemporaryDirectory(prefix="rlgrad-mutation-") as folder:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
            if (ROOT / name).is_file():
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, target)
        packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
        for package, place in packages.items():
            link = Path(folder, *package.split("."))
            if not link.exists():
                link.symlink_to(Path(folder, place))
        yield Path(folder)


@contextlib.contextmanager
def _server(tree: Path) -> Iterator[str]:
    path = str(tree / "workers.socket")
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ.update(environment)
    process = multiprocessing.get_context("spawn").Process(target=workers.serve, args=(path, tree))
    process.start()
    try:
        while not Path(path).exists():
            time.sleep(0.1)
            if not process.is_alive():
                raise SystemExit("The process that runs the tests did not start.")
        yield path
    finally:
        process.terminate()
        process.join()


def _mutate(tree: Path, path: str, name: str, tests: list[str], sample: int, seed: int, timeout: float) -> Count:
    arguments = [*_PYTEST, *tests]
    command = [sys.executable, "-S", str(HERE / "workers.py"), "ask", path, *arguments]
    config, session = tree / "session.toml", tree / "session.sqlite"
    session.unlink(missing_ok=True)
    config.write_text(
        f"[cosmic-ray]\nmodule-path = {json.dumps([name])}\ntimeout = {timeout}\nexcluded-modules = []\n"
        f"test-command = {json.dumps(' '.join(map(_quoted, command)))}\n"
        '[cosmic-ray.distributor]\nname = "local"\n'
    )
    cosmic_ray = [sys.executable, "-m", "cosmic_ray.cli"]
    subprocess.run([*cosmic_ray, "init", str(config), str(session)], cwd=tree, check=True)
    with use_db(str(session)) as db:
        _draw(db, (tree / name).read_text(), sample, f"{seed} {name}")
    subprocess.run([*cosmic_ray, "exec", str(config), str(session)], cwd=tree, check=True)
    with use_db(str(session)) as db:
        return _counted(db, name)


def _quoted(word: str) -> str:
    return f"'{word}'"


def _draw(db: WorkDB, source: str, sample: int, seed: str) -> None:
    """Leave as many changes to be made, each at a place of its own while there are enough."""
    annotated, lines = list(_annotations(ast.parse(source))), source.splitlines()
    places: dict[Any, list[WorkItem]] = {}
    for item in db.work_items:
        (change,) = item.mutations
        line, column = change.start_pos
        inside = any(begin <= (line, column) < end for begin, end in annotated)
        keyword_only = lines[line - 1][column:].startswith("*,")  # of a signature
        if not inside and not keyword_only and not change.operator_name.startswith(_LEFT_OUT):
            places.setdefault(tuple(change.start_pos), []).append(item)
    draw = random.Random(seed)
    order = sorted(places)
    draw.shuffle(order)
    chosen = [draw.choice(sorted(places[place], key=_change)) for place in order[:sample]]
    db.clear()
    db.add_work_items(chosen)


def _change(item: WorkItem) -> tuple[str, int]:
    (change,) = item.mutations
    return change.operator_name, change.occurrence


def _annotations(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            found = getattr(node, name, None)
            if isinstance(found, ast.expr):
                yield (found.lineno, found.col_offset), (found.end_lineno or 0, found.end_col_offset or 0)


def _counted(db: WorkDB, name: str) -> Count:
    equivalent = tomllib.loads((HERE / "equivalent.toml").read_text())
    patterns, lines = equivalent.get("patterns", {}), equivalent.get(name, {})
    count = Count()
    for _, result in db.results:
        before, after = _lines(result.diff or "")
        if result.is_killed:
            count.killed += 1
            if result.output == "timeout":
                count.timeouts.append(f"{before}  ->  {after}")
            continue
        known = after in lines or any(text in after and text not in before for text in patterns)
        (count.equivalent if known else count.survived).append(f"{before}  ->  {after}")
    return count


def _lines(diff: str) -> tuple[str, str]:
    """Return the changed line before and after."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    found = {sign: " ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+"}
    return found["-"], found["+"]


def _show(name: str, count: Count, seconds: float) -> None:
    total = count.killed + len(count.survived) + len(count.equivalent)
    print(
        f"{name}: {total} changes, {count.killed} killed, {len(count.survived)} survived, {len(count.equivalent)} equivalent: "
        f"{count.noticed:.0%} ({seconds:.0f} s)",
        flush=True,
    )
    for each in count.timeouts:
        print(f"    out of time: {each}", flush=True)
    for each in count.survived:
        print(f"    {each}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
