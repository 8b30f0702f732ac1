"""The films of episodes on agents' pages: `python docs/site/films.py dqn sac` trains each agent's config and films an episode.

An agent that learns from recorded episodes has no config: `python docs/site/films.py iql=RUN` films a run that is there, as
benchmarks/from_data.py leaves them.

A film is small: the greedy policy after the config's training with seed 0, the first seconds of its first episode.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import rlgrad
from rlgrad.playback import films, viewer

PAGES = Path(__file__).resolve().parents[2] / "docs" / "agents"
CONFIGS = {
    "reinforce": "cartpole",
    "a2c": "acrobot-a2c",
    "ppo": "pendulum-ppo",
    "npg": "acrobot-npg",
    "trpo": "cartpole-trpo",
    "impala": "cartpole-impala",
    "dqn": "cartpole-dqn",
    "qr-dqn": "cartpole-qr-dqn",
    "c51": "cartpole-c51",
    "pqn": "acrobot-pqn",
    "ddpg": "pendulum-ddpg",
    "sac": "pendulum-sac",
    "td3": "pendulum-td3",
    "tqc": "pendulum-tqc",
    "redq": "pendulum-redq",
    "droq": "pendulum-droq",
    "crossq": "pendulum-crossq",
    "discrete-sac": "cartpole-discrete-sac",
    "stream-ac": "cartpole-stream-ac",
    "stream-q": "cartpole-stream-q",
    "stream-sarsa": "cartpole-stream-sarsa",
}
"""The config whose policy is filmed, by agent."""
PIXELS, STEPS, LARGEST = 320, 200, 300_000


def film(agent: str, file: Path) -> str:
    """Train an agent's config, write the film, and return the line that shows it on the agent's page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        words = ["--seed", "0", "--evaluation-episodes", "0", "--run-dir", str(path)]
        subprocess.run(["rlgrad", "train", CONFIGS[agent], *words], check=True, stdout=subprocess.DEVNULL)
        return film_run(path, file, CONFIGS[agent])


def film_run(path: Path, file: Path, trained: str) -> str:
    """Film a run's greedy policy, and return the line of the page; `trained` says what trained it."""
    run = rlgrad.load(path, verbose=False)
    env = viewer.drawn(run.config, "rgb_array")
    with films.gif(file, env.rate, PIXELS) as write:
        (episode,) = viewer.play(run.policy, env, seed=0, max_steps=STEPS, on_picture=write)
    env.close()
    name = str(run.config.env)
    run.close()
    if file.stat().st_size > LARGEST:
        raise ValueError(
            f"{file.name} has {file.stat().st_size:,} bytes, more than {LARGEST:,}: fewer STEPS or PIXELS."
        )
    seen = f"the first {episode.steps} steps" if episode.cut else f"{episode.steps} steps, return {episode.total:.1f}"
    return f"![{name} after training {trained}: {seen}](films/{file.name})"


if __name__ == "__main__":
    (PAGES / "films").mkdir(exist_ok=True)
    for name, _, there in (word.partition("=") for word in sys.argv[1:] or CONFIGS):
        target = PAGES / "films" / f"{name}.gif"
        print(film_run(Path(there), target, name) if there else film(name, target), flush=True)
