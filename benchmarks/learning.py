"""Learning results: a config, trained from the shell on several seeds, as a table.

    python benchmarks/learning.py cartpole --seeds 0-9

Every seed is `rlgrad train CONFIG --seed k` in a process of its own, and every seed is reported. Metric: the *last* weights;
training return (mean of the last 100 training episodes, sampled actions) and evaluation over 100 fresh episodes, greedy and
sampled. Interquartile means and their 95 % bootstrap intervals follow rliable's definitions (Agarwal et al. 2021).
Writes benchmarks/results/CONFIG.jsonl, one line a seed, and CONFIG.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml

RESULTS = Path(__file__).parent / "results"
COLUMNS = {"train_return": "training return", "greedy": "greedy", "sampled": "sampled"}


def interquartile_mean(values):
    """Mean of the values between the quartiles: a quarter of them, rounded down, is cut at either end."""
    values = np.sort(np.asarray(values, float), axis=-1)
    cut = values.shape[-1] // 4
    return values[..., cut : values.shape[-1] - cut].mean(axis=-1)


def bootstrap_interval(values, resamples=50_000):
    """95 % percentile interval of the interquartile mean."""
    draws = np.random.default_rng(0).choice(values, (resamples, len(values)))
    return np.percentile(interquartile_mean(draws), [2.5, 97.5])


def train(config, seed, extra):
    """One line of results."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        begun = time.perf_counter()
        command = ["rlgrad", "train", config, "--seed", str(seed), "--run-dir", str(run), *extra]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begun
        settings = yaml.safe_load((run / "config.yaml").read_text())
        evaluation = json.loads((run / "evaluation.json").read_text())
        last = dict(zip(*[line.split(",") for line in _ends((run / "metrics.csv").read_text())], strict=True))
    return {
        "config": config,
        "env": settings["env"],
        "seed": seed,
        "timesteps": evaluation["timesteps"],
        "train_return": float(last["train/return"]),
        "greedy": evaluation["greedy"]["mean_return"],
        "sampled": evaluation["sampled"]["mean_return"],
        "training_seconds": round(float(last["time/seconds"]), 1),
        "shell_seconds": round(seconds, 1),
    }


def table(config, rows, command):
    """The rows as Markdown."""
    first = rows[0]
    lines = [
        f"# {config}",
        "",
        f"{first['env']} (Gymnasium {version('gymnasium')}), last weights after {first['timesteps']:,} environment steps, "
        f"{len(rows)} seeds, none left out, none of them used for tuning. `{command}`",
        "",
        "| | interquartile mean | 95 % interval | worst seed | best seed |",
        "|---|---|---|---|---|",
    ]
    for key, name in COLUMNS.items():
        values = [row[key] for row in rows]
        low, high = bootstrap_interval(values)
        lines.append(
            f"| {name} | {interquartile_mean(values):.1f} | {low:.1f} to {high:.1f} | {min(values):.1f} | {max(values):.1f} |"
        )
    for key, name in (("training_seconds", "training, s"), ("shell_seconds", "from the shell, evaluation included, s")):
        values = [row[key] for row in rows]
        lines.append(f"| {name} | {interquartile_mean(values):.1f} | | {max(values):.1f} | {min(values):.1f} |")
    lines += ["", "| seed | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {row['seed']} | " + " | ".join(f"{row[key]:.1f}" for key in COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _ends(text):
    lines = text.strip().splitlines()
    return lines[0], lines[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--seeds", default="0-9", help="first-last, both included")
    parser.add_argument("options", nargs="*", help="further options of `rlgrad train`, after --")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    rows = []
    for seed in range(int(first), int(last or first) + 1):
        rows.append(train(arguments.config, seed, arguments.options))
        print(json.dumps(rows[-1]), flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{arguments.config}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = " ".join(["python benchmarks/learning.py", *sys.argv[1:]])
    text = table(arguments.config, rows, command)
    (RESULTS / f"{arguments.config}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
