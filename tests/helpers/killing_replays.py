"""Runs with a replay in processes of their own that are killed. Used by tests/runs/test_replay_runs.py."""

import subprocess
import sys
import time
from pathlib import Path

KINDS = (
    "plain",
    "prioritized",
    "quantiles",
    "rollouts",
    "compiled",
    "critics",
    "delayed",
    "normalized",
    "dropping",
    "discrete",
)
BOX = ("critics", "delayed", "normalized", "dropping")  # continuous actions


def agent_of(kind):
    from rlgrad.agents import DQN, PQN, QRDQN, SAC, TD3, CrossQ, DiscreteSAC, DroQ
    from rlgrad.replay import Replay, Target
    from rlgrad.updates import Ascent

    small = {"capacity": 300, "batch_size": 8, "warmup": 100, "updates_per_step": 0.13}  # overwritten several times
    settings = {"num_envs": 2, "num_steps": 10, "target": Target(rate=1.0, every=7)}
    if kind in ("plain", "compiled"):
        return DQN(replay=Replay(**small), **settings)
    if kind == "prioritized":
        replay = Replay(**small, prioritized=True, n_steps=3)
        return DQN(replay=replay, dueling=True, normalize_observations=True, scale_rewards=True, **settings)
    if kind == "quantiles":
        return QRDQN(quantiles=4, replay=Replay(**small, n_steps=2), normalize_observations=True, **settings)
    if kind == "discrete":
        return DiscreteSAC(num_envs=2, num_steps=10, replay=Replay(**small))
    if kind in BOX:
        kept = {"num_envs": 2, "num_steps": 10, "replay": Replay(**small), "normalize_observations": True}
        return {"critics": SAC, "delayed": TD3, "normalized": CrossQ, "dropping": DroQ}[kind](**kept)
    return PQN(num_envs=2, num_steps=10, update=Ascent(num_epochs=2, num_minibatches=2))


def train(kind, folder, callbacks=()):
    """A short run, from its beginning: 80 updates, with a checkpoint after each 8."""
    import rlgrad

    return rlgrad.train(
        agent_of(kind),
        {"compiled": "rlgrad/CartPole-v1"}.get(kind, "Pendulum-v1" if kind in BOX else "CartPole-v1"),
        total_timesteps=1600,
        hidden_sizes=(4,),
        seed=11,
        vectorization_mode="compiled" if kind == "compiled" else "sync",
        run_dir=folder,
        evaluation_episodes=0,
        callbacks=callbacks,
        verbose=False,
    )


def kill_once_logged(rows, kind, folder):
    """Kills a training as soon as it has logged so many rows, and returns whether it was still going."""
    process, metrics = subprocess.Popen([sys.executable, __file__, kind, folder]), folder / "metrics.csv"
    while process.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") > rows):
        time.sleep(0.002)
    process.kill()
    return process.wait() != 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from helpers import xla

    xla.choose(by_rule=False)
    train(sys.argv[1], Path(sys.argv[2]))
