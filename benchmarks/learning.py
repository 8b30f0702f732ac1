"""Learning results: configs, trained from the shell on several seeds, as tables and plots beside other libraries.

    python benchmarks/learning.py run cartpole-ppo --seeds 0-9        # adds a line a seed to benchmarks/results/learning.jsonl
    python benchmarks/learning.py tables           # writes benchmarks/results/learning.md, its plots, and configs/results.json

Every seed is `rlgrad train CONFIG --seed k` in a process of its own, and every seed is reported. Metric: the *last* weights;
training return (mean of the last 100 training episodes, sampled actions) and evaluation over 100 fresh episodes, greedy and
sampled. The tables take the peers' lines from benchmarks/results/{sb3,cleanrl}.jsonl, which benchmarks/peers/{sb3,cleanrl}.py
make under the same metric. Interquartile means and their 95 % bootstrap intervals are rliable's (Agarwal et al. 2021).
"""

import argparse
import json
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml

from rlgrad.analysis.groups import over_seeds
from rlgrad.analysis.statistics import bootstrap_interval, interquartile_mean

RESULTS = Path(__file__).parent / "results"
SHIPPED = Path(__file__).parent.parent / "configs" / "results.json"  # what `rlgrad configs` shows
OURS = RESULTS / "learning.jsonl"
SYSTEMS = {"sb3": "Stable-Baselines3", "cleanrl": "CleanRL"}  # each with its file of results
CURVE_POINTS = 50
COLUMNS = {"train_return": "training return", "greedy": "greedy", "sampled": "sampled"}
NAMES = {"reinforce": "REINFORCE", "a2c": "A2C", "ppo": "PPO", "npg": "NPG", "trpo": "TRPO"}
NAMES |= {"ddpg": "DDPG", "sac": "SAC", "td3": "TD3", "tqc": "TQC"}
NAMES |= {"dqn": "DQN", "qr-dqn": "QR-DQN", "pqn": "PQN", "c51": "C51", "redq": "REDQ", "droq": "DroQ"}
NAMES |= {"impala": "IMPALA", "discrete-sac": "Discrete-SAC", "crossq": "CrossQ"}
NAMES |= {"stream-q": "Stream-Q", "stream-ac": "Stream-AC", "stream-sarsa": "Stream-SARSA"}
OUR_NAME = {"qrdqn": "qr-dqn"}  # where a peer's differs
COLORS = {agent: f"C{i}" for i, agent in enumerate(NAMES)}
SETTINGS = {
    "zoo": "the zoo's settings",
    "zoo-without-gsde": "the zoo's settings without gSDE",
    "defaults": "default settings, normalized observations",
    "script": "its script's settings",
}
# What agents are held against, at the same budget: the best peer of these, or (none) the agent of the same name, as PQN and
# those with a replay always are.
BY_NAME = {"dqn", "qr-dqn", "pqn", "c51", "ddpg", "sac", "td3", "tqc", "redq", "droq"}
AGAINST = {
    "CartPole-v1": ("ppo",),
    "InvertedPendulum-v5": ("ppo",),
    "Acrobot-v1": ("a2c", "ppo"),
    "Pendulum-v1": ("ppo",),
    "LunarLander-v3": ("ppo",),
    "Hopper-v5": None,
    "HalfCheetah-v5": None,
    "MountainCar-v0": None,
    "Taxi-v4": (),
}

