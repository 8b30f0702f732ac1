"""Training speed beside the peers: rlgrad and the peer of a row measured in turns, each in an environment of its own.

    python benchmarks/speed.py --rows 1 2 3 4 5 7 11 --peer-python PEERS/bin/python
    python benchmarks/speed.py --rows 6 6-envpool --peer-python PEERS/bin/python --cleanrl CHECKOUT
    python benchmarks/speed.py --rows 8 9 --jax-python JAX/bin/python --purejaxrl CHECKOUT
    python benchmarks/speed.py --rows 10
    python benchmarks/speed.py --rows 15 16 --peer-python PEERS/bin/python --streaming CHECKOUT
    python benchmarks/speed.py --table

The rows are in benchmarks/peers/speed_rows.py; the first lines of benchmarks/peers/speed_sb3.py, speed_cleanrl.py,
speed_purejaxrl.py and speed_streaming.py say what the peers' environments need and what of the last three is run: the authors'
own code, from a checkout of github.com/vwxyzjn/cleanrl, luchris429/purejaxrl or mohmdelsayed/streaming-drl. Our own needs the
extras `cpu`, `box2d` and `mujoco`, `ale-py` and `opencv-python-headless` for row 7, `envpool` for row 6-envpool.

Both sides train the same networks with the same number of updates and minibatches. Where a side can be run in several ways (how
environments are vectorized, how many threads), each is measured once, and the fastest one counts on either side. Every
measurement is a process of its own; it trains twice and reports the first training, with compilation, and the second, without.
Each adds a line to benchmarks/results/speed.jsonl, from which benchmarks/results/speed.md is made: for each row from the last
occasion on which both sides were measured. `--fraction 0.1 --lines /tmp/trial.jsonl` tries something out.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))

from speed_rows import ROWS  # noqa: E402
from speed_tables import page  # noqa: E402

LINES = HERE / "results" / "speed.jsonl"
FROM_CHECKOUT = ("cleanrl", "purejaxrl", "streaming")
# These tell OpenBLAS which processor it runs on, which NumPy should find out by itself on both sides.
LEFT_OUT = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def environment(folder):
    """The variables that every side is started with; runs and logs go to the folder."""
    kept = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": folder}


def measure(python, side, training):
    """The answer of a side's script."""
    script = HERE / "peers" / f"speed_{side}.py"
    work = json.dumps({**training, "begun_at": time.time()})
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        run, variables = [str(python), str(script), work], environment(folder)
        result = subprocess.run(run, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables, check=False)
        if result.returncode:
            errors.seek(0)
            raise SystemExit(f"{side} failed with {work}:\n{errors.read()[-4000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def commit():
    """The commit that is measured, with a plus where files differ from it."""

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(HERE), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


def quickest(measured):
    """The setting with the highest steady rate."""
    return max(measured, key=lambda pair: pair[1]["metrics"]["steady"])[0]


class Occasion:
    """One run of this script."""

    def __init__(self, options):
        self.options = options
        self.about = {
            "occasion": datetime.datetime.now().isoformat(timespec="seconds"),
            "commit": commit(),
            "cores": len(os.sched_getaffinity(0)),
        }
        self.pythons = {
            "rlgrad": options.rlgrad_python,
            "sb3": options.peer_python,
            "cleanrl": options.peer_python,
            "purejaxrl": options.jax_python,
            "streaming": options.peer_python,
        }

    def sides(self, row):
        """(side, its possible settings) of those that are to be measured."""
        wanted = [("rlgrad", row.ours)] if "rlgrad" in self.options.sides else []
        if row.side is not None and "peer" in self.options.sides:
            wanted.append((row.side, row.theirs))
        for side, _ in wanted:
            if self.pythons[side] is None:
                option = "--jax-python" if side == "purejaxrl" else "--peer-python"
                raise SystemExit(f"Row of {row.peer}: give its Python with {option}.")
            if side in FROM_CHECKOUT and getattr(self.options, side) is None:
                raise SystemExit(f"Row of {row.peer}: give a checkout of its repository with --{side}.")
        return wanted

    def once(self, name, row, side, settings, repeat):
        """Measures, prints, and adds a line."""
        size = row.training["num_envs"] * row.training["num_steps"]
        wanted = row.training["steps"] if side == "rlgrad" else row.training.get("peer_steps", row.training["steps"])
        steps = max(1, round(self.options.fraction * wanted / size)) * size
        training = {**row.training, "steps": steps, "seed": max(repeat, 0)}
        extra = {"checkout": str(getattr(self.options, side))} if side in FROM_CHECKOUT else {}
        load = os.getloadavg()[0]
        found = measure(self.pythons[side], side, {**training, **settings, **extra})
        line = {"row": name, **self.about, "side": side, "settings": settings, "repeat": repeat, "load": round(load, 2)}
        metrics = {key: float(f"{value:.5g}") for key, value in found["metrics"].items()}
        line |= {"training": training, "metrics": metrics, "versions": found["versions"]}
        print(name, side, *settings.values(), "qualifying" if repeat < 0 else repeat, metrics, flush=True)
        with self.options.lines.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return found

    def row(self, name):
        """A round in which settings qualify, then the interleaved repeats."""
        row = ROWS[name]
        chosen = {}
        for side, possible in self.sides(row):
            alone = len(possible) == 1
            found = [] if alone else [(settings, self.once(name, row, side, settings, -1)) for settings in possible]
            chosen[side] = possible[0] if alone else quickest(found)
        for repeat in range(self.options.repeats or row.repeats):
            for side, settings in chosen.items():
                self.once(name, row, side, settings, repeat)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[], metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--repeats", type=int, help="of each side; by default 5, and rows 10 and 11 ten seeds")
    parser.add_argument("--sides", nargs="+", choices=("rlgrad", "peer"), default=["rlgrad", "peer"])
    parser.add_argument("--rlgrad-python", default=sys.executable)
    parser.add_argument("--peer-python", help="with stable-baselines3, or what CleanRL's script needs")
    parser.add_argument("--jax-python", help="with what PureJaxRL needs")
    parser.add_argument("--cleanrl", type=Path, help="a checkout of CleanRL's repository")
    parser.add_argument("--streaming", type=Path, help="a checkout of the repository streaming-drl")
    parser.add_argument("--purejaxrl", type=Path, help="a checkout of PureJaxRL's repository")
    parser.add_argument("--fraction", type=float, default=1.0, help="of each row's steps, to try something out")
    parser.add_argument("--lines", type=Path, default=LINES, help="file that the lines are added to")
    parser.add_argument("--table", action="store_true", help="write the page from the lines there are")
    options = parser.parse_args()
    occasion = Occasion(options)
    for name in options.rows:
        occasion.row(name)
    if options.table or options.rows:
        text = page([json.loads(line) for line in options.lines.read_text().splitlines()])
        options.lines.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
