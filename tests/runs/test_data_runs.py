"""Runs that learn from recorded episodes: recorded, trained, resumed, gone on with by other agents, and refused."""

import dataclasses
import json
import os

import gymnasium
import numpy as np
import pytest
from helpers.killing import left
from helpers.photographs import Photograph

import rlgrad
from rlgrad.agents import AWAC, BC, DQN, IQL, PPO, SAC
from rlgrad.cli import main
from rlgrad.core import settings
from rlgrad.replay import Replay
from rlgrad.runs.data_recording import record

QUICK = {"hidden_sizes": (8,), "evaluation_episodes": 0, "verbose": False, "vectorization_mode": "sync"}


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pendulum"
    record(folder, None, "Pendulum-v1", episodes=3, seed=1, max_episode_steps=40)
    return folder


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "cartpole"
    record(folder, None, "CartPole-v1", episodes=8, seed=1)
    return folder


def small(data, **options):
    return Replay(data=str(data), batch_size=16, **options)


@pytest.fixture(scope="module")
def iql(pendulum, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    photograph = Photograph(folder / "middle", 12)
    agent = IQL(replay=small(pendulum), normalize_observations=True)
    run = rlgrad.train(
        agent, "Pendulum-v1", total_timesteps=200, run_dir=folder / "whole", callbacks=photograph, seed=3, **QUICK
    )
    return run, folder / "middle"


def test_steps_are_gradient_steps_and_nothing_is_played(iql):
    run, _ = iql
    assert run.timesteps == 200
    assert run.history["train/gradient_steps"][-1] == 8.0
    assert sum(run.history["train/gradient_steps"]) == 200
    assert np.isnan(run.history["train/return"]).all()
    assert set(run.history["train/episodes"]) == {0.0}


def test_the_config_says_the_whole_path_of_the_data_and_their_digest(iql, pendulum):
    replay = settings.read(iql[0].path / "config.yaml")["agent"]["replay"]
    assert replay["data"] == str(pendulum.resolve())
    assert len(replay["data_digest"]) == 64


def test_the_normalizer_has_seen_each_observation_once(iql, pendulum):
    with np.load(pendulum / "episodes-000000.npz") as content:
        seen, lengths = content["observations"], content["lengths"]
    seen = np.delete(seen, np.cumsum(lengths + 1) - 1, axis=0)  # all that were acted on
    mean, std = (np.asarray(x) for x in iql[0].policy.preparation.moments()[:2])
    np.testing.assert_allclose(mean, seen.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert std.shape == (3,)


def test_a_run_that_is_resumed_from_its_middle_ends_as_if_it_had_gone_on(iql):
    whole, middle = iql
    again = rlgrad.load(middle, verbose=False)
    assert 0 < again.timesteps < 200
    again.train()
    for mine, theirs in zip(left(middle), left(whole.path), strict=True):
        assert mine == theirs


def test_changed_data_are_refused_when_training_goes_on_and_not_before(tmp_path):
    data = tmp_path / "data"
    record(data, None, "CartPole-v1", episodes=4)
    run = rlgrad.train(BC(replay=small(data)), "CartPole-v1", total_timesteps=16, run_dir=tmp_path / "run", **QUICK)
    record(data, None, "CartPole-v1", episodes=1, seed=5)
    again = rlgrad.load(run.path, verbose=False)
    assert again.evaluate(2).episodes == 2
    with pytest.raises(ValueError, match="are not those that this run began with"):
        again.train(32)
    for path in data.iterdir():
        path.unlink()
    data.rmdir()
    with pytest.raises(ValueError, match="There is no folder"):
        rlgrad.load(run.path, verbose=False).train(32)
    with pytest.raises(ValueError, match=r"are not those that this run began with|There is no folder"):
        rlgrad.train(run.config.agent, "CartPole-v1", total_timesteps=16, run_dir=tmp_path / "other", **QUICK)
    assert not (tmp_path / "other").exists()


def test_cloning_makes_the_recorded_actions_likelier(tmp_path):
    """A rule that a linear policy can say: push towards where the pole falls."""

    seen, actions, lengths = [], [], []
    env = gymnasium.make("CartPole-v1", max_episode_steps=60)
    for seed in range(5):
        now, over, steps = env.reset(seed=seed)[0], False, 0
        while not over:
            actions.append(int(now[2] + now[3] > 0))
            seen.append(now)
            now, _, terminated, truncated, _ = env.step(actions[-1])
            over, steps = terminated or truncated, steps + 1
        seen, lengths = [*seen, now], [*lengths, steps]
    np.savez(  # by hand, as the format says
        tmp_path / "mine.npz", observations=np.array(seen), actions=np.array(actions), lengths=np.array(lengths),
        rewards=np.ones(len(actions)), terminated=np.zeros(len(lengths), bool),
    )  # fmt: skip
    run = rlgrad.train(
        BC(replay=small(tmp_path)), "CartPole-v1", total_timesteps=1200, run_dir=tmp_path / "run",
        optimizer="adam", max_episode_steps=60, **QUICK | {"hidden_sizes": (16,)},
    )  # fmt: skip
    likelihood = run.history["train/log_likelihood"]
    assert likelihood[0] == pytest.approx(np.log(0.5), abs=0.05)
    assert likelihood[-1] > -0.45
    assert run.evaluate(5).mean_return > 45


def test_ppo_goes_on_with_a_policy_that_was_cloned(cartpole, tmp_path):
    first = {}

    class First(rlgrad.Callback):
        def on_start(self, run):
            first.update({v.path: v.numpy() for v in run.policy.variables})

    source = rlgrad.train(
        BC(replay=small(cartpole)), "CartPole-v1", total_timesteps=64, run_dir=tmp_path / "bc", **QUICK
    )
    run = rlgrad.train(
        PPO(num_envs=2, num_steps=16), "CartPole-v1", total_timesteps=64, init_from=source.path, callbacks=First(),
        run_dir=tmp_path / "ppo", **QUICK,
    )  # fmt: skip
    for variable in source.policy.variables:
        np.testing.assert_array_equal(first[variable.path], variable.numpy())
    assert run.timesteps == 64


@pytest.mark.slow
def test_sac_goes_on_with_a_policy_that_was_cloned_and_awac_with_its_critics(pendulum, tmp_path):
    first = {}

    class First(rlgrad.Callback):
        def on_start(self, run):
            first.update({v.path: v.numpy() for v in run.policy.variables})

    clone = rlgrad.train(
        BC(replay=small(pendulum)), "Pendulum-v1", total_timesteps=32, run_dir=tmp_path / "bc", squash_actions=True,
        state_dependent_std=True, **QUICK,
    )  # fmt: skip
    plays = Replay(capacity=200, batch_size=16, warmup=0)
    rlgrad.train(
        SAC(replay=plays), "Pendulum-v1", total_timesteps=4, init_from=clone.path, callbacks=First(),
        run_dir=tmp_path / "sac", **QUICK,
    )  # fmt: skip
    for variable in clone.policy.variables:
        np.testing.assert_array_equal(first[variable.path], variable.numpy())
    recorded = rlgrad.train(
        AWAC(replay=small(pendulum)), "Pendulum-v1", total_timesteps=32, run_dir=tmp_path / "awac", **QUICK
    )
    played = rlgrad.train(
        AWAC(replay=plays, num_steps=4), "Pendulum-v1", total_timesteps=8, init_from=recorded.path, callbacks=First(),
        run_dir=tmp_path / "online", **QUICK,
    )  # fmt: skip
    for variable in recorded.policy.variables:
        np.testing.assert_array_equal(first[variable.path], variable.numpy())
    assert any(not np.array_equal(first[v.path], v.numpy()) for v in played.policy.variables)


@pytest.mark.slow
def test_any_agent_with_a_replay_learns_from_data(cartpole, tmp_path):
    run = rlgrad.train(
        DQN(replay=small(cartpole)), "CartPole-v1", total_timesteps=64, run_dir=tmp_path / "dqn", **QUICK
    )
    assert np.isfinite(run.history["train/q_mean"]).all()


@pytest.mark.parametrize(
    ("agent", "env", "said"),
    [
        (lambda c, p: BC(), "CartPole-v1", "learns from recorded episodes: name a folder"),
        (lambda c, p: BC(replay=small(c)), "Pendulum-v1", "expected of the shape"),
        (lambda c, p: BC(replay=small(p)), "CartPole-v1", "expected of the shape"),
        (lambda c, p: DQN(replay=small(c), scale_rewards=True), "CartPole-v1", "scale_rewards follows"),
        (lambda c, p: BC(replay=small(c, frames=3)), "CartPole-v1", "stack so many frames"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(agent, env, said, cartpole, pendulum, tmp_path):
    with pytest.raises(ValueError, match=said):
        rlgrad.train(agent(cartpole, pendulum), env, total_timesteps=64, run_dir=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_settings_of_data_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="prioritized is of steps that a run plays"):
        Replay(data="here", prioritized=True)
    with pytest.raises(ValueError, match="data_digest is of data"):
        Replay(data_digest="0" * 64)
    assert "replay.updates_per_step" not in dataclasses.replace(DQN(), replay=Replay(data="here")).search_space()


def test_the_command_records_a_run_and_random_actions_into_one_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rlgrad.train("a2c", "CartPole-v1", total_timesteps=64, num_steps=8, run_dir="run", max_episode_steps=9, **QUICK)
    assert main(["record-data", "run", "--output", "data", "--episodes", "3", "--greedy", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["episodes"], said["steps"]) == (3, 27)
    assert main(["record-data", "random", "--env", "CartPole-v1", "--output", "data", "--episodes", "2"]) == 0
    content = json.loads((tmp_path / "data" / "data.json").read_text())
    assert [(each["policy"], each["greedy"]) for each in content["recorded"]] == [
        ("run, checkpoint last", True), ("random", False),
    ]  # fmt: skip
    with np.load("data/episodes-000000.npz") as file:
        assert not file["terminated"].any()  # a time limit cut them
        assert file["observations"].shape == (30, 4)
    words = ["train", "bc", "CartPole-v1", "--agent.replay.data", "data", "--total-timesteps", "16", "--run-dir", "bc"]
    assert main([*words, "--evaluation-episodes", "2", "--hidden-sizes", "4"]) == 0
    for words, said in (
        (["random", "--output", "data"], "--env Pendulum-v1"),
        (["random", "--env", "CartPole-v1", "--output", "x", "--greedy"], "leave them out"),
        (["random", "--env", "Pendulum-v1", "--output", "data"], "of other observations or actions"),
        (["random", "--env", "CartPole-v1", "--output", "run"], "is not empty, and holds no recorded episodes"),
        (["bc", "--output", "x", "--episodes", "0"], "at least 1"),
    ):
        capsys.readouterr()
        assert main(["record-data", *words]) == 2
        assert said in capsys.readouterr().err
    os.symlink(tmp_path / "run", tmp_path / "data" / "link")
    assert main(["record-data", "random", "--env", "CartPole-v1", "--output", "data"]) == 2
