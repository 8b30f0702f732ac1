"""ALE/Pong-v5 from pixels: what A2C has learned after so many seconds of training, beside Stable-Baselines3's A2C.

    python benchmarks/pong.py measure --peer-python PEERS/bin/python             # two hours for each side, one after the other
    python benchmarks/pong.py measure --peer-python PEERS/bin/python --at-once   # side by side, half of the cores for each
    python benchmarks/pong.py page                                               # benchmarks/results/pong.md and pong.png

rlgrad's side is `rlgrad train pong-a2c`, the peer's takes the zoo's settings for Atari (benchmarks/peers/pong_sb3.py): 16
environments, 5 steps a rollout, RMSprop, the same network. Every side is measured once more with each call, and the last
measurement of each counts. Training return: the mean of the last 100 episodes; greedy and sampled: fresh episodes at the last
weights. Ours needs `ale-py` and `opencv-python-headless`.
"""

import argparse
import csv
import datetime
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
LINES = HERE / "results" / "pong.jsonl"
EVERY = 60.0  # seconds between two points of a curve
EPISODES = 30
STEPS = 20_000_000  # more than any side gets to; a row of metrics is 1/250 of it
NAMES = {"rlgrad": "rlgrad", "sb3": "Stable-Baselines3"}
PACKAGES = ("rlgrad", "tensorflow-cpu", "keras", "numpy", "gymnasium", "ale-py")


def commands(options, folder):
    """The command that is run for each side."""
    # Two threads are faster than one where both cores are there for it.
    threads = 1 if options.at_once else 2
    work = {
        "env": "ALE/Pong-v5",
        "atari": True,
        "num_envs": 16,
        "vec": "dummy",
        "threads": threads,
        "seed": options.seed,
    }
    work |= {"seconds": options.seconds, "every": EVERY, "episodes": EPISODES}
    budget = ["--total-timesteps", str(STEPS), "--time-budget", str(options.seconds)]
    ours = [
        sys.executable,
        "-m",
        "rlgrad.cli",
        "train",
        "pong-a2c",
        "--run-dir",
        str(folder),
        "--seed",
        str(options.seed),
    ]
    return {
        "rlgrad": [*ours, *budget, "--evaluation-episodes", str(EPISODES)],
        "sb3": [str(options.peer_python), str(HERE / "peers" / "pong_sb3.py"), json.dumps(work)],
    }


def started(command, cores, output):
    """A process that keeps to some cores, and leaves its logs beside its output."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # which a process inherits
    try:
        variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": str(Path(output.name).parent)}
        return subprocess.Popen(command, stdout=output, env=variables)
    finally:
        os.sched_setaffinity(0, mine)


def ours(folder):
    """Return the content of a run's folder."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    points = [(float(r["time/seconds"]), int(r["time/timesteps"]), float(r["train/return"] or "nan")) for r in rows]
    evaluation = json.loads((folder / "evaluation.json").read_text())
    return {
        "seconds": points[-1][0],
        "timesteps": points[-1][1],
        "curve": [(round(seconds, 1), steps, round(value, 2)) for seconds, steps, value in points if value == value],
        "greedy": evaluation["greedy"]["mean_return"],
        "sampled": evaluation["sampled"]["mean_return"],
    }, {name: version(name) for name in PACKAGES}


def theirs(output):
    """Return the answer of the peer's script."""
    output.seek(0)
    answer = json.loads(output.read().strip().splitlines()[-1])
    found = answer["metrics"]
    return {**found, "curve": [point for point in found["curve"] if point[2] is not None]}, answer["versions"]


