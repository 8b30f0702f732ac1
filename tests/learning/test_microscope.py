"""Diagnoses of agents with a replay, and of action values: from each step's own gradient, written out one by one."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.continuous import policy_for

import rlgrad
from rlgrad import random
from rlgrad.agents import DQN, PQN, SAC, CrossQ, DiscreteSAC, StreamQ
from rlgrad.diagnostics import diagnosis as diagnoses
from rlgrad.diagnostics import inspection
from rlgrad.learning.microscope import _SEED
from rlgrad.replay import Replay

ROWS = 4
SMALL = {"hidden_sizes": (4,), "evaluation_episodes": 0, "verbose": False, "diagnose": True}
MEMORY = Replay(capacity=64, batch_size=ROWS, warmup=16)
AGENTS = {
    "dqn": (DQN(replay=MEMORY), "CartPole-v1"),
    "prioritized": (DQN(replay=Replay(capacity=64, batch_size=ROWS, warmup=16, prioritized=True)), "CartPole-v1"),
    "sac": (SAC(replay=MEMORY), "Pendulum-v1"),
    "discrete-sac": (DiscreteSAC(replay=MEMORY), "CartPole-v1"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    found = {}

    def run(name):
        if name not in found:
            agent, env = AGENTS[name]
            folder = tmp_path_factory.mktemp("runs") / name
            found[name] = rlgrad.train(agent, env, total_timesteps=40, run_dir=folder, **SMALL)
        return found[name]

    return run


def rows_of(learner, progress, timesteps):
    """What each row of the diagnosed batch adds to the update: flat, by head."""
    seed = random.fold_in(_SEED, timesteps)
    batch, _ = learner.rehearsal.draw(tf.constant(seed), tf.constant(progress, tf.float32))
    rows = [learner.objective(batch).on([n], 1.0).gradient()[0] for n in range(ROWS)]
    keys = {"q": [], "policy": []}
    for key in rows[0]:
        if "log_alpha" in key:  # a number by itself, which no network has
            continue
        is_critic = len(learner.policy.critics) == 0 or "critic" in key
        keys["q" if is_critic else "policy"].append(key)
    return {
        head: np.stack([np.concatenate([np.ravel(row[key]) for key in names]) for row in rows]).astype(np.float64)
        for head, names in keys.items()
        if names
    }


@pytest.mark.parametrize("name", AGENTS)
def test_signal_and_noise_are_those_of_each_drawn_steps_gradient(name, runs):
    run = runs(name)
    found = run.learner.diagnose(None, 0.5, 7)
    assert (found.unit, found.count, found.share_by_time, found.variances) == ("step", ROWS, [], None)
    rows = rows_of(run.learner, 0.5, 7)
    for head, gradients in rows.items():
        mean = gradients.mean(axis=0)
        noise = (np.sum(gradients**2) - ROWS * mean @ mean) / (ROWS - 1)
        measured = getattr(found, head)
        np.testing.assert_allclose(measured.noise, noise, rtol=2e-3)
        np.testing.assert_allclose(measured.signal, mean @ mean - noise / ROWS, rtol=2e-2, atol=1e-3 * noise)
    if "policy" in rows:
        mean = rows["policy"].mean(axis=0)
        cosines = rows["policy"] @ mean / np.linalg.norm(rows["policy"], axis=1) / np.linalg.norm(mean)
        np.testing.assert_allclose(found.cosines, cosines, atol=5e-3)


def test_a_run_with_a_replay_logs_its_diagnoses_from_the_first_batch_on(runs):
    run = runs("sac")
    layers = [f"gradient/q_snr/{layer}" for layer in run.learner.layers["q"]]
    policy = [f"gradient/norm/{layer}" for layer in run.learner.layers["action"]]
    for name in ("gradient/snr", "gradient/q_snr", "gradient/q_noise_scale", "gradient/cosine", *layers, *policy):
        column = np.asarray(run.history[name])
        assert np.isnan(column[:ROWS]).all(), name
        assert np.isfinite(column[ROWS + 1 :]).all() or name.endswith("noise_scale"), name
    assert np.isnan(run.history["gradient/variance_ratio"]).all()
    assert diagnoses.read(run.path) == run.diagnosis
    names = [row.name for row in inspection.rows(run.diagnosis, run.history)]
    assert {"signal ‖G‖²", "q: SNR", "q: noise scale"} <= {*names}
    assert "share of later half" not in names


def test_diagnosing_moves_no_weight_of_a_run_with_a_replay(runs, tmp_path):
    agent, env = AGENTS["prioritized"]
    plain = rlgrad.train(agent, env, total_timesteps=40, run_dir=tmp_path / "a", **SMALL | {"diagnose": False})
    for a, b in zip(plain.policy.get_weights(), runs("prioritized").policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    sizes = np.asarray(plain.history["train/effective_sample_size"])
    assert np.isnan(sizes[0])  # of the warm-up
    assert 1.0 < sizes[-1] < ROWS


def test_a_run_that_was_loaded_is_diagnosed_by_its_replay(runs):
    run = runs("dqn")
    again = rlgrad.load(run.path)
    try:
        assert again.diagnose() == run.diagnose()
    finally:
        again.close()


def test_action_values_of_rollouts_are_diagnosed_too(tmp_path):
    agent = PQN(num_envs=2, num_steps=8)
    run = rlgrad.train(agent, "CartPole-v1", total_timesteps=64, run_dir=tmp_path / "a", **SMALL)
    assert run.diagnosis.policy is None
    assert 8 < run.diagnosis.count <= 16  # without steps that only begin an episode anew
    assert run.diagnosis.q.noise > 0.0
    assert np.isfinite(run.history["gradient/q_snr"]).all()


def test_what_has_no_gradient_of_a_step_is_named_and_training_goes_on(tmp_path):
    run = rlgrad.train(StreamQ(), "CartPole-v1", total_timesteps=24, run_dir=tmp_path / "a", **SMALL)
    assert run.diagnosis is None
    with pytest.raises(NotImplementedError, match="say what enters a trace"):
        run.diagnose()
    agent = CrossQ(replay=MEMORY)
    learner = rlgrad.Learner(agent, policy_for(agent), num_envs=1)
    with pytest.raises(NotImplementedError, match="normalized over the batch, so a step has no gradient of its own"):
        learner.diagnose(None, 0.5)


def test_a_replay_without_a_batch_is_refused(tmp_path):
    agent = DQN(replay=Replay(capacity=64, batch_size=32, warmup=16))
    run = rlgrad.train(agent, "CartPole-v1", total_timesteps=16, run_dir=tmp_path / "a", **SMALL)
    with pytest.raises(ValueError, match="The replay holds 16 steps, fewer than a batch of 32"):
        run.diagnose()
