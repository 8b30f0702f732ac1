"""What a person writes by mistake, or as other programs take it: done, or answered by what to write."""

import math
import re

import gymnasium
import numpy as np
import pytest

import rlgrad
from rlgrad.agents import A2C, C51, DQN, PPO
from rlgrad.updates import Ascent

QUICK = {"num_envs": 2, "num_steps": 4, "evaluation_episodes": 0, "verbose": False, "hidden_sizes": (4,)}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PPO(n_steps=5), "PPO has no field 'n_steps'. Did you mean 'num_steps'"),
        (lambda: PPO(learning_rate=1e-3), "its update has, as in PPO(update=Ascent(learning_rate=…))"),
        (lambda: DQN(batch_size=32), "its replay has, as in DQN(replay=Replay(batch_size=…))"),
        (lambda: Ascent(lr=1e-3), "Ascent has no field 'lr'. "),
        (lambda: A2C(zzzz=1), "A2C has no field 'zzzz'. Known: "),
    ],
)
def test_a_field_that_is_none_is_answered_by_the_one_that_was_meant(make, said):
    with pytest.raises(TypeError) as raised:
        make()
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((A2C, "CartPole-v1"), {}, "got the class A2C: call it, A2C()."),
        ((None, "CartPole-v1"), {}, "agent is an agent, an agent's name or a config"),
        (
            ("a2c", "CartPole-v1"),
            {"callbacks": lambda run, metrics: None},
            "instances of subclasses of rlgrad.Callback",
        ),
        (("a2c", "CartPole-v1"), {"callbacks": [rlgrad.Callback(), "mine"]}, "got 'mine'"),
        (
            ("a2c", "CartPole-v1"),
            {"env_kwargs": "render_mode=human"},
            "env_kwargs is a mapping of names to values, got 'render_mode=human'",
        ),
        (("a2c", "CartPole-v1"), {"env_kwargs": [1]}, "env_kwargs is a mapping of names to values, got [1]"),
    ],
)
def test_an_argument_that_is_none_is_answered_by_what_it_takes(arguments, options, said, tmp_path):
    with pytest.raises((TypeError, ValueError)) as raised:
        rlgrad.train(*arguments, total_timesteps=8, run_dir=tmp_path / "run", **QUICK | options)
    assert said in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return rlgrad.train(
        "a2c", "CartPole-v1", total_timesteps=8, run_dir=tmp_path_factory.mktemp("slips") / "run", **QUICK
    )


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (np.array([0.0, math.nan, 0.0, 0.0]), "finite numbers, and this one has nan"),
        ([[0.0] * 4, [0.0, 0.0, -math.inf, 0.0]], "finite numbers, and this one has -inf"),
        (gymnasium.make("CartPole-v1").reset(seed=0), "reset returns, (observation, info): take the first"),
    ],
)
def test_an_observation_that_says_nothing_has_no_action(run, observation, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        run.policy.act(observation)


def test_a_file_of_a_run_is_answered_by_its_folder(run):
    for file in (run.path / "config.yaml", next((run.path / "checkpoints").glob("0*.npz"))):
        with pytest.raises(FileNotFoundError, match=r"is a file of the run in .*: give that folder"):
            rlgrad.load(file)


def test_what_is_exported_is_a_policy(run, tmp_path):
    with pytest.raises(TypeError, match=r"export takes a policy, such as run.policy; got <Run of a2c"):
        rlgrad.export(run, tmp_path / "policy.keras")


@pytest.mark.parametrize("support", [[0, 100], np.array([0.0, 100.0]), ("0", "1e2")])
def test_a_pair_of_numbers_may_be_a_list_or_an_array(support):
    agent = C51(support=support)
    assert agent.support == (0.0, 100.0)
    assert type(agent.support) is tuple
    assert [type(x) for x in agent.support] == [float, float]


@pytest.mark.parametrize("support", [(0.0,), (0.0, 1.0, 2.0), "0,1", (0.0, "a")])
def test_what_is_no_pair_is_refused(support):
    with pytest.raises(ValueError, match="support is a list of 2, each a number"):
        C51(support=support)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_options_of_an_optimizer_are_finite(value):
    with pytest.raises(ValueError, match="rho of 'rmsprop' is a number"):
        Ascent(optimizer="rmsprop", optimizer_options={"rho": value})


def test_no_callbacks_may_be_none_and_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run = rlgrad.train("a2c", "CartPole-v1", total_timesteps=8, run_dir="~/mine/run", callbacks=None, **QUICK)
    assert run.path == tmp_path / "home" / "mine" / "run"
    assert rlgrad.load("~/mine/run", verbose=False).timesteps == 8
    assert rlgrad.export(run.policy, "~/policy.keras") == tmp_path / "home" / "policy.keras"
    assert [each.name for each in tmp_path.iterdir()] == ["home"]