INTRODUCTION = """\
# Learning results

Each config trained from the shell, beside Stable-Baselines3 and, for PQN, CleanRL on the same environment, budget, metric and
seeds. Last weights; no seed is left out. Settings were chosen on seeds from 100 on; `cartpole`, `hopper-ppo`,
`half-cheetah-ppo`, `pendulum-ppo`, `inverted-pendulum-npg`, `inverted-pendulum-trpo` and `cartpole-dqn` were changed once
more, on those seeds, after first settings had done worse on the seeds below. `cartpole-dqn` with 3-step returns, chosen on
100 to 109, reached greedy 489.8 (worst seed 448.2, two of ten below 475); 5 steps were then chosen on 100 to 102, by the
training return. `cartpole-qr-dqn` was chosen on 100 to 106; `cartpole-pqn` was tried on 100 to 103 and left as it was.
`cartpole-c51`, `pendulum-ddpg` and `pendulum-droq` were each tried on seed 100 alone, and the budget of the last cut to what
it needed there; `pendulum-redq` is trained as first written. On which seeds `taxi` and `acrobot-pqn` were chosen was not
recorded.

*Training return*: mean of the last 100 training episodes. *Greedy*, *sampled*: 100 fresh episodes each. Raw returns, also
where a peer trains on normalized rewards. The policies of our DQN, QR-DQN, PQN and TD3 have no randomness left, so sampled
equals greedy; the peers' sampled ones of DQN, QR-DQN and PQN explore as at the end of training. *Matches*: our interquartile
mean is not below the 95 % interval of the peer: of the best one, where the environment has several; of the agent of the same
name on Hopper and HalfCheetah, and for PQN and all with a replay everywhere. Taxi has none, since Stable-Baselines3 itself
knows no action masks.

The seconds are those of a machine with two cores that other work was using at the same time, and some runs were paused: they
say nothing about speed, which [speed.md](speed.md) measures. `python benchmarks/learning.py tables` writes this page from
[learning.jsonl](learning.jsonl), [sb3.jsonl](sb3.jsonl) and [cleanrl.jsonl](cleanrl.jsonl).
"""


def train(config, seed):
    """One line of results."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        begun = time.perf_counter()
        command = ["rlgrad", "train", config, "--seed", str(seed), "--run-dir", str(run)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begun
        settings = yaml.safe_load((run / "config.yaml").read_text())
        evaluation = json.loads((run / "evaluation.json").read_text())
        header, *rows = [line.split(",") for line in (run / "metrics.csv").read_text().split()]
    steps, returns, clock = (
        [float(row[header.index(name)] or "nan") for row in rows]
        for name in ("time/timesteps", "train/return", "time/seconds")
    )
    shown = [
        i
        for i in np.unique(np.linspace(0, len(rows) - 1, CURVE_POINTS).round().astype(int))
        if returns[i] == returns[i]
    ]
    return {
        "config": Path(config).stem,
        "agent": settings["agent"]["name"],
        "env": settings["env"],
        "seed": seed,
        "budget": settings["total_timesteps"],
        "timesteps": evaluation["timesteps"],
        "train_return": returns[-1],
        "greedy": evaluation["greedy"]["mean_return"],
        "sampled": evaluation["sampled"]["mean_return"],
        "training_seconds": round(clock[-1], 1),
        "shell_seconds": round(seconds, 1),
        "curve": {"timesteps": [int(steps[i]) for i in shown], "return": [round(returns[i], 2) for i in shown]},
    }


def run(config, seeds, out):
    """Adds a line for each seed to a file."""
    first, _, last = seeds.partition("-")
    for seed in range(int(first), int(last or first) + 1):
        line = json.dumps(train(config, seed))
        print(line.partition(', "curve"')[0], flush=True)
        with out.open("a") as file:
            file.write(line + "\n")


def read(path):
    """Lines of results; of the same seed of the same thing, the last."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    keys = ("system", "config", "agent", "env", "settings", "seed")
    return list({(*map(row.get, keys), row.get("budget", row["timesteps"])): row for row in rows}.values())


def peers_rows():
    """The lines of all peers, with our names of their agents."""
    rows = [row for system in SYSTEMS for row in read(RESULTS / f"{system}.jsonl")]
    return [row | {"agent": OUR_NAME.get(row["agent"], row["agent"])} for row in rows]


