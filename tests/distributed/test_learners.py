"""Several learners: the same bits for a given number of them, whoever dies, and those of one learner to rounding."""

import contextlib
import os
import random
import signal
import threading

import numpy as np
import pytest
from helpers.functionals import Clock
from helpers.slow import mostly_slow
from helpers.time_to_start import SMALL

import rlgrad
from rlgrad.agents import IMPALA, PPO, Reinforce
from rlgrad.cli import main
from rlgrad.config import Config
from rlgrad.rollouts import GymCollector
from rlgrad.runs import assembly
from rlgrad.updates import Ascent, PerHead

pytest.importorskip("ray")

from rlgrad.distributed import learners
from rlgrad.distributed.fleet import WorkerFault

FEW = Ascent(learning_rate=1e-3, max_grad_norm=0.5, num_epochs=2, num_minibatches=2)
KINDS = {
    "ppo": (PPO(num_steps=16, update=FEW), "CartPole-v1", {"total_timesteps": 256}),
    "impala": (IMPALA(num_steps=8), "Acrobot-v1", {"total_timesteps": 128}),
    "whole episodes": (
        Reinforce(episodes_per_env=1, baseline="value", update=PerHead(value=Ascent(num_epochs=2))),
        "CartPole-v1",
        {"total_timesteps": 200},
    ),
    "recurrent": (
        PPO(num_steps=8, update=FEW),
        "Pendulum-v1",
        {"total_timesteps": 96, "memory": "gru", "memory_size": 8},
    ),
}


def weights(run):
    """The weights, and what the optimizer remembers."""
    return [variable.numpy() for variable in (*run.policy.variables, *run.learner.state.slots)]


def distance(ones, others):
    """The largest difference of two lists of arrays, in parts of the largest number of each array."""
    pairs = zip(ones, others, strict=True)
    return max(np.abs(one - other).max(initial=0) / max(np.abs(other).max(initial=0), 1e-9) for one, other in pairs)


def same(ones, others):
    return all(np.array_equal(one, other) for one, other in zip(ones, others, strict=True))


def trained(kind, folder, count, callbacks=(), **changes):
    agent, env, own = KINDS[kind]
    settings = {**SMALL, **own, **changes, "learners": count, "run_dir": folder, "callbacks": callbacks}
    run = rlgrad.train(agent, env, vectorization_mode="sync", **settings)
    found = weights(run)
    run.close()
    return found


@pytest.fixture(scope="module")
def two(cluster, tmp_path_factory):
    """PPO with two learners, undisturbed."""
    return trained("ppo", tmp_path_factory.mktemp("two") / "run", 2)


def kill(pid):
    with contextlib.suppress(ProcessLookupError):  # the run has ended
        os.kill(pid, signal.SIGKILL)


class Killer(rlgrad.Callback):
    """Kills a learner after some updates, at a random moment of the rollout or the steps that follow."""

    def __init__(self, updates, seed=0):
        self.updates, self.random, self.killed = updates, random.Random(seed), []

    def on_update(self, run, metrics):
        if run.updates in self.updates:
            self.killed.append(self.random.choice(run.learner.ranks.places)["pid"])
            threading.Timer(self.random.random() * 0.1, kill, (self.killed[-1],)).start()


class StandStill(rlgrad.Callback):
    """Has a learner stand still after the first update, without the time that busy machines are given."""

    def on_update(self, run, metrics):
        if run.updates == 1:
            run.learner.ranks.patience = 0.5
            os.kill(run.learner.ranks.places[0]["pid"], signal.SIGSTOP)
        if run.updates == 2:
            run.learner.ranks.patience = 60.0


class Stop(rlgrad.Callback):
    def on_update(self, run, metrics):
        run.stop |= run.updates == 2


