"""Runs in processes of their own that are killed, and what is left of them. Used by tests/runs/test_resume.py."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

KINDS = {
    "sync": {"env": "CartPole-v1", "vectorization_mode": "sync"},
    "async": {"env": "CartPole-v1", "vectorization_mode": "async"},
    "own vector entry point": {  # 25,000 rows: its slots begin anew four times
        "env": "CartPole-v1",
        "num_steps": 50,
        "total_timesteps": 100_000,
        "evaluation_interval": 30_000,
    },
    "compiled": {"env": "rlgrad/CartPole-v1"},
    "whole episodes": {"env": "CartPole-v1", "num_steps": None, "total_timesteps": 2500},
    "memory": {"env": "CartPole-v1", "vectorization_mode": "sync", "memory": "lstm", "memory_size": 4, "num_steps": 16},
    "normalized": {"env": "Pendulum-v1", "num_steps": 64},
}
MORE_KINDS = {  # that are killed at random moments, and no more
    "early stop": {"env": "CartPole-v1", "vectorization_mode": "sync", "evaluation_interval": 300, "patience": 3},
    "evaluation": {
        "env": "CartPole-v1",
        "vectorization_mode": "sync",
        "evaluation_interval": 500,
        "evaluation_episodes": 10,
    },
    "gru": {"env": "Pendulum-v1", "memory": "gru", "memory_size": 4, "num_steps": 16, "total_timesteps": 2500},
    "hopper": {"env": "Hopper-v5", "num_steps": 64},
    "trpo": {"env": "CartPole-v1", "vectorization_mode": "sync", "num_steps": 32},
}


def _agent(kind):
    from rlgrad.agents import A2C, PPO, TRPO

    if kind in ("normalized", "hopper"):
        return PPO(normalize_observations=True, scale_rewards=True, num_steps=64)
    num_steps = (KINDS | MORE_KINDS)[kind].get("num_steps", 5)
    return TRPO(num_steps=num_steps) if kind == "trpo" else A2C(num_steps=num_steps)


def train(kind, folder, callbacks=()):
    """A short run, from its beginning."""
    import rlgrad

    settings = {"total_timesteps": 4000, "evaluation_interval": 1500, "evaluation_episodes": 0} | (KINDS | MORE_KINDS)[
        kind
    ]
    settings.pop("num_steps", None)
    return rlgrad.train(
        _agent(kind),
        settings.pop("env"),
        num_envs=4,
        hidden_sizes=(8,),
        seed=11,
        run_dir=folder,
        callbacks=callbacks,
        verbose=False,
        **settings,
    )


def resume(folder):
    """The run of a folder, to its end, as `rlgrad resume` brings it there."""
    import rlgrad
    from rlgrad.runs.training import conclude

    run = rlgrad.load(folder, verbose=False)
    if not (run.finished or run.ended):
        run.train()
    if not run.is_evaluated:
        conclude(run)
    return run


def start(what, kind, folder, *plain):
    """`train` or `resume` in a process of its own, which has just begun to: everything is imported, and the folder is there.

    With "plain", its programs are plain graphs.
    """
    process = subprocess.Popen([sys.executable, __file__, what, kind, folder, *plain], stdout=subprocess.PIPE)
    process.stdout.readline()
    while not (folder / "config.yaml").exists() and process.poll() is None:
        time.sleep(0.002)
    return process


def finish(what, kind, folder):
    """Lets it end, and returns the seconds from its beginning, without the imports."""
    process, begun = start(what, kind, folder), time.perf_counter()
    assert process.wait() == 0
    return time.perf_counter() - begun


def kill(what, kind, folder, seconds):
    """Kills it, with no time to answer, so many seconds after its beginning, and returns whether it was still going."""
    process = start(what, kind, folder)
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


def kill_once_logged(rows, kind, folder):
    """Kills a training, as a plain graph, as soon as it has logged so many rows, and returns whether it was still going."""
    process, metrics = start("train", kind, folder, "plain"), folder / "metrics.csv"
    while process.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") > rows):
        time.sleep(0.002)
    process.kill()
    return process.wait() != 0


def left(folder):
    """All that a finished run leaves but what a clock said: its newest checkpoint and its best one, array by array, its rows,
    and how it was evaluated.
    """
    newest, best = max((folder / "checkpoints").glob("0*.npz")), folder / "checkpoints" / "best.npz"
    evaluation = folder / "evaluation.json"
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    clocks = {header.index(name) for name in ("time/seconds", "time/steps_per_second")}
    rows = [[x for i, x in enumerate(row) if i not in clocks] for row in rows]
    evaluated = evaluation.read_text() if evaluation.exists() else None
    return newest.name, *_content(newest), best.exists() and _content(best), header, rows, evaluated


def _content(checkpoint):
    with np.load(checkpoint) as file:
        arrays = {name: file[name].tobytes() for name in file.files if name != "state"}
        state = json.loads(bytes(file["state"]))
    del state["seconds"]
    return arrays, state


if __name__ == "__main__":
    import rlgrad.runs.training  # noqa: F401

    print("ready", flush=True)
    what, kind, folder, *plain = sys.argv[1:]
    if plain:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from helpers import xla

        xla.choose(by_rule=False)
    if what == "train":
        train(kind, Path(folder))
    else:
        resume(Path(folder))
