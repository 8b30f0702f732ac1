"""How far a piece of work walks through rlgrad's files: Python calls, counted by `sys.setprofile`.

    python benchmarks/walks.py                          # prints the table
    python benchmarks/walks.py --out walks.json         # and keeps it
    python benchmarks/walks.py --before walks.json      # beside what another version of rlgrad kept

A *call* is a Python function of rlgrad, its agents or its environments that begins, or a generator that continues. A *move* is
a call in another file than the call before it; a *return* is a move into a file that was already entered. Lower is easier to
follow. Everything is imported, and each piece of work done once with other objects, before it is counted. Only public names are
used, so that one script measures any version.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np

import rlgrad
import rlgrad.agents
import rlgrad.cli
import rlgrad.config
import rlgrad.envs
from rlgrad import gradients
from rlgrad.agents import A2C, PPO
from rlgrad.gradients import LogProb
from rlgrad.updates import Ascent

ROOMS = tuple(str(Path(module.__file__).resolve().parent) for module in (rlgrad, rlgrad.agents, rlgrad.envs))
CONFIG, RUN = rlgrad.config.Config.__init__.__code__, rlgrad.Run.__init__.__code__
LEARN = rlgrad.Learner.learn.__code__
SHORT = {"evaluation_episodes": 0, "logs": ("csv",), "verbose": False, "vectorization_mode": "sync"}


class Enough(BaseException):
    """Ends work of which only the beginning is counted."""


class Walk:
    """The file of each call, in order, and where among them a marked function began or ended.

    Args:
        marks: code objects to note.
        until: end the work where this one begins.
    """

    def __init__(self, *marks, until=None):
        self.files, self.begun, self.ended = [], [], []
        self._marks, self._until = marks, until

    def __enter__(self):
        sys.setprofile(self._note)
        return self

    def __exit__(self, kind, *_):
        sys.setprofile(None)
        return kind is Enough

    def _note(self, frame, event, _):
        code = frame.f_code
        if event == "call":
            if code is self._until:
                raise Enough
            if code in self._marks:
                self.begun.append((code, len(self.files)))
            if code.co_filename.startswith(ROOMS):
                self.files.append(code.co_filename)
        elif event == "return" and code in self._marks:
            self.ended.append((code, len(self.files)))


def counted(files):
    """Files entered, moves, returns and calls."""
    path = [file for before, file in zip([None, *files], files, strict=False) if file != before]
    entered = len(set(path))
    return {"files": entered, "moves": len(path) - 1, "returns": len(path) - entered, "calls": len(files)}


def walked(*works: Callable[[], object]):
    """The counts of each work, done in order."""
    for work in works:
        with Walk() as walk:
            work()
        yield counted(walk.files)


def gradient_walks():
    """Questions to the gradient module, first and again."""

    def ask(count):
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(12, "relu"), keras.layers.Dense(3)])
        x, output = np.ones((4, 8), np.float32), LogProb(np.zeros(4, int))
        kernel = model.layers[0].kernel
        linear = {}
        works = {
            "gradient(model, x), first": lambda: gradients.gradient(model, x),
            "gradient(model, x), again": lambda: gradients.gradient(model, x),
            "gradient(…, weights=[…]), first": lambda: gradients.gradient(model, x, weights=[kernel]),
            "gradient(…, weights=[…]), again": lambda: gradients.gradient(model, x, weights=[kernel]),
            "per_sample_norm(LogProb), first": lambda: gradients.per_sample_norm(model, x, output=output),
            "per_sample_norm(LogProb), again": lambda: gradients.per_sample_norm(model, x, output=output),
            "linearize": lambda: linear.update(made=gradients.linearize(model, x, output=output)),
            "….norm()": lambda: linear["made"].norm(),  # noqa: PLW0108
        }
        return dict(zip(works, count(*works.values()), strict=True))

    ask(lambda *works: [work() for work in works])
    return ask(walked)


def from_words():
    """From the command line's words to a config."""

    def walk():
        with Walk(CONFIG, until=RUN) as walk, suppress(SystemExit):
            rlgrad.cli.main(["train", "cartpole", "--run-dir", f"{tempfile.mkdtemp()}/run"])
        return walk

    walk()
    again = walk()
    return {"command line → Config": counted(again.files[: again.ended[-1][1]])}


class Stop(rlgrad.Callback):
    """End training before its first update."""

    def on_start(self, run):
        """Stop."""
        raise Enough


def to_a_run():
    """From a config to a run that has not been trained."""

    def walk():
        with Walk(CONFIG, RUN) as walk:
            folder = f"{tempfile.mkdtemp()}/run"
            rlgrad.train(A2C(), "CartPole-v1", total_timesteps=1000, callbacks=[Stop()], run_dir=folder, **SHORT)
        return walk

    walk()
    again = walk()
    made = next(at for code, at in again.ended if code is RUN)
    asked = max(at for code, at in again.ended if code is CONFIG and at < made)
    return {"Config → Run": counted(again.files[asked:made])}


def rollouts_and_updates():
    """One rollout, and one update from it, by hand."""

    def do(count):
        collector = rlgrad.GymCollector("CartPole-v1", num_envs=8, num_steps=16, seed=0, vectorization_mode="sync")
        policy = rlgrad.make_policy(collector.observation_space, collector.action_space, value=True, seed=0)
        learner = rlgrad.Learner(PPO(update=Ascent(num_epochs=2, num_minibatches=2)), policy, num_envs=8)
        rollouts = []
        works = {
            "collect 8 × 16, first": lambda: rollouts.append(collector.collect(policy)),
            "collect 8 × 16, again": lambda: rollouts.append(collector.collect(policy)),
            "learn, first": lambda: learner.learn(rollouts[-1], 0.0, np.array([0, 1], np.int32)),
            "learn, again": lambda: learner.learn(rollouts[-1], 0.0, np.array([0, 1], np.int32)),
        }
        made = dict(zip(works, count(*works.values()), strict=True))
        collector.close()
        return made

    do(lambda *works: [work() for work in works])
    return do(walked)


def steady_updates():
    """One update of a run with its rollout: without a row (the lower quartile of calls), and with one (the upper)."""
    with Walk(LEARN) as walk:
        agent, folder = A2C(num_envs=8, num_steps=16), f"{tempfile.mkdtemp()}/run"
        rlgrad.train(agent, "CartPole-v1", total_timesteps=128 * 500, run_dir=folder, **SHORT)
    begun = [at for _, at in walk.begun][10:]  # the first ones trace and compile
    updates = sorted((walk.files[a:b] for a, b in pairwise(begun)), key=len)
    quarter = len(updates) // 4
    return {"update of a run": counted(updates[quarter]), "update of a run, and a row": counted(updates[3 * quarter])}


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the counts to this file")
    parser.add_argument("--before", type=Path, help="print the counts of this file beside")
    options = parser.parse_args()
    walks = {}
    for part in (gradient_walks, from_words, to_a_run, rollouts_and_updates, steady_updates):
        walks |= part()
    if options.out is not None:
        options.out.write_text(json.dumps(walks, indent=1) + "\n")
    before = json.loads(options.before.read_text()) if options.before is not None else {}
    print("| walk | files | moves | returns | calls |\n|---|---|---|---|---|")
    for name, counts in walks.items():
        cells = [f"{before[name][key]} → {count}" if name in before else f"{count}" for key, count in counts.items()]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
