"""When to compile, and which weights to hold side by side: each choice against the others, by the width of the network.

    python benchmarks/sizes.py                       # writes benchmarks/results/sizes.jsonl and sizes.md
    python benchmarks/sizes.py --widths 64,256       # a part

Works, each with two hidden layers: an update of DQN from a replay (batch 64, 64 a call) and one of PPO (minibatches of 64 rows,
32 a call), both on CartPole's spaces, and one of SAC with two critics (batch 256, 16 a call) on Pendulum's. Weights are held in
one vector, or each apart, or in blocks: small ones in a vector, those of more than 8,192 numbers apart. The rule is blocks, and
XLA unless a weight has 262,144 numbers. Each of the six choices runs in turn, several times; the numbers are the smallest CPU
time of an update, everything included. The rule is right where what it chose takes at most 1.1 times the best.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import rlgrad
from rlgrad.agents import DQN, PPO, SAC
from rlgrad.policies.actions import ActorCritic
from rlgrad.updates import weight_blocks

RESULTS = Path(__file__).parent / "results"
WIDTHS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 1024)
ROUNDS = 6
LAYOUTS = {"one vector": math.inf, "apart": -1, "blocks": weight_blocks.LARGEST}
CHOICES = {(xla, layout): f"{'XLA' if xla else 'graph'}, {layout}" for xla in (True, False) for layout in LAYOUTS}


def agents():
    """Each work: its agent, its environment, and how many updates a call makes."""
    replay = rlgrad.Replay(capacity=20_000, batch_size=64, warmup=0, updates_per_step=1.0)
    dqn = DQN(num_steps=64, replay=replay, target=rlgrad.Target(rate=1.0, every=100))
    ppo = PPO(num_envs=8, num_steps=64, update=rlgrad.Ascent(learning_rate=1e-3, num_epochs=4, num_minibatches=8))
    of_actions = rlgrad.Replay(capacity=20_000, batch_size=256, warmup=0, updates_per_step=1.0)
    sac = SAC(num_steps=16, replay=of_actions)
    return {"dqn": (dqn, "CartPole-v1", 64), "ppo": (ppo, "CartPole-v1", 32), "sac": (sac, "Pendulum-v1", 16)}


def networks(agent):
    """What the agent asks the networks to say, as `make_policy` takes it."""
    if isinstance(agent, SAC):
        kind = ActorCritic(agent.num_critics, "reparameterized", 0, agent.critic, agent.training_mode)
        return {"actor_critic": kind, "scalars": dict(agent.scalars)}
    return {"action_values": agent.action_values if isinstance(agent, DQN) else None}


def learner_of(agent, env, width, xla, layout):
    """A learner with one of the choices made for it, and a rollout; with `None` the rule decides what to compile."""
    weight_blocks.LARGEST = LAYOUTS[layout]
    sizes = {"num_envs": agent.num_envs, "num_steps": agent.num_steps}
    with rlgrad.GymCollector(env, **sizes, seed=0) as collector:
        spaces = collector.observation_space, collector.action_space
        policy = rlgrad.make_policy(*spaces, **networks(agent), hidden_sizes=(width, width), activation="relu", seed=0)
        learner = rlgrad.Learner(agent, policy, num_envs=agent.num_envs, xla=xla)
        return learner, collector.collect(learner.acting(0.5, 10**6))


def measure(agent, env, updates, width):
    """CPU seconds of an update by choice, and what the rule chooses."""
    made = {choice: learner_of(agent, env, width, *choice) for choice in CHOICES}
    seconds = dict.fromkeys(CHOICES, float("inf"))
    for i in range(ROUNDS + 1):
        for choice, (learner, rollout) in made.items():
            begun = time.process_time()
            learner.learn(rollout, 0.5, np.array([i, 1], np.int32))
            if i:  # the first call compiles
                seconds[choice] = min(seconds[choice], (time.process_time() - begun) / updates)
    ruled, _ = learner_of(agent, env, width, None, "blocks")
    return seconds, (ruled.xla, "blocks")


def table(rows):
    """The results in Markdown."""
    lines = ["# Sizes", "", __doc__.split("\n\n")[2].replace("\n", " "), ""]
    lines += [
        "| work, width | " + " | ".join(f"{name}, µs" for name in CHOICES.values()) + " | the rule | of the best |"
    ]
    lines += ["|---" * (len(CHOICES) + 3) + "|"]
    for row in rows:
        numbers = " | ".join(f"{row['microseconds'][name]:.0f}" for name in CHOICES.values())
        best = min(row["microseconds"].values())
        lines.append(
            f"| {row['work']}, {row['width']} | {numbers} | {row['rule']} | {row['microseconds'][row['rule']] / best:.2f} |"
        )
    return "\n".join([*lines, "", "    python benchmarks/sizes.py", ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default=",".join(map(str, WIDTHS)))
    options = parser.parse_args()
    rows = []
    for work, (agent, env, updates) in agents().items():
        for width in map(int, options.widths.split(",")):
            seconds, rule = measure(agent, env, updates, width)
            numbers = {CHOICES[choice]: 1e6 * s for choice, s in seconds.items()}
            rows.append({"work": work, "width": width, "microseconds": numbers, "rule": CHOICES[rule]})
            print(json.dumps(rows[-1]), flush=True)
    (RESULTS / "sizes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (RESULTS / "sizes.md").write_text(table(rows))
