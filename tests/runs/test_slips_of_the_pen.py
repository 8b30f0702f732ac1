"""What a person writes by mistake, or as other programs take it: done, or answered by what to write."""

import pytest

import rlgrad
from rlgrad.agents import A2C, DQN, PPO
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


def test_no_callbacks_may_be_none_and_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run = rlgrad.train("a2c", "CartPole-v1", total_timesteps=8, run_dir="~/mine/run", callbacks=None, **QUICK)
    assert run.path == tmp_path / "home" / "mine" / "run"
    assert rlgrad.load("~/mine/run", verbose=False).timesteps == 8
    assert rlgrad.export(run.policy, "~/policy.keras") == tmp_path / "home" / "policy.keras"
    assert [each.name for each in tmp_path.iterdir()] == ["home"]