def measure(options):
    """Adds a line for each side."""
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    halves = {"rlgrad": cores[half:], "sb3": cores[:half]} if options.at_once else dict.fromkeys(NAMES, cores)
    about = {"occasion": datetime.datetime.now().isoformat(timespec="seconds"), "at_once": options.at_once}
    with tempfile.TemporaryDirectory() as parent:
        folder, processes, outputs = Path(parent) / "run", {}, {}
        for side, command in commands(options, folder).items():
            outputs[side] = (Path(parent) / side).open("w+")
            processes[side] = started(command, halves[side], outputs[side])
            if not options.at_once and processes[side].wait():
                raise SystemExit(f"{NAMES[side]} failed.")  # before the other one takes its hours
        for side, process in processes.items():
            if process.wait():
                for other in processes.values():
                    other.kill()
                raise SystemExit(f"{NAMES[side]} failed.")
            found, versions = ours(folder) if side == "rlgrad" else theirs(outputs[side])
            line = {
                "side": side,
                **about,
                "cores": len(halves[side]),
                "seed": options.seed,
                **found,
                "versions": versions,
            }
            print({name: value for name, value in line.items() if name != "curve"}, flush=True)
            with options.lines.open("a") as file:
                file.write(json.dumps(line) + "\n")


def last(lines):
    """The last line of each side."""
    rows = map(json.loads, lines.read_text().splitlines())
    by_side = {row["side"]: row for row in rows}
    return {side: by_side[side] for side in NAMES if side in by_side}


def page(lines):
    """A table and the two curves, over time and over steps."""
    rows = last(lines)
    row = next(iter(rows.values()))
    how = f"side by side, cores for each: {row['cores']}" if row["at_once"] else "one after the other"
    text = [
        "# ALE/Pong-v5 from pixels",
        "",
        f"A2C with the Nature CNN, 16 environments × 5 steps, one seed, the last weights after so many seconds; {how}.",
        "Pong is won with 21, and lost with −21; the environment repeats an action with probability 0.25.",
        f"*Training return*: mean of the last 100 episodes. *Greedy*, *sampled*: {EPISODES} fresh episodes. Written by",
        "`python benchmarks/pong.py page`; that file says how to measure.",
        "",
        "| | training, s | environment steps | steps/s | training return | greedy | sampled |",
        "|---|---|---|---|---|---|---|",
    ]
    for side, r in rows.items():
        value = f"{r['curve'][-1][2]:.1f}" if r["curve"] else "–"  # no episode is over so soon
        text.append(
            f"| {NAMES[side]} | {r['seconds']:,.0f} | {r['timesteps']:,} | {r['timesteps'] / r['seconds']:,.0f} | "
            f"{value} | {r['greedy']:.1f} | {r['sampled']:.1f} |"
        )
    versions = {name: number for r in rows.values() for name, number in r["versions"].items()}
    text += ["", "![Training return over time and over steps](pong.png)", ""]
    text += ["Versions: " + ", ".join(f"{name} {number}" for name, number in sorted(versions.items())) + "."]
    lines.with_suffix(".md").write_text("\n".join([*text, ""]))
    plot(rows, lines.with_suffix(".png"))


def plot(rows, picture):
    """Training return over hours and over steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for side, row in rows.items():
        seconds, steps, values = zip(*row["curve"], strict=True) if row["curve"] else ((), (), ())
        for panel, x in zip(panels, ([s / 3600 for s in seconds], [n / 1e6 for n in steps]), strict=True):
            panel.plot(x, values, label=NAMES[side])
    for panel, name in zip(panels, ("hours of training", "environment steps, millions"), strict=True):
        panel.set_xlabel(name)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("training return, last 100 episodes")
    panels[0].legend()
    figure.savefig(picture, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("measure", "page"))
    parser.add_argument("--peer-python", help="with stable-baselines3, gymnasium, ale-py and opencv-python-headless")
    parser.add_argument("--seconds", type=float, default=7200.0, help="of training, for each side")
    parser.add_argument("--at-once", action="store_true", help="both sides at the same time, each on half of the cores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lines", type=Path, default=LINES, help="file that the lines are added to")
    options = parser.parse_args()
    if options.action == "page":
        page(options.lines)
    elif options.peer_python is None:
        raise SystemExit("Give the Python that has Stable-Baselines3: --peer-python.")
    else:
        measure(options)


if __name__ == "__main__":
    main()
