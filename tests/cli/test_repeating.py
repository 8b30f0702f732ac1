"""A run's folder says what made it, and `rlgrad train --from` repeats it."""

import json
import os
import shlex
import subprocess
import sys

import gymnasium
import keras
import numpy as np
import pytest
import yaml

import rlgrad
from rlgrad.cli import main
from rlgrad.cli.commands.train import parse_command
from rlgrad.config import Config
from rlgrad.runs import checkpoints, provenance
from rlgrad.updates import Ascent

QUICK = ["--total-timesteps", "256", "--num-envs", "2", "--num-steps", "32", "--evaluation-episodes", "0"]
SMALL = {"total_timesteps": 256, "num_envs": 2, "num_steps": 32, "evaluation_episodes": 0, "verbose": False}
AGENT = '''
import tensorflow as tf
import rlgrad

class Halved(rlgrad.Agent):
    """Half the advantage, in steps of an optimizer that was given as an object."""

    factor: float = 0.5

    def credit(self, batch, now):
        return {"log_prob": self.factor * batch.advantages, "value": batch.returns - now.value}
'''
pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def weights(folder):
    with np.load(checkpoints.numbered(folder / "checkpoints")[0], allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name.startswith(("policy/", "update/"))}


def assert_same_weights(one, other):
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_run_repeated_from_its_folder_has_the_same_weights_to_the_bit(tmp_path):
    assert main(["train", "a2c", "CartPole-v1", *QUICK, "--seed", "3", "--run-dir", "a"]) == 0
    assert main(["train", "--from", "a", "--run-dir", "b"]) == 0
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def test_a_run_is_repeated_with_another_setting(finished, tmp_path):
    assert parse_command(["--from", str(finished("reinforce", seed=3))])[0].seed == 3
    assert main(["train", "--from", "run", "--seed", "4", "--run-dir", "b"]) == 0
    ours, theirs = weights(tmp_path / "run"), weights(tmp_path / "b")
    assert any(not np.array_equal(ours[name], theirs[name]) for name in ours)
    config = yaml.safe_load((tmp_path / "b" / "config.yaml").read_text())
    assert (config["seed"], config["agent"]["num_envs"]) == (4, 4)


@pytest.mark.slow
def test_a_program_that_tensorflow_kept_on_disk_is_loaded_and_trains_to_the_same_bit(tmp_path):
    kept = tmp_path / "kept"
    environment = {**os.environ, "TF_XLA_FLAGS": f"--tf_xla_persistent_cache_directory={kept}"}

    def written(run):
        command = [sys.executable, "-m", "rlgrad.cli", "train", "ppo", "CartPole-v1", *QUICK, "--run-dir", run]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}

    first = written("a")
    assert first
    assert written("b") == first
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def test_an_optimizer_given_as_an_object_and_settings_no_option_holds_are_repeated(tmp_path):
    (tmp_path / "halved.py").write_text(AGENT)
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-2, 10, 0.9)
    agent = rlgrad.config.agent_class("halved.py:Halved")(
        update=Ascent(optimizer=keras.optimizers.Adam(schedule, beta_1=0.8), learning_rate=None), factor=0.25
    )
    run = rlgrad.train(
        agent,
        "FrozenLake-v1",
        run_dir="a",
        seed=1,
        env_kwargs={"desc": ["SFF", "FHF", "FFG"], "is_slippery": False},
        wrappers=["TimeAwareObservation"],
        hidden_sizes=(),
        **SMALL,
    )
    run.close()
    assert main(["train", "--from", "a", "--run-dir", "b"]) == 0
    assert main(["train", "a/config.yaml", "--run-dir", "c"]) == 0
    for folder in ("b", "c"):
        assert_same_weights(tmp_path / "a", tmp_path / folder)
    one, other = (yaml.safe_load((tmp_path / f / "config.yaml").read_text()) for f in ("a", "b"))
    assert one == other


def test_run_json_says_what_made_the_run(tmp_path):
    assert main(["train", "reinforce", "CartPole-v1", *QUICK, "--run-dir", "a b"]) == 0
    made = json.loads((tmp_path / "a b" / "run.json").read_text())
    assert shlex.split(made["command"]) == ["rlgrad", "train", "reinforce", "CartPole-v1", *QUICK, "--run-dir", "a b"]
    assert made["versions"].keys() >= {"python", "tensorflow", "keras", "numpy", "gymnasium", "rlgrad"}
    assert (made["seed"], made["device"], made["directory"]) == (0, "CPU:0", str(tmp_path))
    assert made["environment"] == {
        "id": "CartPole-v1",
        "entry_point": "gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv",
        "kwargs": {},
        "wrappers": [],
        "max_episode_steps": 500,
        "vectorization_mode": "vector_entry_point",
    }
    assert "git" not in made


