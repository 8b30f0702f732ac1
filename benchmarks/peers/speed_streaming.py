"""The side of Elsayed, Vasan and Mahmood in benchmarks/speed.py: their Stream AC(λ), unchanged, from a checkout.

    pip install torch gymnasium mujoco
    git clone https://github.com/mohmdelsayed/streaming-drl CHECKOUT

Their scripts were written for Gymnasium 0.29, in which RecordEpisodeStatistics told returns as arrays; what stands in for it
here does so again. They say nothing of time, so their update notes when it was called.
"""

import importlib
import os
import sys
import tempfile
import time

import gymnasium
import numpy as np
import torch
from speed_common import answer, asked


class Statistics(gymnasium.wrappers.RecordEpisodeStatistics):
    """With returns as their scripts read them."""

    def step(self, action):
        """Step, and make an array of a return."""
        stepped = super().step(action)
        if "episode" in stepped[4]:
            stepped[4]["episode"]["r"] = np.array([stepped[4]["episode"]["r"]])
        return stepped


def clocked(update, times, every):
    """The update, which notes the time after so many calls."""
    calls = 0

    def step(*arguments, **options):
        nonlocal calls
        update(*arguments, **options)
        calls += 1
        if calls % every == 0:
            times.append(time.perf_counter())

    return step


def main():
    work = asked()
    torch.set_num_threads(work["threads"])
    gymnasium.wrappers.RecordEpisodeStatistics = Statistics
    sys.path.insert(0, work["checkout"])
    script = importlib.import_module(f"stream_ac_{'continuous' if work['continuous'] else 'discrete'}")
    times = []
    script.StreamAC.update_params = clocked(script.StreamAC.update_params, times, work["steps"])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # they write their returns where they stand
        times.append(time.perf_counter())
        script.main(
            env_name=work["peer_env"],
            seed=work["seed"],
            lr=1.0,
            gamma=work["gamma"],
            lamda=work["trace_decay"],
            total_steps=2 * work["steps"],
            entropy_coeff=work["entropy"],
            kappa_policy=work["kappa"][0],
            kappa_value=work["kappa"][1],
            debug=False,
            overshooting_info=False,
        )
        os.chdir("/")
    begun, middle, end = times
    numbers = {"steady": work["steps"] / (end - middle), "whole": work["steps"] / (middle - begun)}
    answer(numbers, "torch", "numpy", "gymnasium", "mujoco")


if __name__ == "__main__":
    main()
