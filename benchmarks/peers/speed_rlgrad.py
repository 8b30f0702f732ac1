"""rlgrad's side of benchmarks/speed.py."""

import statistics
import tempfile
import time
import warnings
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from speed_common import Solved, answer, asked, rates

import rlgrad
from rlgrad.agents import A2C, DQN, PPO, SAC, StreamAC
from rlgrad.callbacks import Callback

# What ALE's own vector environment does by itself.
ATARI = {
    "env_kwargs": {"frameskip": 1},  # the wrapper repeats actions itself
    "wrappers": (
        "AtariPreprocessing",
        "FrameStackObservation(stack_size=4)",
        "ClipReward(min_reward=-1.0, max_reward=1.0)",
    ),
}

# The networks of Stream AC(λ).
STREAM = {"activation": "leaky_relu(0.01)", "layer_norm": True, "fixed_layer_norm": True, "sparsity": 0.9}


def agent_of(work):
    """The agent that the row describes."""
    if work["agent"] == "stream-ac":
        policy, value = (rlgrad.Traces(trace_decay=work["trace_decay"], kappa=kappa) for kappa in work["kappa"])
        update = rlgrad.PerHead(policy=policy, value=value)
        return StreamAC(gamma=work["gamma"], entropy_coefficient=work["entropy"], update=update)
    if "updates" in work:
        return with_replay(work)
    linear = work.get("linear", ())
    update = {
        "learning_rate": work["learning_rate"],
        "learning_rate_schedule": "linear" if "learning_rate" in linear else "constant",
        "max_grad_norm": 0.5,
        "num_epochs": work.get("epochs", 1),
        "num_minibatches": work.get("minibatches", 1),
    }
    options = {name: work[name] for name in ("num_envs", "num_steps", "gamma", "gae_lambda")}
    options["entropy_coefficient"] = work.get("entropy", 0.0)
    options["value_coefficient"] = work.get("value_coefficient", 1.0)
    if work["agent"] == "a2c":
        optimizer = work.get("optimizer", "rmsprop")
        return A2C(update=rlgrad.Ascent(optimizer=optimizer, **update), **options)
    options["clip_schedule"] = "linear" if "clip" in linear else "constant"
    options["value_clip"] = work.get("value_clip", "none")
    return PPO(update=rlgrad.Ascent(**update), **options)


def with_replay(work):
    """The agent of a row with a replay."""
    rate, every = work["target"]
    options = {
        "num_steps": work["num_steps"],
        "gamma": work["gamma"],
        "replay": rlgrad.Replay(
            capacity=work["capacity"],
            batch_size=work["batch"],
            warmup=work["warmup"],
            updates_per_step=work["updates"] / work["num_steps"],
        ),
        "target": rlgrad.Target(rate=rate, every=every),
        "update": rlgrad.Ascent(learning_rate=work["learning_rate"]),
    }
    if work["agent"] == "sac":
        return SAC(**options)
    start, end, over = work["random"]
    random = rlgrad.Linear(start=start, end=end, over=over)
    return DQN(double=False, exploration=rlgrad.Exploration(random=random), **options)


def environment(work):
    """Return the environment as `rlgrad.train` takes it."""
    if work.get("envpool"):
        import envpool

        return envpool.make(work["env"], env_type="gymnasium", num_envs=work["num_envs"], seed=work["seed"])
    return f"ale_py:{work['env']}" if work.get("atari") else work["env"]


def started(work, steps, callbacks=()):
    """A run of so many steps."""
    chosen = {name: work[name] for name in ("vectorization_mode", "shared_trunk") if name in work}
    if work["agent"] == "stream-ac":
        chosen |= STREAM | {"hidden_sizes": work["hidden"]}
        if work["continuous"]:  # time is observed, and the network says σ, which begins at softplus(0)
            chosen |= {"wrappers": ("TimeAwareObservation",), "initial_log_std": -0.37, "state_dependent_std": True}
    elif "hidden" in work:
        chosen |= {"hidden_sizes": work["hidden"], "activation": "relu"}
    return rlgrad.train(
        agent_of(work),
        environment(work),
        total_timesteps=steps,
        seed=work["seed"],
        run_dir=Path(tempfile.mkdtemp()) / "run",
        callbacks=callbacks,
        evaluation_episodes=0,
        verbose=False,
        **chosen,
        **(ATARI if work.get("atari") and work["vectorization_mode"] != "vector_entry_point" else {}),
    )


def training(work):
    """Two trainings, one after the other, and the share of the environment's own speed that collecting reaches."""
    run = started(work, work["steps"])
    first, taken = run.seconds, run.timesteps
    run.train(2 * work["steps"])
    # A vector entry point's steps that only reset do not count, so the two may differ by a few.
    numbers = rates((taken, first), (run.timesteps - taken, run.seconds - first))
    return numbers | (collecting(work) if work.get("collecting") else {})


def collecting(work):
    """Steps per second of rollouts, and of the environments alone under random actions, in turns.

    The policy has made two updates, and is still near random, so that episodes are about as long on both sides.
    """
    size = work["num_envs"] * work["num_steps"]
    run, alone = started(work, 2 * size), Alone(work)
    ours, theirs = [], []
    for _ in range(5):
        begun = time.perf_counter()
        run.collector.collect(run.policy)
        ours.append(size / (time.perf_counter() - begun))
        theirs.append(alone.rate(work["num_steps"]))
    own, collected = statistics.median(theirs), statistics.median(ours)
    return {"environment": own, "collecting": collected, "share": collected / own}


class Alone:
    """The environments of a row, vectorized as rlgrad does it, under random actions."""

    def __init__(self, work):
        kind = {"sync": SyncVectorEnv, "async": AsyncVectorEnv}[work["vectorization_mode"]]
        functions = [lambda: gymnasium.make(work["env"])] * work["num_envs"]
        self._envs = kind(functions, copy=False, autoreset_mode=AutoresetMode.DISABLED)
        self._envs.reset(seed=0)
        self._envs.action_space.seed(0)
        self._actions = [self._envs.action_space.sample() for _ in range(256)]

    def rate(self, length):
        """Environment steps per second over so many steps of all of them."""
        begun = time.perf_counter()
        for i in range(length):
            _, _, terminated, truncated, _ = self._envs.step(self._actions[i % 256])
            over = terminated | truncated
            if np.any(over):
                self._envs.reset(options={"reset_mask": over})
        return length * self._envs.num_envs / (time.perf_counter() - begun)


class Watch(Callback):
    """Stops the run once it is solved."""

    def __init__(self, begun_at):
        self._begun_at = begun_at

    def on_start(self, run):
        self.solved = Solved(self._begun_at, lambda episodes: run.evaluate(episodes).mean_return)
        self.solved.start()

    def on_update(self, run, metrics):
        run.stop = self.solved.check(run.timesteps)


def solving(work):
    """Trains until the greedy policy reaches the threshold."""
    watch = Watch(work["begun_at"])
    started(work, work["steps"], [watch])
    if watch.solved.numbers is None:
        raise RuntimeError(f"Seed {work['seed']} was not solved in {work['steps']:,} steps.")
    return watch.solved.numbers


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    row = asked()
    answer(
        solving(row) if row.get("solve") else training(row),
        *("rlgrad", "tensorflow-cpu", "keras", "numpy", "gymnasium"),
    )
