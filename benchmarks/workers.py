"""The cost and gain of workers: steps a second with and without them, bytes of a rollout, and when a cluster saturates.

    pip install 'rlgrad[cpu,ray]'
    python benchmarks/workers.py measure > benchmarks/results/workers.json     # a minute on an idle machine
    python benchmarks/workers.py paper benchmarks/results/workers.json         # a table: up to 1,000 workers, computed
    python benchmarks/workers.py kills 30                                      # kills at random moments; all runs equal

`measure` interleaves what it compares, and takes the best of several repetitions. `paper` puts the measured constants into
three lower bounds of the seconds of an update: the workers' (steps of one worker), the driver's (what it does for each worker),
and the learner's. The largest decides.
"""

import argparse
import hashlib
import json
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import gymnasium
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import rlgrad
from rlgrad.agents import PPO
from rlgrad.distributed import RemoteCollector
from rlgrad.rollouts import GymCollector
from rlgrad.updates import Ascent

SLOTS, STEPS = 8, 32


class Slow(gymnasium.Env):
    """An environment whose step takes 5 ms of waiting, as one does that asks a simulator in another process."""

    observation_space = gymnasium.spaces.Box(-1, 1, (8,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(8, np.float32), {}

    def step(self, action):
        time.sleep(0.005)
        return np.zeros(8, np.float32), 1.0, False, False, {}


def seconds(collector, policy, repetitions):
    """Seconds of a rollout, the best of several."""
    best = np.inf
    for _ in range(repetitions):
        begun = time.perf_counter()
        collector.collect(policy)
        best = min(best, time.perf_counter() - begun)
    return best


def interleaved(makers, policy, rounds, repetitions):
    made = {name: make() for name, make in makers.items()}
    for collector in made.values():
        collector.collect(policy)
    best = dict.fromkeys(made, np.inf)
    for _ in range(rounds):
        for name, collector in made.items():
            best[name] = min(best[name], seconds(collector, policy, repetitions))
    for collector in made.values():
        collector.close()
    return best


def measure():
    options = {"num_envs": SLOTS, "num_steps": STEPS, "vectorization_mode": "sync"}
    probe = GymCollector("CartPole-v1", **options)
    policy = rlgrad.make_policy(probe.observation_space, probe.action_space)
    fast = interleaved(
        {
            "no Ray": lambda: GymCollector("CartPole-v1", **options),
            "1 worker": lambda: RemoteCollector("CartPole-v1", workers=1, **options),
            "2 workers": lambda: RemoteCollector("CartPole-v1", workers=2, **options),
        },
        policy,
        rounds=5,
        repetitions=20,
    )
    slow_policy = rlgrad.make_policy(Slow.observation_space, Slow.action_space)
    slow = interleaved(
        {
            "no Ray": lambda: GymCollector(Slow, **options),
            "1 worker": lambda: RemoteCollector(Slow, workers=1, **options),
            "2 workers": lambda: RemoteCollector(Slow, workers=2, **options),
        },
        slow_policy,
        rounds=2,
        repetitions=1,
    )
    rollout, weights = probe.collect(policy), policy.in_numpy()
    agent = PPO(num_envs=SLOTS, num_steps=STEPS, update=Ascent(num_epochs=4, num_minibatches=4))
    learner = rlgrad.Learner(agent, policy, num_envs=SLOTS)
    learner.learn(rollout, 0.0, np.array([1, 2]))
    begun = time.perf_counter()
    for _ in range(20):
        learner.learn(rollout, 0.0, np.array([1, 2]))
    state = probe.state()
    del state["running"]["actions"]
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "slots": SLOTS,
        "steps": STEPS,
        "rollout seconds, CartPole": fast,
        "rollout seconds, 5 ms a step": slow,
        "overhead of one worker": fast["1 worker"] / fast["no Ray"] - 1.0,
        "overhead of one worker, ms": 1e3 * (fast["1 worker"] - fast["no Ray"]),
        "two workers over one, 5 ms a step": slow["1 worker"] / slow["2 workers"],
        "learn seconds": (time.perf_counter() - begun) / 20,
        "bytes of a rollout": len(pickle.dumps(rollout, protocol=5)),
        "bytes of the state": len(pickle.dumps(state, protocol=5)),
        "bytes of the weights": len(pickle.dumps(weights, protocol=5)),
    }


def paper(known, step_ms=(0.02, 1.0, 5.0, 20.0), workers=(1, 8, 64, 256, 1000)):
    """Steps a second of a synchronous run with 8 slots and 32 steps for each worker, from the measured constants.

    The driver's share for each worker is what the call, the rollout's way and its merging cost beside playing, which one worker
    shows; the learner's grows with the rows of an update.
    """
    call = max(known["rollout seconds, CartPole"]["1 worker"] - known["rollout seconds, CartPole"]["no Ray"], 1e-4)
    rows = SLOTS * STEPS
    print("| ms a step | workers | steps/s | bound by | driver, MB/s |\n|---|---|---|---|---|")
    for ms in step_ms:
        for count in workers:
            bounds = {
                "workers": rows * ms / 1e3 + call,
                "driver": count * call,
                "learner": count * known["learn seconds"],
            }
            # Workers wait while the driver merges and the learner learns.
            total = max(bounds["workers"], bounds["driver"]) + bounds["learner"]
            rate = count * rows / total
            sizes = known["bytes of a rollout"] + known["bytes of the state"] + known["bytes of the weights"]
            which = max(bounds, key=bounds.get)
            print(f"| {ms:g} | {count:,} | {rate:,.0f} | {which} | {count * sizes / total / 1e6:,.1f} |")


class Killer(rlgrad.Callback):
    """Kills a worker at a random moment after a random update."""

    def __init__(self, seed):
        self.random, self.killed = random.Random(seed), 0
        self.at = self.random.randrange(1, 9)

    def on_update(self, run, metrics):
        if run.updates == self.at:
            pid = self.random.choice(run.collector.workers)["pid"]
            self.killed += 1
            threading.Timer(self.random.random() * 0.03, os.kill, (pid, signal.SIGKILL)).start()


class NodeKiller(Killer):
    """Ends a node of the cluster, and adds another one."""

    def __init__(self, seed, cluster, nodes, options):
        super().__init__(seed)
        self.cluster, self.nodes, self.options = cluster, nodes, options

    def on_update(self, run, metrics):
        if run.updates == self.at:
            self.killed += 1
            node = self.nodes.pop(self.random.randrange(len(self.nodes)))
            self.nodes.append(self.cluster.add_node(**self.options))
            threading.Timer(
                self.random.random() * 0.03, self.cluster.remove_node, (node,), {"allow_graceful": False}
            ).start()


def trained(folder, callbacks=(), workers=None):
    run = rlgrad.train(
        PPO(num_steps=32, num_envs=4, update=Ascent(num_epochs=2, num_minibatches=2)),
        "CartPole-v1",
        total_timesteps=1280,
        seed=3,
        hidden_sizes=(16,),
        evaluation_episodes=0,
        logs=(),
        verbose=False,
        vectorization_mode="sync",
        workers=workers,
        worker_timeout=300.0,  # on a busy machine
        run_dir=folder,
        callbacks=list(callbacks),
    )
    content = hashlib.sha256()
    for variable in (*run.policy.variables, *run.learner.state.slots):
        content.update(variable.numpy().tobytes())
    for name, column in sorted(run.history.items()):
        if not name.startswith("time/s"):
            content.update(f"{name} {column}".encode())
    run.close()
    return content.hexdigest()[:16]


def kills(count):
    import ray
    from ray.cluster_utils import Cluster

    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 2, "health_check_initial_delay_ms": 500}
    node = {"num_cpus": 2, "object_store_memory": 100 * 10**6}
    head = {**node, "include_dashboard": False, "_system_config": soon}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    others = [cluster.add_node(**node) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        alone = trained(Path(folder) / "alone")
        digests = []
        for seed in range(count):
            of_node = seed % 5 == 4
            killer = NodeKiller(seed, cluster, others, node) if of_node else Killer(seed)
            begun = time.perf_counter()
            digests.append(trained(Path(folder) / str(seed), [killer], workers=2 if seed % 2 else 4))
            what = "node" if of_node else "worker"
            took = time.perf_counter() - begun
            print(f"{seed + 1:2d}: {killer.killed} {what} killed, {digests[-1]}, {took:.1f} s", flush=True)
    ray.shutdown()
    cluster.shutdown()
    print(f"without workers {alone}; {digests.count(alone)} of {count} runs with a kill are equal to it")
    return digests.count(alone) == count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "paper", "kills"])
    parser.add_argument("argument", nargs="?")
    chosen = parser.parse_args()
    if chosen.what == "measure":
        print(json.dumps(measure(), indent=1))
    elif chosen.what == "paper":
        paper(json.loads(Path(chosen.argument).read_text()))
    else:
        sys.exit(not kills(int(chosen.argument or 30)))
