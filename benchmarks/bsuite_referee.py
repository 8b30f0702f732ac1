"""bsuite grades rlgrad's and Stable-Baselines3's A2C, PPO and DQN: its 23 experiments, with a shortened budget.

Two environments run the agents, and a third one scores them, since bsuite 0.3.6 counts on an old pandas there:

    pip install rlgrad bsuite==0.3.6
    python benchmarks/bsuite_referee.py run rlgrad ppo          # adds a line an id to results/bsuite.jsonl
    pip install stable-baselines3 bsuite==0.3.6
    python benchmarks/bsuite_referee.py run sb3 ppo
    pip install bsuite==0.3.6 'pandas<2' 'numpy<2' 'plotnine<0.13' 'matplotlib<3.9'
    python benchmarks/bsuite_referee.py score                   # writes results/bsuite.md and results/bsuite.png

`PLAN` says which ids of each experiment are played, and for how many episodes. Both libraries play one environment with the
same settings, those of `run_rlgrad` and `run_sb3`; what they do not name is the library's default. An id that is in the results
already is left out, so a run that was stopped goes on.
"""

import argparse
import contextlib
import inspect
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
LINES, PAGE, PICTURE = RESULTS / "bsuite.jsonl", RESULTS / "bsuite.md", RESULTS / "bsuite.png"
AGENTS = ("a2c", "ppo", "dqn")

# Episodes, the most steps of one, and the ids. Noise and scale take the least, the middle and the largest of their five values,
# or the ends alone where episodes are long; the others an easy one first.
PLAN = {
    "bandit": (1000, 1, (0, 1, 2)),
    "bandit_noise": (1000, 1, (0, 8, 16)),
    "bandit_scale": (1000, 1, (0, 8, 16)),
    "mnist": (1000, 1, (0,)),
    "mnist_noise": (1000, 1, (0, 8, 16)),
    "mnist_scale": (1000, 1, (0, 8, 16)),
    "catch": (300, 9, (0,)),
    "catch_noise": (300, 9, (0, 16)),
    "catch_scale": (300, 9, (0, 16)),
    "mountain_car": (5, 1000, (0,)),
    "mountain_car_noise": (5, 1000, (0, 16)),
    "mountain_car_scale": (5, 1000, (0, 16)),
    "cartpole": (50, 1000, (0,)),
    "cartpole_noise": (50, 1000, (0, 16)),
    "cartpole_scale": (50, 1000, (0, 16)),
    "cartpole_swingup": (10, 1000, (0, 10)),
    "deep_sea": (1000, 10, (0,)),
    "deep_sea_stochastic": (1000, 10, (0,)),
    "discounting_chain": (100, 100, (0, 2, 4)),
    "memory_len": (1000, 7, (0, 2, 5)),
    "memory_size": (1000, 3, (0, 2, 5)),
    "umbrella_distract": (200, 20, (0, 9)),
    "umbrella_length": (1000, 10, (0, 2, 9)),
}
KEPT = {"episode", "total_return", "total_regret", "raw_return", "best_episode", "total_bad_episodes", "total_perfect"}
KEPT |= {"denoised_return"}


def made(bsuite_id: str, seed: int):
    """Return bsuite's environment as one of Gymnasium, seeded where bsuite leaves that to chance; its log is `.rows`."""
    import gymnasium
    import numpy as np
    from bsuite import bsuite, sweep
    from bsuite.utils.wrappers import Logging

    class Referee(gymnasium.Env):
        def __init__(self):
            name, settings = bsuite_id.partition("/")[0], dict(sweep.SETTINGS[bsuite_id])
            if "seed" in inspect.signature(bsuite.EXPERIMENT_NAME_TO_ENVIRONMENT[name]).parameters:
                settings["seed"] = seed
            self.rows, self.episodes = [], 0
            self.played = Logging(bsuite.load(name, settings), self)
            shape = (int(np.prod(self.played.observation_spec().shape)),)
            self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
            self.action_space = gymnasium.spaces.Discrete(self.played.action_spec().num_values)

        def write(self, row):  # bsuite's logger
            self.rows.append({key: float(row[key]) for key in row if key in KEPT})

        def flush(self):
            """Nothing is kept back."""

        def _seen(self, timestep):
            return np.asarray(timestep.observation, np.float32).ravel()

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self._seen(self.played.reset()), {}

        def step(self, action):
            timestep = self.played.step(int(action))
            self.episodes += timestep.last()
            ended = timestep.last() and timestep.discount == 0.0
            return self._seen(timestep), float(timestep.reward), ended, timestep.last() and not ended, {}

    return Referee()


