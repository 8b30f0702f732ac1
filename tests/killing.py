"""Runs in processes of their own that are killed, and what is left of them. Used by tests/test_resume.py."""

import json
import multiprocessing
import os
import time

import numpy as np

# One process imports what takes longest, and each training is a fork of it. Anything that TensorFlow computes there hangs here.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tensorflow", "keras", "gymnasium"])
KINDS = {
    "sync": {"env": "CartPole-v1", "vectorization_mode": "sync"},
    "async": {"env": "CartPole-v1", "vectorization_mode": "async"},
    "own vector entry point": {"env": "CartPole-v1"},
    "compiled": {"env": "rlgrad/CartPole-v1"},
    "whole episodes": {"env": "CartPole-v1", "num_steps": None, "total_timesteps": 2500},
    "memory": {"env": "CartPole-v1", "vectorization_mode": "sync", "memory": "lstm", "memory_size": 4, "num_steps": 16},
    "normalized": {"env": "Pendulum-v1", "num_steps": 64},
}


def _agent(kind):
    from rlgrad.agents import A2C, PPO

    if kind == "normalized":
        return PPO(normalize_observations=True, scale_rewards=True, num_steps=64)
    return A2C(num_steps=KINDS[kind].get("num_steps", 5))


def train(kind, folder, callbacks=()):
    """A short run, from its beginning."""
    import rlgrad

    settings = {"total_timesteps": 4000, "evaluation_interval": 1500} | KINDS[kind]
    settings.pop("num_steps", None)
    return rlgrad.train(
        _agent(kind),
        settings.pop("env"),
        num_envs=4,
        hidden_sizes=(8,),
        seed=11,
        run_dir=folder,
        evaluation_episodes=0,
        callbacks=callbacks,
        verbose=False,
        **settings,
    )


def resume(folder):
    """The run of a folder, to its end."""
    import rlgrad

    run = rlgrad.load(folder, verbose=False)
    return run if run.finished else run.train()


def quietly(function, *arguments):
    """In a process that may print what it likes."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.setpgrp()  # with the processes of its environments
    function(*arguments)


def kill(kind, folder, seconds):
    """Starts a run and kills it, with no time to answer, so many seconds after its folder is complete.

    Returns:
        Whether it was still going.
    """
    process = _PROCESSES.Process(target=quietly, args=(train, kind, folder))
    process.start()
    while not (folder / "config.yaml").exists() and process.is_alive():
        time.sleep(0.002)
    process.join(seconds)
    going = process.is_alive()
    process.kill()
    process.join()
    return going


def in_a_process(function, *arguments):
    """Seconds that a function took in a process of its own."""
    begun = time.perf_counter()
    process = _PROCESSES.Process(target=quietly, args=(function, *arguments))
    process.start()
    process.join()
    assert process.exitcode == 0
    return time.perf_counter() - begun


def left(folder):
    """All that a finished run leaves but what a clock said: its newest checkpoint, array by array, and its rows."""
    newest = max((folder / "checkpoints").glob("0*.npz"))
    with np.load(newest) as file:
        arrays = {name: file[name].tobytes() for name in file.files if name != "state"}
        state = json.loads(bytes(file["state"]))
    del state["seconds"]
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    clocks = {header.index(name) for name in ("time/seconds", "time/steps_per_second")}
    return newest.name, arrays, state, header, [[x for i, x in enumerate(row) if i not in clocks] for row in rows]
