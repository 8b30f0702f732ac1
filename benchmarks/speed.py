"""Training speed on Gymnasium's CartPole-v1 beside Stable-Baselines3's A2C, the two interleaved in one run.

    python benchmarks/speed.py --peer-python /path/to/peers/bin/python

The peer's Python needs torch and stable-baselines3, in a virtual environment of its own. Both sides train an actor and a
critic of 64-64 tanh units each in 8 environments stepped one after the other in the same process, with the same rollout length
and so the same number of updates; the peer has one thread, as its authors advise for so small a network. Measured is training
alone, in steps per second: once with everything from the first step, compilation included, and once from the second of two
trainings in the same process. Writes benchmarks/results/speed.md.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
HERE = Path(__file__).parent

OURS = """
import json, sys, tempfile
import rlgrad
from rlgrad.agents import Reinforce
steps, length = int(sys.argv[1]), int(sys.argv[2])
rates = []
agent = Reinforce(num_envs=8, num_steps=length, update=rlgrad.Ascent(learning_rate=7e-4, max_grad_norm=0.5))
run = rlgrad.train(agent, "CartPole-v1", total_timesteps=steps, run_dir=tempfile.mkdtemp(), evaluation_episodes=0,
                   verbose=False)
first = run.timesteps / run.seconds
seconds, taken = run.seconds, run.timesteps
run.train(2 * steps)
print(json.dumps({"whole": first, "steady": (run.timesteps - taken) / (run.seconds - seconds), "updates": run.updates // 2}))
"""


def measure(command, arguments):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(result.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--lengths", type=int, nargs="+", default=[5, 16, 64], help="steps per environment per rollout")
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of one training")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    sides = {
        "rlgrad": [sys.executable, "-c", OURS],
        "SB3 A2C": [arguments.peer_python, str(HERE / "peers" / "sb3_speed.py")],
    }
    lines = [
        "# Training speed: REINFORCE with a value baseline beside Stable-Baselines3's A2C",
        "",
        f"CartPole-v1, 8 environments, {arguments.steps:,} steps a training, medians (lowest to highest) of "
        f"{arguments.repeats} interleaved repeats, environment steps per second; {os.cpu_count()} cores, {platform.machine()}. "
        f"`python benchmarks/speed.py --peer-python …`",
        "",
        "| steps per rollout | measured | rlgrad | SB3 A2C | ratio |",
        "|---|---|---|---|---|",
    ]
    for length in arguments.lengths:
        measured = {side: [] for side in sides}
        for _ in range(arguments.repeats):
            for side, command in sides.items():
                measured[side].append(measure(command, [arguments.steps // (8 * length) * 8 * length, length]))
        for key, name in (("whole", "with compilation"), ("steady", "after it")):
            values = {side: [m[key] for m in results] for side, results in measured.items()}
            median = {side: statistics.median(v) for side, v in values.items()}
            shown = " | ".join(f"{median[s]:,.0f} ({min(v):,.0f} to {max(v):,.0f})" for s, v in values.items())
            lines.append(f"| 8 × {length} | {name} | {shown} | {median['rlgrad'] / median['SB3 A2C']:.2f} |")
            print(lines[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "speed.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