@mostly_slow("kind, count", [("ppo", 2), ("ppo", 3), ("impala", 2), ("whole episodes", 2), ("recurrent", 2)])
def test_several_learners_are_one_to_rounding(kind, count, two, tmp_path):
    several = two if (kind, count) == ("ppo", 2) else trained(kind, tmp_path / "several", count)
    one = trained(kind, tmp_path / "one", 1)
    assert distance(several, one) < 1e-5
    assert not same(several, one) or kind == "whole episodes"  # they did add up, here rows of padding


@mostly_slow("kind, updates", [("ppo", (1,)), ("ppo", (1, 2)), ("impala", (1, 2)), ("recurrent", (1, 2))])
def test_a_run_whose_learners_were_killed_is_the_run_whose_were_not(kind, updates, two, tmp_path, caplog):
    killer = Killer(updates)
    undisturbed = two if kind == "ppo" else trained(kind, tmp_path / "undisturbed", 2)
    assert same(trained(kind, tmp_path / "run", 2, [killer]), undisturbed)
    assert len(killer.killed) == len(updates)
    assert "Learner 2 of 2 was lost: another one computes its share, with the same numbers." in caplog.messages


@pytest.mark.slow
def test_a_learner_that_stands_still_is_replaced_and_its_share_is_the_same(two, tmp_path, caplog):
    assert same(trained("ppo", tmp_path / "run", 2, [StandStill()]), two)
    assert "Learner 2 of 2 did not answer within" in caplog.text


@pytest.mark.slow
def test_a_run_is_resumed_to_the_bit_with_workers_beside(two, tmp_path):
    trained("ppo", tmp_path / "run", 2, [Stop()], workers=2)
    run = rlgrad.load(tmp_path / "run", verbose=False, workers=1)
    assert run.config.learners == 2
    run.train(KINDS["ppo"][2]["total_timesteps"])  # it ended early
    found = weights(run)
    run.close()
    assert same(found, two)


def test_a_learner_that_finds_no_place_is_named(cluster, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(learners, "cpus_per_worker", lambda: 100)
    command = "train ppo CartPole-v1 --total-timesteps 2048 --learners 3 --worker-timeout 0.5 --run-dir"
    assert main([*command.split(), str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert (
        "2 of 3 learners were not ready within 0.5 s: number 2, 3. Each needs one CPU, and 9 of 9 CPUs are free" in said
    )
    assert "rlgrad resume" in said


def test_a_learner_that_dies_again_and_again_is_given_up(cluster, monkeypatch, tmp_path):
    monkeypatch.setattr(learners.Learners, "_await", lambda self, ranks: None)  # it is not worth waiting for
    monkeypatch.setattr(learners, "patience", lambda *known: 0.0)
    with pytest.raises(WorkerFault, match="Learner 2 of 2 was lost 5 times in one step"):
        trained("ppo", tmp_path / "run", 2)


def test_a_run_on_a_gpu_has_one_learner():
    collector = GymCollector("CartPole-v1", num_steps=4)
    config = Config(agent=PPO(), env="CartPole-v1", total_timesteps=9, learners=2)
    with pytest.raises(
        ValueError, match=r"compute on CPUs, and this run computes on GPU:0: leave learners out, or hide"
    ):
        assembly._learners(config, collector, "GPU:0")
    collector.close()


def test_what_several_learners_cannot_do_is_refused_before_a_folder_is_made(tmp_path):
    settings = {"total_timesteps": 100, "verbose": False, "run_dir": tmp_path / "run", "learners": 2}
    with pytest.raises(ValueError, match=r"DQN learns from small batches of a replay.*leave learners out"):
        rlgrad.train("dqn", "CartPole-v1", **settings)
    with pytest.raises(ValueError, match="TrustRegion asks for more than these"):
        rlgrad.train("trpo", "CartPole-v1", **settings)
    with pytest.raises(ValueError, match="compiled together with its learner"):
        rlgrad.train("a2c", Clock, **settings)
    with pytest.raises(ValueError, match="learners"):
        rlgrad.train("a2c", "CartPole-v1", **{**settings, "learners": 0})
    with pytest.raises(ValueError, match="count is at least 2"):
        learners.Learners(1)
    assert not (tmp_path / "run").exists()
