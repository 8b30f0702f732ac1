"""A run with workers is the run without, to the bit: same weights, same metrics, whatever the number of workers that die."""

import contextlib
import hashlib
import os
import random
import signal
import threading

import pytest
from helpers.slow import mostly_slow
from helpers.time_to_start import SMALL

import rlgrad
from rlgrad.agents import A2C, DQN, PPO, TD3, Reinforce, StreamQ
from rlgrad.updates import Ascent

pytest.importorskip("ray")

FEW = Ascent(learning_rate=1e-3, num_epochs=2, num_minibatches=2)
KINDS = {
    "ppo": (PPO(num_steps=32, update=FEW), "CartPole-v1", {"total_timesteps": 640, "vectorization_mode": "sync"}),
    "a2c async": (A2C(num_steps=8), "CartPole-v1", {"total_timesteps": 160, "vectorization_mode": "async"}),
    "dqn": (
        DQN(num_steps=2, replay=rlgrad.Replay(capacity=500, batch_size=8, warmup=80)),
        "CartPole-v1",
        {"total_timesteps": 200, "vectorization_mode": "sync"},
    ),
    "recurrent ppo": (
        PPO(num_steps=16, update=FEW),
        "Pendulum-v1",
        {"total_timesteps": 320, "vectorization_mode": "sync", "memory": "gru", "memory_size": 8},
    ),
    "normalized ppo": (
        PPO(num_steps=32, normalize_observations=True, scale_rewards=True, update=FEW),
        "Pendulum-v1",
        {"total_timesteps": 640, "vectorization_mode": "sync"},
    ),
    "td3": (
        TD3(num_steps=4, replay=rlgrad.Replay(capacity=500, batch_size=8, warmup=80)),
        "Pendulum-v1",
        {"total_timesteps": 160, "vectorization_mode": "sync"},
    ),
    "stream q": (StreamQ(), "CartPole-v1", {"total_timesteps": 40, "vectorization_mode": "sync", "num_envs": 1}),
    "whole episodes": (
        Reinforce(episodes_per_env=2),
        "CartPole-v1",
        {"total_timesteps": 600, "vectorization_mode": "sync"},
    ),
}


def weights(run):
    return b"".join(variable.numpy().tobytes() for variable in (*run.policy.variables, *run.learner.state.slots))


def digest(run):
    """Of all weights, and of all that a run logs but times."""
    content = hashlib.sha256(weights(run))
    for name, column in sorted(run.history.items()):
        if not name.startswith("time/s"):
            content.update(f"{name} {column}".encode())
    return content.hexdigest()


def trained(kind, folder, callbacks=(), **settings):
    agent, env, own = KINDS[kind]
    with_folder = {**SMALL, **own, **settings, "run_dir": folder, "callbacks": callbacks}
    run = rlgrad.train(agent, env, **with_folder)
    found = digest(run), [len(column) for column in run.history.values()], weights(run)
    run.close()
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Each kind of run without workers, once."""
    known = {}

    def once(kind):
        if kind not in known:
            known[kind] = trained(kind, tmp_path_factory.mktemp("alone") / "run")
        return known[kind]

    return once


def kill(pid):
    with contextlib.suppress(ProcessLookupError):  # the run has ended
        os.kill(pid, signal.SIGKILL)


class Killer(rlgrad.Callback):
    """Kills the process of a worker after some updates, at a random moment of the rollout that follows."""

    def __init__(self, updates, seed=0):
        self.updates, self.random, self.killed = updates, random.Random(seed), []

    def on_update(self, run, metrics):
        if run.updates in self.updates:
            pid = self.random.choice(run.collector.workers)["pid"]
            self.killed.append(pid)
            threading.Timer(self.random.random() * 0.02, kill, (pid,)).start()


class NodeKiller(rlgrad.Callback):
    """Ends a node of the cluster on which a worker runs, and adds another one."""

    def __init__(self, cluster, update):
        self.cluster, self.update, self.killed = cluster, update, 0

    def on_update(self, run, metrics):
        if run.updates == self.update:
            self.cluster.another()
            self.cluster.remove_node(self.cluster.others.pop(0), allow_graceful=False)
            self.killed += 1


@mostly_slow(
    "kind, workers",
    [
        *((kind, 1 + (kind != "stream q")) for kind in KINDS),
        *((kind, workers) for kind in ("ppo", "a2c async", "dqn", "recurrent ppo") for workers in (1, 4)),
    ],
    quick=[("ppo", 2)],
)
def test_a_run_with_workers_is_the_run_without(kind, workers, alone, cluster, tmp_path):
    found = trained(kind, tmp_path / "run", workers=workers)
    assert found == alone(kind)
    assert max(found[1]) >= 2


@mostly_slow("kind", ["ppo", "a2c async", "dqn", "recurrent ppo", "whole episodes"], quick=["ppo"])
def test_a_run_whose_workers_were_killed_twice_is_the_run_without_workers(
    kind, alone, cluster, tmp_path, caplog, capfd
):
    killer = Killer({1, 2})
    assert trained(kind, tmp_path / "run", [killer], workers=2) == alone(kind)
    assert len(killer.killed) == 2
    assert "raylet" not in "".join(capfd.readouterr())  # Ray's own words on it
    lost = [text for text in caplog.messages if "was lost: its rollout is played again elsewhere" in text]
    assert lost
    assert any("slots 0 to 1" in text or "slots 2 to 3" in text for text in lost)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ppo", "recurrent ppo"])
def test_a_run_whose_nodes_were_killed_twice_is_the_run_without_workers(kind, alone, nodes, tmp_path, caplog):
    killers = [NodeKiller(nodes, 1), NodeKiller(nodes, 3)]
    assert trained(kind, tmp_path / "run", killers, workers=4) == alone(kind)
    assert [killer.killed for killer in killers] == [1, 1]
    assert "was lost: its rollout is played again elsewhere" in caplog.text


class Stop(rlgrad.Callback):
    def on_update(self, run, metrics):
        run.stop |= run.updates == 3


@mostly_slow("first, second", {"2 then 1": (2, 1), "2 then none": (2, 0), "none then 2": (None, 2)}, quick=["2 then 1"])
def test_a_run_is_resumed_with_any_number_of_workers(first, second, alone, cluster, tmp_path):
    trained("ppo", tmp_path / "run", [Stop()], workers=first)
    run = rlgrad.load(tmp_path / "run", verbose=False, workers=second)
    assert run.updates == 3
    run.train(KINDS["ppo"][2]["total_timesteps"])  # it ended early
    found = weights(run)
    run.close()
    assert found == alone("ppo")[2]  # rows before are read from metrics.csv, with fewer digits
