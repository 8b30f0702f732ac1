"""A run's policy is loaded, and exported, without its environment and its agent."""

import json
import os

import gymnasium
import keras
import numpy as np
import pytest
from helpers.counting import QUICK
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.agents import A2C, CrossQ, DiscreteSAC, Reinforce
from rlgrad.cli import main
from rlgrad.policies import CriticNetwork
from rlgrad.replay import Replay
from rlgrad.runs.alone import load_policy

layers = keras.layers


def model():
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu"), layers.Dense(2)])


SMALL = {"replay": Replay(capacity=100, batch_size=8, warmup=8), "num_steps": 4}
PENDULUM = "Pendulum-v1"


class Unwritten(keras.Model):
    """One whose config Keras does not write."""

    def __init__(self, arrays):
        super().__init__()
        self.hidden, self.out = layers.Dense(4, "relu"), layers.Dense(2)

    def call(self, x):
        return self.out(self.hidden(x))


KINDS = {
    "defaults": {},
    "normalized": {"agent": A2C(normalize_observations=True)},
    "no value": {"agent": Reinforce(baseline="leave_one_out"), "num_steps": None, "total_timesteps": 60},
    "shared": {"shared_trunk": True, "activation": "relu"},
    "memory": {"memory": "gru", "memory_size": 3},
    "model": {"model": model},
    "critics": {
        "agent": CrossQ(**SMALL, critic=CriticNetwork(hidden_sizes=(5, 3), batch_norm="renorm")),
        "env": PENDULUM,
    },
    "critics of actions": {"agent": DiscreteSAC(**SMALL, critic=CriticNetwork(layer_norm=True))},
}


def trained(folder, agent=None, env=lambda: gymnasium.make("CartPole-v1"), **settings):
    run = rlgrad.train(agent or A2C(), env, run_dir=folder, **{"total_timesteps": 40} | QUICK | settings)
    run.close()
    return run


@mostly_slow("kind", list(KINDS), quick=[kind for kind in KINDS if kind != "critics"])
def test_the_policy_is_that_of_the_run(kind, tmp_path):
    run = trained(tmp_path / "run", **KINDS[kind])
    again = load_policy(tmp_path / "run")
    for mine, theirs in zip(run.policy.variables, again.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.has_value == run.policy.has_value
    if kind != "memory":
        x = np.random.default_rng(0).normal(size=(9, *run.policy.observation_spec.shape[1:])).astype(np.float32)
        np.testing.assert_array_equal(again.act(x, greedy=True), run.policy.act(x, greedy=True))


def test_export_needs_no_environment(tmp_path, capsys):
    trained(tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run"), "--episodes", "1"]) == 2
    assert main(["export", str(tmp_path / "run"), "--format", "keras"]) == 0
    assert (tmp_path / "run" / "policy.keras").is_file()
    assert "observation" in capsys.readouterr().out


def test_a_folder_of_before_is_loaded_with_its_environment(tmp_path, capsys):
    trained(tmp_path / "run")
    os.remove(tmp_path / "run" / "spaces.json")
    assert load_policy(tmp_path / "run") is None
    assert main(["export", str(tmp_path / "run"), "--format", "keras"]) == 2
    assert "--env" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "run"), "--format", "keras", "--env", "CartPole-v1"]) == 0


def test_a_model_that_keras_did_not_describe_is_no_default_network(tmp_path):
    trained(tmp_path / "run", model=Unwritten(object()), hidden_sizes=(4,))
    assert json.loads((tmp_path / "run" / "spaces.json").read_text())["models"] == ["model"]
    with pytest.raises(ValueError, match=r"model"):
        load_policy(tmp_path / "run")


@pytest.mark.parametrize("content", ["[]", "{}", '{"observation": {"type": "Box"}, "action": null}'])
def test_a_damaged_file_is_refused(content, tmp_path):
    trained(tmp_path / "run")
    (tmp_path / "run" / "spaces.json").write_text(content)
    with pytest.raises(ValueError, match=r"space"):
        load_policy(tmp_path / "run")
