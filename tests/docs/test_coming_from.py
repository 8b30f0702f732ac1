"""The page for those who know another library: every right side is run, parsed or found."""

import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import pytest

import rlgrad
from rlgrad import agents
from rlgrad.cli import COMMANDS
from rlgrad.cli.commands.train import parse_command
from rlgrad.config import Config
from rlgrad.hyperparameters import fields
from rlgrad.replay import Exploration, Linear, Replay, Target
from rlgrad.updates import Ascent, PerHead

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "coming-from.md").read_text()
LIBRARIES = ("Stable-Baselines3", "CleanRL", "TF-Agents", "keras-rl")
AGENTS = [agents.PPO(), agents.DQN(), agents.A2C()]


def right_sides(library):
    """The code in the right cells of a library's tables, in order."""
    section = re.search(rf"^## {library}\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M).group(1)
    rows = re.findall(r"^\| (?!Stable|CleanRL|TF-Agents|keras-rl \|)(.*) \| (.*) \|$", section, re.M)
    return [code for _, cell in rows for code in re.findall(r"`([^`]+)`", cell)]


ALL = {library: right_sides(library) for library in LIBRARIES}
IS_NAME = re.compile(r"^[a-z_]+(\.[a-z_]+)*(=.*)?$")
COMMAND_LINES = sorted({code for codes in ALL.values() for code in codes if code.startswith("rlgrad ")})
METRICS = sorted({code for codes in ALL.values() for code in codes if re.match(r"^(train|eval|time)/", code)})


def is_field(code):
    return bool(IS_NAME.match(code)) and not code.startswith(("run", "rollout.", "rlgrad")) and " = " not in code


def field_of_an_agent(path):
    """The first agent that has the field, or None."""
    for agent in AGENTS:
        value = agent
        for part in path.split("."):
            value = fields(value).get(part, LIBRARIES) if hasattr(type(value), "__dataclass_fields__") else LIBRARIES
        if value is not LIBRARIES:
            return agent
    return None


@pytest.mark.parametrize("library", LIBRARIES)
def test_there_are_rows_of_each_library(library):
    assert len(ALL[library]) > 12


@pytest.mark.parametrize("code", sorted({code for codes in ALL.values() for code in codes if is_field(code)}))
def test_a_setting_on_a_right_side_is_taken(code):
    """By the agent that has the field, or else by `train` and the record of a run's settings."""
    name, _, text = code.partition("=")
    agent = field_of_an_agent(name)
    if agent is None:
        assert name in inspect.signature(rlgrad.train).parameters
        if name != "model":
            value = eval(text)
            config = Config(agent=AGENTS[0], env="CartPole-v1", total_timesteps=100, **{name: value})
            assert getattr(config, name) == (tuple(value) if isinstance(value, list) else value)
        return
    if text:
        value = eval(text, {"Linear": Linear})
        for part in reversed(name.split(".")[1:]):
            value = {part: value}
        head = name.split(".")[0]
        changed = inspect.getattr_static(agent, head) if isinstance(value, dict) else None
        value = type(changed)(**{**fields(changed), **value}) if isinstance(value, dict) else value
        assert fields(type(agent)(**{head: value}))[head] == value


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_on_a_right_side_is_one(line):
    command, *words = shlex.split(line)[1:]
    if command == "train":
        config, _ = parse_command(words)
        assert config.env
    else:
        import_module(COMMANDS[command]).parser().parse_known_args(words)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_on_a_right_side_is_in_the_glossary(name):
    assert f"| `{name}` |" in (DOCS / "metrics.md").read_text()


@pytest.mark.parametrize("library", ["Stable-Baselines3", "TF-Agents", "keras-rl"])
def test_python_on_the_right_sides_runs_row_after_row(library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"rlgrad": rlgrad, "np": np, "keras": keras, "steps": 128, "obs": np.zeros(4, np.float32)}
    names |= {name: getattr(agents, name) for name in agents.__all__}
    names |= {"Ascent": Ascent, "PerHead": PerHead}
    names |= {"Replay": Replay, "Target": Target, "Exploration": Exploration, "Linear": Linear}
    names["my_keras_model"] = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    monkeypatch.setattr(rlgrad, "train", quick_train)
    ran = 0
    for code in ALL[library]:
        if not is_field(code) and not code.startswith("rlgrad ") and code not in METRICS:
            exec(code, names)
            ran += 1
    assert ran > 5


_train = rlgrad.train


def quick_train(agent, env, **options):
    """Train as the row says, with small networks and rollouts, and without what takes time at the end."""
    if agent == "ppo":
        agent = agents.PPO(num_envs=2, num_steps=8, update=rlgrad.Ascent(num_epochs=1, num_minibatches=2))
    if "model" not in options:
        options["hidden_sizes"] = (4,)
    return _train(agent, env, evaluation_episodes=0, verbose=False, logs=("csv",), **options)