def run_rlgrad(agent: str, env, episodes: int, steps: int, seed: int) -> None:
    import rlgrad
    from rlgrad.agents import A2C, DQN, PPO
    from rlgrad.replay import Exploration, Linear, Replay, Target
    from rlgrad.updates import Ascent

    class Enough(rlgrad.Callback):
        def on_update(self, run, metrics):
            run.stop = run.stop or env.episodes >= episodes

    agents = {
        "a2c": A2C(num_envs=1, num_steps=5),
        "ppo": PPO(num_envs=1, num_steps=64, update=Ascent(
            learning_rate=3e-4, max_grad_norm=0.5, num_epochs=10, num_minibatches=4
        )),
        "dqn": DQN(
            num_envs=1,
            num_steps=4,
            replay=Replay(capacity=10_000, batch_size=32, warmup=100, updates_per_step=0.25),
            target=Target(rate=1.0, every=25),
            exploration=Exploration(random=Linear(start=1.0, end=0.05, over=0.1)),
            update=Ascent(learning_rate=1e-3, max_grad_norm=10.0),
        ),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        options = {"evaluation_episodes": 0, "logs": ("csv",), "verbose": False, "run_dir": Path(place) / "run"}
        if agent == "dqn":
            options["activation"] = "relu"
        rlgrad.train(agents[agent], env, total_timesteps=steps, seed=seed, callbacks=[Enough()], **options)


def run_sb3(agent: str, env, episodes: int, steps: int, seed: int) -> None:
    import torch
    from stable_baselines3 import A2C, DQN, PPO
    from stable_baselines3.common.callbacks import BaseCallback

    class Enough(BaseCallback):
        def _on_step(self):
            return env.episodes < episodes

    torch.set_num_threads(1)
    of_dqn = {"learning_rate": 1e-3, "buffer_size": 10_000, "learning_starts": 100, "batch_size": 32, "train_freq": 4}
    of_dqn |= {"target_update_interval": 100, "exploration_fraction": 0.1, "exploration_final_eps": 0.05}
    model = {
        "a2c": lambda: A2C("MlpPolicy", env, n_steps=5, seed=seed, device="cpu"),
        "ppo": lambda: PPO("MlpPolicy", env, n_steps=64, batch_size=16, n_epochs=10, seed=seed, device="cpu"),
        "dqn": lambda: DQN("MlpPolicy", env, seed=seed, device="cpu", **of_dqn),
    }[agent]()
    model.learn(steps, callback=Enough())


def run(system: str, agent: str, experiments: list[str]) -> None:
    lines = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []
    there = {(line["system"], line["agent"], line["bsuite_id"]) for line in lines}
    for name in experiments or PLAN:
        episodes, longest, indices = PLAN[name]
        for index in indices:
            bsuite_id = f"{name}/{index}"
            if (system, agent, bsuite_id) in there:
                continue
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                env = made(bsuite_id, seed=index)
                begun, cpu = time.perf_counter(), time.process_time()
                most = -(-episodes * longest // 64) * 64  # whole rollouts
                {"rlgrad": run_rlgrad, "sb3": run_sb3}[system](agent, env, episodes, most, seed=index)
            rows = [row for row in env.rows if row["episode"] <= episodes]
            assert env.episodes >= episodes, f"{bsuite_id} ended after {env.episodes} episodes."
            line = {"system": system, "agent": agent, "bsuite_id": bsuite_id, "episodes": episodes}
            line |= {"seconds": round(time.perf_counter() - begun, 1), "cpu": round(time.process_time() - cpu, 1)}
            line["rows"] = {key: [round(row[key], 4) for row in rows] for key in rows[0]}
            with LINES.open("a") as file:
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
            print({key: value for key, value in line.items() if key != "rows"}, flush=True)


def is_planned(bsuite_id: str) -> bool:
    name, _, index = bsuite_id.partition("/")
    return int(index) in PLAN[name][2]


def tables() -> Iterator[tuple[str, str, object]]:
    """Yield system, agent and bsuite's table of results, with the settings of each id."""
    import pandas as pd
    from bsuite.logging import logging_utils

    lines = [json.loads(line) for line in LINES.read_text().splitlines()]
    for agent in AGENTS:
        for system in ("rlgrad", "sb3"):
            parts = [
                pd.DataFrame(line["rows"]).assign(bsuite_id=line["bsuite_id"])
                for line in lines
                if (line["system"], line["agent"]) == (system, agent) and is_planned(line["bsuite_id"])
            ]
            if parts:
                yield system, agent, logging_utils.join_metadata(pd.concat(parts, sort=False))


def score() -> None:
    """Grade by bsuite's functions. One of MNIST's asks for the last tenth of all episodes: here of those that were played."""
    import matplotlib

    matplotlib.use("Agg")
    import pandas as pd
    from bsuite.experiments import summary_analysis
    from bsuite.experiments.mnist import analysis as of_mnist

    of_mnist.NUM_EPISODES = PLAN["mnist"][0]
    scores, tags = {}, []
    for system, agent, frame in tables():
        name = f"{system} {agent.upper()}"
        scored = summary_analysis.bsuite_score(frame)
        scores[name] = dict(zip(scored.bsuite_env, scored.score, strict=True))
        tags.append(summary_analysis.ave_score_by_tag(scored, []).assign(agent_name=name))
    names = list(scores)
    rows = [
        f"| {experiment} | {PLAN[experiment][0]:,} | {', '.join(map(str, PLAN[experiment][2]))} | "
        + " | ".join(f"{scores[name][experiment]:.2f}" if experiment in scores[name] else "–" for name in names)
        + " |"
        for experiment in PLAN
    ]
    played = [experiment for experiment in PLAN if all(experiment in of for of in scores.values())]
    means = [sum(scores[name][experiment] for experiment in played) / len(played) for name in names]
    rows.append(f"| **mean of {len(played)}** | | | " + " | ".join(f"**{mean:.2f}**" for mean in means) + " |")
    by_tag = pd.concat(tags).pivot(index="tag", columns="agent_name", values="score")[names]
    of_tags = [f"| {tag} | " + " | ".join(f"{x:.2f}" for x in by_tag.loc[tag]) + " |" for tag in sorted(by_tag.index)]
    head = "| experiment | episodes | ids | " + " | ".join(names) + " |\n|---|---|---|" + "---|" * len(names)
    tag_head = "| tag | " + " | ".join(names) + " |\n|---|" + "---|" * len(names)
    lines = [json.loads(line) for line in LINES.read_text().splitlines()]
    minutes = {f"{s}": sum(x["cpu"] for x in lines if x["system"] == s) / 60 for s in ("rlgrad", "sb3")}
    took = f"CPU minutes, those of compiling included: rlgrad {minutes['rlgrad']:.1f}, SB3 {minutes['sb3']:.1f}.\n"
    PAGE.write_text("\n".join([HEAD, head, *rows, "", TAGS, tag_head, *of_tags, "", took]))
    figure = summary_analysis.bsuite_radar_plot(pd.concat(tags), ["agent_name"])
    figure.savefig(PICTURE, dpi=60, bbox_inches="tight")


HEAD = """\
# bsuite: A2C, PPO and DQN, beside Stable-Baselines3's

[bsuite](https://github.com/google-deepmind/bsuite) 0.3.6 is a set of small experiments from outside of this project, each made
to ask one thing, with a score from 0 to 1 by its own functions. Here **the budget is shortened**: few of the ids of each
experiment, and few episodes, which the table states; bsuite's own are 17 to 23 ids and 1,000 or 10,000 episodes. So the scores
are lower than published ones, and are to be read from left to right: both libraries play the same ids for as many episodes.
One seed an id: differences below 0.1 say little. Where an id is all or nothing (deep_sea, memory, umbrella), one id is the
difference, and of CartPole half of the score is one episode above 500.

Both play one environment, since bsuite counts episodes one by one, with observations as a vector and networks of 64-64. A2C:
the defaults of both. PPO: rollouts of 64 steps, 10 epochs of 4 minibatches, learning rate 3e-4. DQN: a replay of 10,000,
batches of 32, an update every 4 steps from the 100th on, copies every 100 steps, learning rate 1e-3, random actions from 1 to
0.05 over a tenth of the most steps that the episodes may take. What is not named is each library's default: rlgrad's DQN is
double, without Huber's loss; Stable-Baselines3's is plain, with it.

How it is scored: bsuite's `summary_analysis.bsuite_score`, whose functions take the last episode that there is. Half of
MNIST's is the accuracy over the last tenth of 10,000 episodes; here over the last tenth of those that were played. The pixels
are MNIST's 10,000 test images, under the names of the training images (`/tmp/mnist`), which could not be downloaded.

    python benchmarks/bsuite_referee.py run rlgrad a2c     # and ppo, dqn; and sb3 in the place of rlgrad
    python benchmarks/bsuite_referee.py score
"""
TAGS = """\
By what bsuite says that they test, the mean of the experiments with this tag ([drawn](bsuite.png)):
"""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    runs = parts.add_parser("run")
    runs.add_argument("system", choices=["rlgrad", "sb3"])
    runs.add_argument("agent", choices=AGENTS)
    runs.add_argument("--experiments", nargs="+", choices=PLAN, default=[])
    parts.add_parser("score")
    given = parser.parse_args()
    run(given.system, given.agent, given.experiments) if given.part == "run" else score()