def groups(rows, *keys):
    """Rows by the values of these keys, in order of appearance; the rows of a group by seed."""
    found = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def section(env, budget, ours, peers):
    """One environment: a table of agents and peers, the seeds where they are few, the plot."""
    title = {key: f"{SYSTEMS[key[0]]} {NAMES[key[1]]}" for key in peers}
    package = f"Gymnasium {version('gymnasium')}" + (f", MuJoCo {version('mujoco')}" if env.endswith("-v5") else "")
    lines = [
        f"## {env}, {budget:,} steps",
        "",
        f"{package}. Interquartile mean [95 % interval] (worst seed).",
        "",
        "| | " + " | ".join(COLUMNS.values()) + " | seeds | median training, s | matches (training, greedy) |",
        "|---" * (len(COLUMNS) + 4) + "|",
    ]
    for (agent, config), rows in ours.items():
        verdict = ", ".join(matches(rows, rivals(agent, env, peers), key) for key in ("train_return", "greedy"))
        lines.append(table_row(f"**{NAMES[agent]}** `{config}`", rows, verdict))
    for key, rows in peers.items():
        lines.append(table_row(f"{title[key]}, {SETTINGS[key[-1]]}", rows, ""))
    few = [(config, rows) for (_, config), rows in ours.items() if len(rows) < 10]
    few += [(title[key], rows) for key, rows in peers.items() if len(rows) < 10]
    if few:
        lines += [
            "",
            "Every seed, where there are fewer than ten:",
            "",
            "| | seed | " + " | ".join(COLUMNS.values()) + " |",
        ]
        lines.append("|---" * (len(COLUMNS) + 2) + "|")
        lines += [
            f"| {name} | {row['seed']} | " + " | ".join(f"{row[key]:.1f}" for key in COLUMNS) + " |"
            for name, rows in few
            for row in rows
        ]
    lines += ["", *(f"    {command}" for command in commands(env, budget, ours, peers))]
    return [*lines, "", f"![Learning curves on {env}, {budget:,} steps]({picture(env, budget)})", ""]


def picture(env, budget):
    """Name the plot's file."""
    return f"learning-{env}-{budget}.png"


def table_row(name, rows, verdict):
    """One agent's numbers."""
    cells = []
    for key in COLUMNS:
        values = [row[key] for row in rows]
        low, high = bootstrap_interval(values)
        cells.append(f"{interquartile_mean(values):.1f} [{low:.1f}, {high:.1f}] ({min(values):.1f})")
    seconds = np.median([row["training_seconds"] for row in rows])
    return f"| {name} | " + " | ".join(cells) + f" | {len(rows)} | {seconds:.0f} | {verdict} |"


def rivals(agent, env, peers):
    """The peers' rows that an agent is held against."""
    against = (agent,) if agent in BY_NAME or AGAINST[env] is None else AGAINST[env]
    return [rows for (_, name, _), rows in peers.items() if name in against]


def matches(rows, rivals, key):
    """Return True if our interquartile mean is not below the 95 % interval of the best peer."""
    if not rivals:
        return "no peer"
    best = max(rivals, key=lambda those: interquartile_mean([row[key] for row in those]))
    low, _ = bootstrap_interval([row[key] for row in best])
    return "yes" if interquartile_mean([row[key] for row in rows]) >= low else "**no**"


def commands(env, budget, ours, peers):
    """Name what made these rows."""
    for (_, config), rows in ours.items():
        yield f"python benchmarks/learning.py run {config} --seeds {span(rows)}"
    for (system, agent, kind), rows in peers.items():
        first = "CHECKOUT" if system == "cleanrl" else agent.replace("-", "")
        options = f"--steps {budget} --seeds {span(rows)}"
        options += f" --settings {kind}" if kind not in ("zoo", "script") else ""
        yield f"python benchmarks/peers/{system}.py {first} {env} {options} --out benchmarks/results/{system}.jsonl"


