"""Runs on environments written in TensorFlow: trained, evaluated, saved and gone on with like any other run."""

import numpy as np
import pytest
import yaml
from helpers.functionals import Clock

import rlgrad
from rlgrad.agents import A2C
from rlgrad.cli import main
from rlgrad.envs import CartPole
from rlgrad.rollouts.factory import make_collector

QUICK = {"total_timesteps": 960, "num_envs": 4, "num_steps": 16, "hidden_sizes": (8,), "verbose": False}
MINE = """
from rlgrad.envs import CartPole


class Heavier(CartPole):
    max_episode_steps = 30
"""


def weights(run):
    return [v.numpy() for v in run.policy.variables]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "run"
    return rlgrad.train(A2C(), "rlgrad/CartPole-v1", run_dir=path, seed=3, evaluation_episodes=10, **QUICK)


def test_a_run_logs_what_other_runs_log(run):
    rows = len(run.history["time/timesteps"])
    assert rows == 15
    assert run.history["time/timesteps"] == [64.0 * (i + 1) for i in range(rows)]
    assert run.episodes > 5
    assert 5 < run.history["train/return"][-1] < 200
    assert run.history["train/length"] == run.history["train/return"]


def test_the_config_says_what_was_chosen(run):
    resolved = yaml.safe_load((run.path / "config.yaml").read_text())["resolved"]
    assert (resolved["vectorization_mode"], resolved["actor"]) == ("compiled", "compiled")


def test_evaluation_plays_fresh_episodes_the_same_ones_each_time(run):
    first, again = run.evaluate(7), run.evaluate(7)
    np.testing.assert_array_equal(first.returns, again.returns)
    np.testing.assert_array_equal(first.returns, first.lengths)
    assert first.episodes == 7
    assert len(np.unique(run.evaluate(7, greedy=False).returns)) > 1


def test_a_run_that_is_gone_on_with_is_the_run_that_never_stopped_to_the_bit(run, tmp_path):
    half = rlgrad.train(
        A2C(),
        "rlgrad/CartPole-v1",
        run_dir=tmp_path / "half",
        seed=3,
        evaluation_episodes=0,
        **QUICK | {"total_timesteps": 448},
    )
    assert any((a != b).any() for a, b in zip(weights(half), weights(run), strict=True))
    resumed = rlgrad.load(tmp_path / "half", verbose=False).train(960)
    for a, b in zip(weights(run), weights(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert resumed.history["train/return"][-1] == run.history["train/return"][-1]
    assert resumed.episodes == run.episodes


def test_a_class_an_instance_and_a_file_are_environments_too(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(MINE)
    place = f"{tmp_path / 'mine.py'}:Heavier"
    for env in (CartPole, CartPole(), place):
        assert isinstance(make_collector(env, num_envs=2, num_steps=3), rlgrad.CompiledCollector)
    command = ["train", "a2c", place, "--total-timesteps", "960", "--evaluation-episodes", "0"]
    assert main([*command, "--run-dir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "Compiling rollout and update" in said
    assert rlgrad.load(tmp_path / "run", verbose=False).evaluate(4).lengths.max() <= 30


def test_wrappers_and_other_modes_step_the_same_environment_through_gymnasium():
    for options in ({"wrappers": ["TimeAwareObservation"]}, {"vectorization_mode": "sync"}):
        with make_collector(CartPole, num_envs=2, num_steps=3, **options) as collector:
            assert isinstance(collector, rlgrad.GymCollector)
            assert collector.vectorization_mode == "sync"
            policy = rlgrad.make_policy(collector.observation_space, collector.action_space, hidden_sizes=(4,))
            assert collector.collect(policy).observations.shape[:2] == (3, 2)


@pytest.mark.parametrize("env", ["CartPole-v1", lambda: None])
def test_only_what_is_written_in_tensorflow_is_compiled(env):
    with pytest.raises(ValueError, match=r"written in TensorFlow.*docs/compiled-environments.md"):
        make_collector(env, vectorization_mode="compiled", num_steps=3)


@pytest.mark.parametrize("env", ["rlgrad/CartPole-v1", CartPole])
def test_processes_of_their_own_are_refused(env):
    with pytest.raises(ValueError, match="processes of its own"):
        make_collector(env, vectorization_mode="async", num_steps=3)


def test_arguments_reach_the_environment():
    collector = make_collector(Clock, env_kwargs={"length": 2}, num_envs=1, num_steps=4)
    policy = rlgrad.make_policy(collector.observation_space, collector.action_space, hidden_sizes=(4,))
    assert collector.collect(policy).terminations[:, 0].tolist() == [False, True, False, True]


@pytest.mark.slow
def test_diagnostics_come_with_rollout_and_update_apart(tmp_path):
    run = rlgrad.train(
        A2C(),
        CartPole,
        run_dir=tmp_path / "run",
        evaluation_episodes=0,
        diagnose=True,
        **QUICK | {"total_timesteps": 256},
    )
    assert run.diagnosis is not None
    assert np.isfinite(run.history["gradient/signal"]).any()