def test_from_python_the_command_is_the_call(finished):
    assert json.loads((finished("reinforce") / "run.json").read_text())["command"] == "rlgrad.train(...)"


def test_run_json_says_what_went_on_with_the_run(finished, tmp_path):
    finished("reinforce", name="a")
    file = tmp_path / "a" / "run.json"
    made, steps = json.loads(file.read_text()), rlgrad.load("a", verbose=False).timesteps
    assert "resumed" not in made  # loading is not training
    assert main(["resume", "a", "--total-timesteps", str(2 * steps)]) == 0
    run = rlgrad.load("a", verbose=False).train(3 * steps)
    first, second = run.timesteps, run.train(4 * steps).timesteps  # of its own, not from a checkpoint
    assert second > first
    run.close()
    *before, last = json.loads(file.read_text()).pop("resumed")
    assert [resumed["timesteps"] for resumed in before] == [steps]
    assert before[0]["command"] == f"rlgrad resume a --total-timesteps {2 * steps}"
    assert (last["command"], last["timesteps"] > steps) == ("rlgrad.load(...).train(...)", True)
    assert last["versions"] == made["versions"]
    file.write_text("[not what it was")
    rlgrad.load("a", verbose=False).train(5 * steps).close()
    assert len(json.loads(file.read_text())["resumed"]) == 1


def config(env, **options):
    return Config(agent=rlgrad.agent.Agent.__new__(rlgrad.agent.Agent), env=env, total_timesteps=1, **options)


class Walk(gymnasium.Env):
    pass


@pytest.mark.parametrize(
    ("env", "entry_point", "limit"),
    [
        ("rlgrad/CartPole-v1", "rlgrad.envs.cartpole:CartPole", 500),
        ("InvertedPendulum-v5", "gymnasium.envs.mujoco.inverted_pendulum_v5:InvertedPendulumEnv", 1000),
        ("my_env.py:Walk", "my_env.py:Walk", None),
        (Walk, f"{__name__}:Walk", None),
        (Walk(), f"{__name__}:Walk", None),
    ],
)
def test_the_environment_is_described_whatever_it_was_given_as(env, entry_point, limit):
    found = provenance.environment_of(config(env, env_kwargs={"a": np.float32(1)}, wrappers=("X",)), "sync")
    assert (found["entry_point"], found["max_episode_steps"], found["wrappers"]) == (entry_point, limit, ["X"])
    json.dumps(found)


def test_the_package_of_the_environment_is_among_the_versions():
    assert "keras" in provenance.versions("gymnasium.envs:X")
    assert "PyYAML" in provenance.versions("yaml:SomeEnv")


def test_the_state_of_git_is_that_of_the_tracked_files(tmp_path):
    assert provenance.git_state(tmp_path) is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        (tmp_path / "tracked.py").write_text("1")
        if command[0] != "init":
            assert provenance.git_state(tmp_path) is None  # a repository without a commit
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    state = provenance.git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "untracked.py").write_text("1")
    assert provenance.git_state(tmp_path) == state
    (tmp_path / "tracked.py").write_text("2")
    assert provenance.git_state(tmp_path) == state | {"dirty": True}


def test_without_git_nothing_is_said_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state(tmp_path) is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--from", "nowhere"], "nowhere is no run folder"),
        (["--from"], "--from needs a value"),
        (["cartpole", "--from", "a"], "leave out 'cartpole'"),
        (["--from", "a"], "an object: repeat it with rlgrad.train in Python"),
        (["--from", "b"], "b was trained with a model given as an object"),
        (["--from", "c"], "asks to execute"),
        (["c/config.yaml"], "asks to execute"),
        (["b/config.yaml"], "b was trained with a model given as an object"),
    ],
)
def test_what_cannot_be_repeated_is_said_in_a_sentence(arguments, expected, tmp_path, capsys):
    written = {"agent": {"name": "reinforce"}, "env": "(Walk, given as an object)", "resolved": {"xla": True}}
    for name, env in (("a", written["env"]), ("b", "CartPole-v1"), ("c", f"{tmp_path}/c/theirs.py:Env")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(written | {"env": env}))
    (tmp_path / "b" / "model.json").write_text("{}")
    assert main(["train", *arguments]) == 2
    assert expected in capsys.readouterr().err