def span(rows):
    """The seeds of some rows, as --seeds takes them."""
    seeds = [row["seed"] for row in rows]
    return f"{seeds[0]}-{seeds[-1]}" if seeds == list(range(seeds[0], seeds[-1] + 1)) else ",".join(map(str, seeds))


def plot(env, budget, ours, peers, path):
    """Training return against environment steps: interquartile mean over the seeds, band from worst to best seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    first = {key[0]: key for key in reversed(ours)}
    for (agent, config), rows in ours.items():
        curves = [row["curve"] for row in rows]
        begun = max(curve["timesteps"][0] for curve in curves)
        steps = np.linspace(begun, min(curve["timesteps"][-1] for curve in curves), 4 * CURVE_POINTS)
        values = np.array([np.interp(steps, curve["timesteps"], curve["return"]) for curve in curves])
        style = {"color": COLORS[agent], "linestyle": "-" if (agent, config) == first[agent] else ":"}
        label = f"{NAMES[agent]} ({config}), {len(rows)} seed{'s' if len(rows) > 1 else ''}"
        axes.plot(steps, interquartile_mean(values.T), linewidth=1.6, label=label, **style)
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=COLORS[agent], alpha=0.12, linewidth=0)
    for (system, agent), rows in {key[:2]: rows for key, rows in peers.items()}.items():
        final = interquartile_mean([row["train_return"] for row in rows])
        label = f"{SYSTEMS[system]} {NAMES[agent]} at the end"
        axes.axhline(final, color=COLORS[agent], linestyle="--", linewidth=1, label=label)
    axes.set_xlim(0, budget)
    axes.set_title(env, fontsize=10)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("mean return of the last 100 training episodes\ninterquartile mean; band: worst to best seed")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def reached(rows):
    """Return the results of each config, by name, over the seeds that it was trained on."""
    found = {}
    for (config,), seeds in sorted(groups(rows, "config").items()):
        (env, budget), *others = groups(seeds, "env", "budget")
        if others:
            raise ValueError(f"{config} was trained on more than one environment or budget: {others}.")
        means = {key: over_seeds([row[key] for row in seeds])._asdict() for key in COLUMNS}
        rounded = {key: {name: round(value, 1) for name, value in mean.items()} for key, mean in means.items()}
        found[config] = {"env": env, "timesteps": budget, "seeds": [row["seed"] for row in seeds], **rounded}
    return found


def tables():
    """Writes learning.md, the plots, and what `rlgrad configs` shows."""
    ours, peers = groups(read(OURS), "env", "budget"), groups(peers_rows(), "env", "timesteps")
    lines = [*INTRODUCTION.splitlines(), ""]
    order = list(AGAINST)
    for env, budget in sorted(ours, key=lambda key: (order.index(key[0]), key[1])):
        mine = groups(ours[env, budget], "agent", "config")
        mine = {key: mine[key] for key in sorted(mine, key=lambda key: (list(NAMES).index(key[0]), key[1]))}
        theirs = groups(peers.get((env, budget), []), "system", "agent", "settings")
        lines += section(env, budget, mine, theirs)
        plot(env, budget, mine, theirs, RESULTS / picture(env, budget))
    (RESULTS / "learning.md").write_text("\n".join(lines))
    lines = [f" {json.dumps(name)}: {json.dumps(result)}" for name, result in reached(read(OURS)).items()]
    SHIPPED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    runs = actions.add_parser("run", help="train a config on several seeds")
    runs.add_argument("config", help="one that ships with rlgrad, or a YAML file")
    runs.add_argument("--seeds", default="0-9", help="first-last, both included")
    runs.add_argument("--out", type=Path, default=OURS, help="file that the lines are added to")
    actions.add_parser("tables", help="write the page and the plots")
    arguments = parser.parse_args()
    if arguments.action == "run":
        run(arguments.config, arguments.seeds, arguments.out)
    else:
        tables()


if __name__ == "__main__":
    main()
