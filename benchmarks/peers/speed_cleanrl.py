"""CleanRL's side of benchmarks/speed.py: runs the authors' cleanrl/ppo.py, unchanged, from a checkout of their repository.

    pip install torch gymnasium tyro tensorboard envpool

The script times itself only in whole steps per second, so its SummaryWriter notes when each iteration ends, and writes on.
With EnvPool, what stands in for Gymnasium's SyncVectorEnv makes EnvPool's environments. The script was written for Gymnasium
0.29, which reset environments in the step that ended them, and looks for finished episodes where later versions do not put
them: it prints no returns then, which costs it nothing.
"""

import os
import runpy
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import gymnasium
import torch
import torch.utils.tensorboard
from speed_common import answer, asked


class Clock(torch.utils.tensorboard.SummaryWriter):
    """Notes the time at its making, and at the end of each iteration."""

    times: ClassVar[list[float]] = []

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.times.append(time.perf_counter())

    def add_scalar(self, tag, *arguments):
        super().add_scalar(tag, *arguments)
        if tag == "charts/SPS":
            self.times.append(time.perf_counter())


def envpool_in_place_of_sync(work):
    """Has the script make EnvPool's environments. They are seeded when they are made, and reset takes no seed."""
    import envpool

    def make(functions):
        envs = envpool.make(work["env"], env_type="gymnasium", num_envs=len(functions), seed=work["seed"])
        reset = envs.reset
        envs.reset = lambda seed=None: reset()
        return envs

    gymnasium.vector.SyncVectorEnv = make


def main():
    work = asked()
    torch.set_num_threads(work["threads"])
    torch.utils.tensorboard.SummaryWriter = Clock
    if work.get("envpool"):
        envpool_in_place_of_sync(work)
    steps = 2 * work["steps"]
    options = {
        "env-id": work["env"],
        "seed": work["seed"],
        "total-timesteps": steps,
        "learning-rate": work["learning_rate"],
        "num-envs": work["num_envs"],
        "num-steps": work["num_steps"],
        "gamma": work["gamma"],
        "gae-lambda": work["gae_lambda"],
        "num-minibatches": work["minibatches"],
        "update-epochs": work["epochs"],
        "ent-coef": work["entropy"],
        "vf-coef": work["value_coefficient"],
    }
    script = Path(work["checkout"]).resolve() / "cleanrl" / "ppo.py"
    sys.argv = [
        str(script),
        "--no-cuda",
        *(str(part) for name, value in options.items() for part in (f"--{name}", value)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it writes its runs where it stands
        runpy.run_path(str(script), run_name="__main__")
        os.chdir("/")
    begun, *ends = Clock.times
    middle, last = ends[len(ends) // 2 - 1], ends[-1]
    half = steps // 2
    numbers = {"steady": half / (last - middle), "whole": half / (middle - begun)}
    answer(numbers, "torch", "numpy", "gymnasium", "envpool")


if __name__ == "__main__":
    main()
