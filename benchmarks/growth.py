"""How training speed grows with the number of environments and with the width of the networks, next to what limits it.

    python benchmarks/growth.py measure                        # adds to benchmarks/results/growth.jsonl
    python benchmarks/growth.py measure --paths gymnasium
    python benchmarks/growth.py plot                           # draws benchmarks/results/growth.png

A2C on CartPole, 16 steps a rollout, two hidden layers for actor and critic each; 1 to 4096 environments at width 64, and widths
32 to 1024 at 64 environments. Steps per second after compilation, each point in a process of its own. *gymnasium*: CartPole-v1
by its vector entry point. *compiled*: rlgrad/CartPole-v1.

Two limits are drawn. The environment alone: Gymnasium's CartPole-v1 under random actions. Arithmetic: with P weights in the
matrices of both networks, a step takes 2P operations when it is collected and 6P when it is learned from (2P forward, 4P
backward), so at most peak ÷ 8P steps are made in a second; the peak is that of a product of float32 matrices of 2048².
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
LINES = RESULTS / "growth.jsonl"
NUM_ENVS = (1, 4, 16, 64, 256, 1024, 4096)
WIDTHS = (32, 64, 128, 256, 512, 1024)
PATHS = {
    "gymnasium": {"env": "CartPole-v1", "vectorization_mode": "vector_entry_point"},
    "compiled": {"env": "rlgrad/CartPole-v1"},
}
LENGTH, WIDTH, ENVS = 16, 64, 64  # what stays as it is while the other grows


def trained(path, num_envs, width, seconds):
    """Steps per second of a training that takes about so long, after one that compiles."""
    import rlgrad
    from rlgrad.agents import A2C

    size = num_envs * LENGTH
    run = rlgrad.train(
        A2C(num_envs=num_envs, num_steps=LENGTH),
        total_timesteps=4 * size,
        hidden_sizes=(width, width),
        run_dir=Path(tempfile.mkdtemp()) / "run",
        evaluation_episodes=0,
        verbose=False,
        **PATHS[path],
    )
    rate, taken = 0.0, 4 * size
    # The second training is long enough to tell how long the third has to be.
    for wanted in (0.2 * seconds, seconds):
        taken += max(4, int(wanted * rate / size)) * size
        before = run.timesteps, run.seconds
        run.train(taken)
        rate = (run.timesteps - before[0]) / (run.seconds - before[1])
    return rate


def alone(num_envs, seconds):
    """Steps per second of the environments under random actions."""
    import gymnasium

    envs = gymnasium.make_vec("CartPole-v1", num_envs, vectorization_mode="vector_entry_point")
    envs.reset(seed=0)
    actions = [envs.action_space.sample() for _ in range(64)]
    steps, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for action in actions:
            envs.step(action)
        steps += len(actions) * num_envs
    return steps / (time.perf_counter() - begun)


def peak():
    """Float32 operations per second in the best of ten matrix products."""
    import tensorflow as tf

    side = 2048
    a, product = tf.random.normal((side, side)), tf.function(tf.matmul)
    seconds = []
    for _ in range(10):
        begun = time.perf_counter()
        product(a, a).numpy()
        seconds.append(time.perf_counter() - begun)
    return 2 * side**3 / min(seconds)


def operations(width):
    """Of one environment step, collecting and learning."""
    actor, critic = 4 * width + width**2 + 2 * width, 4 * width + width**2 + width
    return 8 * (actor + critic)


def measure(paths, seconds, lines):
    """Adds a line a point."""
    points = [{"limit": "arithmetic"}, *({"limit": "environment", "num_envs": n} for n in NUM_ENVS)]
    for path in paths:
        points += [{"path": path, "num_envs": n, "width": WIDTH} for n in NUM_ENVS]
        points += [{"path": path, "num_envs": ENVS, "width": w} for w in WIDTHS if w != WIDTH]
    for point in points:
        command = [sys.executable, __file__, "point", json.dumps({**point, "seconds": seconds})]
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": folder}
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
        rate = float(result.stdout.strip().splitlines()[-1])
        line = json.dumps({**point, "rate": float(f"{rate:.4g}"), "cores": len(os.sched_getaffinity(0))})
        print(line, flush=True)
        with lines.open("a") as file:
            file.write(line + "\n")


def one(limit=None, path=None, num_envs=None, width=None, seconds=3.0):
    """The rate of one point."""
    if limit is None:
        return trained(path, num_envs, width, seconds)
    return peak() if limit == "arithmetic" else alone(num_envs, seconds)


def plot(lines, picture):
    """Both growths, side by side, from the last line of each point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = {}
    for row in map(json.loads, lines.read_text().splitlines()):
        rows[row.get("limit"), row.get("path"), row.get("num_envs"), row.get("width")] = row["rate"]
    arithmetic = rows["arithmetic", None, None, None]
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, values, name in zip(
        panels, (NUM_ENVS, WIDTHS), ("environments", "width of the hidden layers"), strict=True
    ):
        growing_envs = values is NUM_ENVS
        for i, path in enumerate(PATHS):
            keys = [(None, path, v, WIDTH) if growing_envs else (None, path, ENVS, v) for v in values]
            drawn = [(v, rows[key]) for v, key in zip(values, keys, strict=True) if key in rows]
            if drawn:
                panel.plot(*zip(*drawn, strict=True), "o-", markersize=4, color=f"C{i}", label=f"training, {path}")
        own = [(v, rows["environment", None, v if growing_envs else ENVS, None]) for v in values]
        panel.plot(*zip(*own, strict=True), "--", color="C0", linewidth=1, label="Gymnasium's environment alone")
        bound = [arithmetic / operations(WIDTH if growing_envs else v) for v in values]
        panel.plot(values, bound, ":", color="black", linewidth=1.2, label="float32 arithmetic")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel(name)
        panel.grid(alpha=0.3)
    panels[0].set_title(f"width {WIDTH}", fontsize=10)
    panels[1].set_title(f"{ENVS} environments", fontsize=10)
    panels[0].set_ylabel("environment steps per second")
    panels[0].legend(fontsize=8)
    figure.savefig(picture, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("measure", "plot", "point"))
    parser.add_argument("point", nargs="?", help="what a process of `measure` is given")
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=list(PATHS))
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--lines", type=Path, default=LINES, help="file that the lines are added to")
    options = parser.parse_args()
    if options.action == "point":
        print(one(**json.loads(options.point)))
    elif options.action == "measure":
        measure(options.paths, options.seconds, options.lines)
    else:
        plot(options.lines, options.lines.with_suffix(".png"))


if __name__ == "__main__":
    main()
