"""Speed of rlgrad.gradients beside torch.func, JAX, Opacus, BackPACK and TensorFlow's own tape.

    python benchmarks/primitive.py --peer-python /path/to/peers/bin/python

The peers' Python needs torch, opacus, backpack-for-pytorch and jax, in a virtual environment of its own. Functions that the
peers have no counterpart of stand beside plain TensorFlow (`peers/primitive_by_hand.py`); with `--works` of these alone no
peers are needed. The gradient is that of log π of the action taken, for the networks of `peers/primitive_common.py`. Every side
gets the same weights, inputs and actions and is a process that stays, with the same number of threads on the same cores; before
anything is timed, its results are compared with rlgrad's. Then rounds go over all sides in turn, so that whatever else the
machine does meets all.

A result of hundreds of megabytes costs more to find memory for than to compute, where the C library gives freed memory back to
the system and asks for it anew at every call. TensorFlow keeps its memory, torch and JAX on a CPU do not. So everything is
measured twice: as the libraries come, and with glibc told to keep what was freed, in every process alike (`--memory`).

Times are medians over the rounds, with the quartiles in brackets; a ratio is the median of the rounds' ratios. Raw times go
to benchmarks/results/primitive.jsonl, where a row that is measured again replaces the earlier one, and the tables to
benchmarks/results/primitive.md. `--tables` only writes the tables anew.

    git worktree add ../before COMMIT
    python benchmarks/primitive.py --before ../before

measures rlgrad alone, of this tree and of the other in turn, and writes how much longer each row takes here: to
benchmarks/results/primitive-before.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
from primitive_changes import write_changes  # noqa: E402
from primitive_common import BY_HAND, NETS, write_numbers  # noqa: E402
from primitive_tables import FLOORS, MEMORY, write_tables  # noqa: E402

BATCHES = {"4-64-64-2": (32, 256, 1024), "17-256-256-6": (32, 256, 1024), "MinAtar CNN": (32, 256, 1024)}
BATCHES["Nature CNN"] = (32, 128)
OURS = ["rlgrad", "rlgrad tf.function", "rlgrad eager", "concrete"]
PEERS = ["torch.func", "JAX", "Opacus", "BackPACK"]
TORCH = {"torch.func", "Opacus", "BackPACK", "Opacus ghost", "BackPACK L2"}
SYSTEMS = {
    "per-sample gradients": [*OURS, *PEERS, "write", "write anew", "nothing"],
    "norms": [*OURS, *PEERS, "JAX written out", "Opacus ghost", "BackPACK L2", "nothing"],
    "Gram": [*OURS, *PEERS, "JAX written out", "nothing"],
    "gradient": [*OURS, "tape XLA", "tape", "nothing"],
} | {work: [*OURS, "by hand XLA", "by hand", "nothing"] for work in BY_HAND}
# Settings of glibc's malloc with which freed memory stays with the process.
KEPT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**26),
    "MALLOC_ARENA_MAX": "1",
}
JACOBIAN_ROW = ("4-64-64-2", 256)
TOLERANCE = 1e-4  # of the largest number of each array, in float32


class Side:
    """A process that does work and times it."""

    def __init__(self, python: str, script: str, threads: int, memory: str, tree: Path = HERE.parent) -> None:
        path = os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "PRIMITIVE_THREADS": str(threads),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "JAX_PLATFORMS": "cpu",
            **(KEPT if memory == "kept" else {}),
        }
        self.process = subprocess.Popen(
            [python, str(tree / "benchmarks" / "peers" / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if os.environ.get("PRIMITIVE_QUIET", "1") == "1" else None,
            text=True,
            env=environment,
        )

    def ask(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.process.args} ended. Set PRIMITIVE_QUIET=0 to see what it says.")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Sides:
    """The processes, each of which holds several systems and is started when one of them is asked.

    The systems of an earlier tree are called "before", and as ours are.
    """

    def __init__(self, peer_python: str, threads: int, memory: str, before: Path | None = None) -> None:
        commands = {
            "tensorflow": (sys.executable, "primitive_tensorflow.py"),
            "torch": (peer_python, "primitive_torch.py"),
            "jax": (peer_python, "primitive_jax.py"),
        }
        self._start = {name: partial(Side, *command, threads, memory) for name, command in commands.items()}
        if before:
            self._start["before"] = partial(Side, *commands["tensorflow"], threads, memory, before)
        self.sides = {}

    def prepare(self, system, task, check):
        return self.of(system).ask(do="prepare", task={"system": own_name(system), **task}, check=check)["first"]

    def time(self, system, times):
        return self.of(system).ask(do="time", system=own_name(system), times=times)["seconds"]

    def of(self, system):
        before = system.startswith("before ")
        name = (
            "before" if before else "jax" if system.startswith("JAX") else "torch" if system in TORCH else "tensorflow"
        )
        if name not in self.sides:
            self.sides[name] = self._start[name]()
        return self.sides[name]

    def forget(self):
        for side in self.sides.values():
            side.ask(do="forget")

    def close(self):
        for side in self.sides.values():
            side.close()


def own_name(system):
    """Return the name by which a process knows its system."""
    return system.removeprefix("before ")


def largest_difference(ours: str, theirs: str) -> float:
    """The largest difference between two digests, relative to the largest number of its array."""
    with np.load(ours) as a, np.load(theirs) as b:
        if set(a.files) != set(b.files):
            raise AssertionError(f"Results of different kinds: {a.files} and {b.files}.")
        differences = [0.0]
        for name in a.files:
            if a[name].shape != b[name].shape:
                raise AssertionError(f"{name}: shapes {a[name].shape} and {b[name].shape}.")
            differences.append(float(np.abs(a[name] - b[name]).max() / np.abs(a[name]).max()))
    return max(differences)


def measure(sides, net, batch, work, options, folder):
    """Prepares all systems, compares their results, times them in rounds: a row of the results."""
    systems = [*OURS, *(f"before {system}" for system in OURS)] if options.before else list(SYSTEMS[work])
    if not options.before and work == "per-sample gradients" and (net, batch) == JACOBIAN_ROW:
        systems += ["tape.jacobian", "tape.jacobian XLA"]
    data = f"{folder}/numbers.npz"
    weights = write_numbers(net, batch, data)
    task = {"net": net, "work": work, "data": data}
    times, differences, first = {}, {}, {}
    sides.forget()
    for system in systems:
        check = None if system in FLOORS else f"{folder}/{'ours' if system == 'rlgrad' else 'theirs'}.npz"
        first[system] = sides.prepare(system, task, check)
        if check and system != "rlgrad":
            differences[system] = largest_difference(f"{folder}/ours.npz", check)
            if not differences[system] <= TOLERANCE:
                raise AssertionError(f"{work}, {net}, N = {batch}: {system} differs by {differences[system]:.1e}.")
        times[system] = max(1, min(50, int(options.seconds / min(sides.time(system, 2)))))
    slowest = max(sides.time(system, 1)[0] for system in systems)
    rounds = options.rounds if slowest < 1 else max(3, min(options.rounds, int(20 / slowest)))
    seconds = {system: [] for system in systems}
    for k in range(rounds):
        for i in range(len(systems)):
            system = systems[(i + k) % len(systems)]
            seconds[system].append(statistics.median(sides.time(system, times[system])))
    return {
        "net": net,
        "batch": batch,
        "work": work,
        "weights": weights,
        "threads": options.threads,
        "times_per_round": times,
        "first_call": {name: round(value, 3) for name, value in first.items()},
        "largest_difference": differences,
        "seconds": seconds,
    }


def chosen(options):
    """The rows asked for: network, N and work."""
    for net in options.nets:
        for batch in BATCHES[net]:
            if not options.batches or batch in options.batches:
                yield from ((net, batch, work) for work in options.works if work not in BY_HAND or is_small(net, batch))


def is_small(net, batch):
    """Return True if what one writes by hand fits into memory: some of it takes N · K · P numbers."""
    return "CNN" not in net and batch <= 256


def versions_of(python):
    """The versions of the peers."""
    listing = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    listed = {p["name"]: p["version"] for p in json.loads(listing.stdout)}
    return {name: listed[name] for name in ("torch", "opacus", "backpack-for-pytorch", "jax")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the Python that has the peers")
    parser.add_argument("--before", type=Path, help="another tree of rlgrad, to be measured in turn with this one")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--batches", type=int, nargs="+", help="only these batch sizes")
    parser.add_argument("--works", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--threads", type=int, default=1, help="threads, and cores, of every side")
    parser.add_argument(
        "--memory", nargs="+", choices=MEMORY, default=list(MEMORY), help="what happens to freed memory"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.1, help="how long one side is timed in one round, about")
    parser.add_argument("--quick", action="store_true", help="a look at the smallest row: 5 rounds, nothing is kept")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "primitive", help="without ending")
    parser.add_argument("--tables", action="store_true", help="only write the tables of what was measured")
    options = parser.parse_args()
    if options.before:
        options.works = [work for work in options.works if work not in BY_HAND]
        options.results = options.results.with_name(f"{options.results.name}-before")
    raw, tables = options.results.with_suffix(".jsonl"), options.results.with_suffix(".md")
    kept = [json.loads(line) for line in raw.read_text().splitlines()] if raw.exists() else []
    written = write_changes if options.before else write_tables
    if options.tables:
        written(kept, tables)
        return
    if not options.peer_python and not options.before and not set(options.works) <= set(BY_HAND):
        parser.error(f"--peer-python is needed, except with --tables, --before or --works of {', '.join(BY_HAND)}")
    if options.quick:
        options.nets, options.batches, options.rounds, kept = ["4-64-64-2"], [32], 5, []
    versions = versions_of(options.peer_python) if options.peer_python else {}
    if hasattr(os, "sched_setaffinity"):  # which the processes of the sides inherit
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    for memory in options.memory:
        sides = Sides(options.peer_python, options.threads, memory, options.before)
        try:
            for net, batch, work in chosen(options):
                with tempfile.TemporaryDirectory() as folder:
                    row = measure(sides, net, batch, work, options, folder) | {"memory": memory, "versions": versions}
                middle = {system: statistics.median(values) * 1e3 for system, values in row["seconds"].items()}
                shown = ", ".join(f"{system} {value:.3g}" for system, value in middle.items())
                print(f"{work}, {net}, N = {batch}, memory {memory}, ms: {shown}", flush=True)
                kept = [r for r in kept if any(r[key] != row[key] for key in ("net", "batch", "work", "memory"))] + [
                    row
                ]
                if not options.quick:
                    raw.parent.mkdir(exist_ok=True)
                    raw.write_text("".join(json.dumps(r) + "\n" for r in kept))
        finally:
            sides.close()
    print("\n" + written(kept, None if options.quick else tables))


if __name__ == "__main__":
    main()
