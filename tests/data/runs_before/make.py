"""Make the run folders beside this file, and what the code that made them reaches from there.

Run with the version of rlgrad that the folders are to be of, in an empty folder; they were made at commit cc338ae:

    python make.py
"""

import hashlib
import json
import os
import platform
import shutil
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import rlgrad
from rlgrad.agents import A2C, NPG, PPO
from rlgrad.policies import actors
from rlgrad.updates import Ascent, NaturalGradient, PerHead

HALF, WHOLE = 1024, 2048
EPISODES = 10
# Decided by what happened in the environments alone, so the same on every machine.
COUNTED = ("time/timesteps", "time/updates", "train/return", "train/length", "train/episodes")
KINDS = {
    "sync": {
        "agent": PPO(
            num_envs=4,
            num_steps=32,
            normalize_observations=True,
            scale_rewards=True,
            entropy_coefficient=0.01,
            update=Ascent(learning_rate=1e-3, max_grad_norm=0.5, num_epochs=2, num_minibatches=2),
        ),
        "env": "CartPole-v1",
        "vectorization_mode": "sync",
        "evaluation_interval": 384,  # Evaluate and EarlyStop have a state of their own
        "patience": 50,
        "logs": ("csv", "jsonl"),
    },
    "compiled": {
        "agent": NPG(
            num_envs=4, num_steps=32, update=PerHead(policy=NaturalGradient(), value=Ascent(learning_rate=1e-3))
        ),
        "hidden_sizes": (8,),
        "env": "rlgrad/CartPole-v1",
    },
    "memory": {
        "agent": A2C(num_envs=4, num_steps=16, entropy_coefficient=0.01),
        "env": "Blackjack-v1",  # it shows a Tuple of three Discrete
        "env_kwargs": {"natural": True},
        "max_episode_steps": 50,  # for the evaluation
        "hidden_sizes": (8,),
        "memory": "gru",
        "memory_size": 4,
    },
}


class StopHalfway(rlgrad.Callback):
    """End training after half of the steps, as Ctrl-C would."""

    def on_update(self, run, metrics):
        """Stop."""
        run.stop |= run.timesteps >= HALF


def machine():
    """Return a digest of what decides how numbers are rounded: the CPU, and the versions of the packages."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    cpu = sorted({line for line in lines if line.split("\t")[0] in ("model name", "flags")})
    told = [*cpu, str(os.cpu_count()), platform.system(), tf.__version__, keras.__version__, np.__version__]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def make(kind):
    """Train to half, keep the folder, and go to the end with a copy of it, compiled by XLA and as a plain graph."""
    folder = Path(kind)
    settings = {"total_timesteps": WHOLE, "seed": 7, "hidden_sizes": (8, 8), "verbose": False} | KINDS[kind]
    settings |= {"evaluation_episodes": EPISODES}
    rlgrad.train(settings.pop("agent"), settings.pop("env"), run_dir=folder, callbacks=[StopHalfway()], **settings)
    arrays = {}
    for name in ("xla", "graph"):
        copy = Path("copies") / kind / name
        shutil.copytree(folder, copy)
        with mock.patch.object(actors, "gains_from_xla", lambda model, gains=name == "xla": gains):
            run = rlgrad.load(copy, verbose=False).train()
        arrays |= {f"{name}/{i}": variable.numpy() for i, variable in enumerate(run.policy.variables)}
        arrays |= {f"history/{metric}": run.history[metric] for metric in COUNTED}
    np.savez_compressed(folder / "expected.npz", machine=machine(), **arrays)
    for path in (*folder.glob("events.*"), *folder.glob("*.png"), *sorted((folder / "checkpoints").glob("0*"))[:-1]):
        path.unlink()
    made = json.loads((folder / "run.json").read_text()) | {"directory": "/home/user"}
    made["machine"]["platform"] = "Linux"
    (folder / "run.json").write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    for each in KINDS:
        make(each)
    shutil.rmtree("copies")
