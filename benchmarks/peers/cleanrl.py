"""CleanRL's PQN under the metric of benchmarks/learning.py: one line of JSON a seed.

    pip install torch gymnasium tyro tensorboard
    python benchmarks/peers/cleanrl.py CHECKOUT CartPole-v1 --steps 500000 --seeds 0-9 --out benchmarks/results/cleanrl.jsonl

Runs the authors' cleanrl/pqn.py, unchanged and with its own settings, from a checkout of their repository. The script was
written for Gymnasium 0.29, which reset environments in the step that ended them; what stands in for SyncVectorEnv does so too
(left to a later version's default, the script would learn from the steps that only reset). It also notes the returns of
episodes, which later versions put where the script does not look.

Metric: last weights; mean raw return of the last 100 training episodes; greedy and sampled evaluation over 100 fresh episodes,
where sampled means with the exploration of the end of training.
"""

import argparse
import json
import os
import runpy
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Envs(SyncVectorEnv):
    """Environments that are reset in the step that ends them, and note when they were made and what episodes returned."""

    begun: ClassVar[float] = 0.0
    returns: ClassVar[list[float]] = []

    def __init__(self, functions):
        super().__init__(functions, autoreset_mode=AutoresetMode.SAME_STEP)
        Envs.begun = time.perf_counter()
        Envs.returns = []

    def step(self, actions):
        *step, info = super().step(actions)
        last = info.pop("final_info", None)
        if last is not None:
            self.returns.extend(last["episode"]["r"][last["_episode"]].tolist())
        return *step, info


def evaluate(network, env_id, seed, random_share, episodes=100):
    """Mean raw return over fresh episodes, with this share of random actions."""
    env, returns, generator = gymnasium.make(env_id), [], np.random.default_rng(seed)
    for episode in range(episodes):
        observation, _ = env.reset(seed=1_000_000 + 1000 * seed + episode)
        total, over = 0.0, False
        while not over:
            with torch.no_grad():
                action = int(network(torch.Tensor(observation[None])).argmax())
            if generator.random() < random_share:
                action = int(generator.integers(env.action_space.n))
            observation, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return float(np.mean(returns))


def run(script, env_id, steps, seed):
    """Trains once, and measures."""
    gymnasium.vector.SyncVectorEnv = Envs
    options = {"--env-id": env_id, "--seed": seed, "--total-timesteps": steps}
    sys.argv = [str(script), "--no-cuda", *(str(part) for option in options.items() for part in option)]
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        os.chdir(folder)  # it writes its runs where it stands
        printed, sys.stdout = sys.stdout, nowhere
        try:
            after = runpy.run_path(str(script), run_name="__main__")
        finally:
            sys.stdout = printed
            os.chdir(here)
    seconds = time.perf_counter() - Envs.begun
    return {
        "system": "cleanrl",
        "agent": "pqn",
        "env": env_id,
        "settings": "script",
        "seed": seed,
        "timesteps": steps,
        "train_return": float(np.mean(Envs.returns[-100:])),
        "greedy": evaluate(after["q_network"], env_id, seed, 0.0),
        "sampled": evaluate(after["q_network"], env_id, seed, after["args"].end_e),
        "training_seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder of CleanRL's repository")
    parser.add_argument("env")
    parser.add_argument("--steps", type=int, default=500_000, help="environment steps")
    parser.add_argument("--seeds", default="0-9", help="first-last, both included")
    parser.add_argument("--out", help="file that the lines are added to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    first, _, last = options.seeds.partition("-")
    for seed in range(int(first), int(last or first) + 1):
        script = options.checkout.resolve() / "cleanrl" / "pqn.py"
        line = json.dumps(run(script, options.env, options.steps, seed))
        print(line, flush=True)
        if options.out:
            with open(options.out, "a") as file:
                file.write(line + "\n")
