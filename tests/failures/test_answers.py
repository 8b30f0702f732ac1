"""Answers to what people meet: names of other agents, damaged folders, the old Gym, output that cannot hold a sign."""

import io
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import rlgrad
from rlgrad.analysis.checking import check
from rlgrad.cli import main
from rlgrad.core import registry

QUICK = {"total_timesteps": 64, "num_envs": 2, "num_steps": 16, "evaluation_episodes": 0, "verbose": False}


class OldStep(gymnasium.Env):
    observation_space, action_space = spaces.Box(-1.0, 1.0, (1,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, {}


class OldReset(OldStep):
    def reset(self):
        return np.zeros(1, np.float32)


class NoSpace(gymnasium.Env):
    action_space = spaces.Discrete(2)


@pytest.mark.parametrize(("env", "limit"), [(OldStep, None), (OldStep, 9), (OldReset, None)])
def test_the_old_gym_is_recognized(env, limit, tmp_path):
    with pytest.raises((rlgrad.EnvironmentFault, TypeError), match="This is the old Gym API"):
        rlgrad.train("a2c", env, max_episode_steps=limit, run_dir=tmp_path / "run", **QUICK)


@pytest.mark.parametrize("env", [OldStep, OldReset])
def test_a_check_recognizes_it_too(env):
    assert any("This is the old Gym API" in finding.text for finding in check(env) if finding.level == "error")


def test_a_space_that_is_missing_is_named(tmp_path):
    for attempt in (lambda: check(NoSpace), lambda: rlgrad.train("a2c", NoSpace, run_dir=tmp_path / "run", **QUICK)):
        with pytest.raises(ValueError, match=r"NoSpace has no observation_space: set self.observation_space"):
            attempt()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("PPO", "Did you mean 'ppo'"),
        ("Reinforce", "Did you mean 'reinforce'"),
        ("SAC", "Did you mean 'sac'"),
        ("iqn", "The nearest agent is qr-dqn"),
        ("qrdqn", "The nearest agent is qr-dqn"),
        ("DDQN", "The nearest agent is dqn"),
        ("ppo2", "Did you mean 'ppo'"),
    ],
)
def test_names_of_agents_that_are_not_there_are_answered(name, answer, capsys):
    with pytest.raises(ValueError, match=answer):
        registry.find("rlgrad.agents", name)
    assert main(["train", name, "CartPole-v1"]) == 2
    assert answer in capsys.readouterr().err


def test_train_says_what_is_missing():
    with pytest.raises(ValueError, match=r"rlgrad.train\('ppo'\) needs an environment"):
        rlgrad.train("ppo")
    with pytest.raises(ValueError, match="nearest agent is qr-dqn"):
        rlgrad.train("iqn")
    with pytest.raises(ValueError, match="total_timesteps is missing"):
        rlgrad.train("ppo", "CartPole-v1")
    with pytest.raises(
        TypeError, match=r"callbacks are instances of subclasses of rlgrad.Callback, such as Callback\(\)"
    ):
        rlgrad.train("ppo", "CartPole-v1", callbacks=rlgrad.Callback, **QUICK)


def test_a_config_that_ships_is_trained_by_its_name_and_one_callback_is_enough(tmp_path):
    class Seen(rlgrad.Callback):
        starts = 0

        def on_start(self, run):
            self.starts += 1
            run.stop = True

    seen = Seen()
    changed = {"total_timesteps": 2000, "evaluation_episodes": 0, "hidden_sizes": (4,), "logs": ("csv",)}
    run = rlgrad.train("cartpole", callbacks=seen, run_dir=tmp_path / "run", verbose=False, **changed)
    assert seen.starts == 1
    assert (run.config.env, run.config.total_timesteps, run.config.hidden_sizes) == ("CartPole-v1", 2000, (4,))


@pytest.mark.parametrize("command", ["compare", "plot"])
@pytest.mark.parametrize("damaged", ["config.yaml", "metrics.csv", "evaluation.json"])
def test_a_damaged_folder_is_named(command, damaged, tmp_path, capsys):
    whole = {
        "config.yaml": "agent: {name: a2c}\nenv: CartPole-v1\n",
        "metrics.csv": "time/timesteps,time/seconds,train/return\n8,1.0,2.0\n",
        "evaluation.json": "{}",
    }
    for name, text in whole.items():
        (tmp_path / name).write_text(text if name != damaged else "{[")
    assert main([command, str(tmp_path)]) == 2
    assert damaged in capsys.readouterr().err


@pytest.mark.parametrize("output", ["x.xyz", "nowhere/x.png"])
def test_a_picture_that_cannot_be_written_is_refused_first(output, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("agent: {name: a2c}\n")
    for command in ("plot", "inspect"):
        assert main([command, ".", "--output", output]) == 2
        assert "x." in capsys.readouterr().err


def test_output_that_cannot_hold_a_sign_gets_another_one(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["train", "--help"]) == 0
    output.flush()
    assert b"usage: rlgrad train" in output.buffer.getvalue()
    print("…")


def test_a_config_that_ships_takes_another_environment(tmp_path):
    """As on the command line, `rlgrad train cartpole-a2c Acrobot-v1`."""
    changed = {"total_timesteps": 256, "evaluation_episodes": 0, "logs": ("csv",)}
    run = rlgrad.train("cartpole-a2c", "Acrobot-v1", run_dir=tmp_path / "run", verbose=False, **changed)
    assert (run.config.env, run.config.agent.num_steps, run.config.agent.gamma) == ("Acrobot-v1", 16, 0.98)
    run.close()
