"""The diagnosis of a rollout, against per-sample gradients that are written out; logging it changes nothing else."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.slow import mostly_slow, parameters

import rlgrad
from rlgrad import gradients
from rlgrad.agents.reinforce import Reinforce
from rlgrad.core.nested import map_leaves
from rlgrad.diagnostics import diagnosis as diagnoses
from rlgrad.diagnostics import inspection, measuring
from rlgrad.diagnostics.diagnosis import DIAGNOSTICS
from rlgrad.gradients import Entropy, LogProb
from rlgrad.metrics import METRICS, read_csv

QUICK = {"total_timesteps": 768, "evaluation_episodes": 0, "verbose": False, "vectorization_mode": "sync"}
pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def two_heads():
    x = keras.Input((4,))
    h = keras.layers.Dense(8, "tanh", name="trunk")(x)
    return keras.Model(
        x, {"policy": keras.layers.Dense(2, name="logits")(h), "value": keras.layers.Dense(1, name="v")(h)}
    )


CASES = {
    "steps": (Reinforce(num_envs=4, num_steps=32), "CartPole-v1", {}),
    "standardized, with an entropy bonus": (
        Reinforce(num_envs=4, num_steps=32, standardize_advantages=True, entropy_coefficient=0.1),
        "CartPole-v1",
        {},
    ),
    "one model with two heads": (Reinforce(num_envs=4, num_steps=32), "CartPole-v1", {"model": two_heads}),
    "autoreset steps that do not count": (
        Reinforce(num_envs=4, num_steps=32),
        "CartPole-v1",
        {"vectorization_mode": "vector_entry_point"},
    ),
    "whole episodes": (Reinforce(num_envs=3, episodes_per_env=2, baseline="leave_one_out"), "CartPole-v1", {}),
    "whole episodes with a value": (Reinforce(num_envs=3), "CartPole-v1", {"max_episode_steps": 20}),
    "continuous actions": (Reinforce(num_envs=3, num_steps=32, normalize_observations=True), "Pendulum-v1", {}),
}


QUICK_CASES = ["autoreset steps that do not count", "whole episodes with a value"]


@pytest.fixture(scope="module", params=parameters(CASES, QUICK_CASES))
def measured(request):
    """A learner, a rollout, the diagnosis of that, and the gradients of its samples written out."""
    agent, env, options = request.param
    model = options.get("model")
    by_steps = agent.num_steps is not None
    collector = rlgrad.GymCollector(
        env,
        num_envs=agent.num_envs,
        num_steps=agent.num_steps,
        episodes_per_env=None if by_steps else agent.episodes_per_env,
        **{name: value for name, value in options.items() if name != "model"},
    )
    policy = rlgrad.make_policy(
        collector.observation_space,
        collector.action_space,
        model=model,
        value=agent.baseline == "value",
        hidden_sizes=(8, 8),
        normalize_observations=agent.normalize_observations,
    )
    rng = np.random.default_rng(0)
    for v in policy.trainable_variables:
        v.assign(v + 0.3 * rng.normal(size=v.shape))
    learner = rlgrad.Learner(agent, policy, num_envs=collector.num_envs)
    rollout = collector.collect(policy)
    collector.close()
    return learner, rollout, learner.diagnose(rollout, 0.5, 7), written_out(learner, rollout, 0.5)


def written_out(learner, rollout, progress):
    """By output and by kind of credit: float64 (samples, weights); and those of the steps, and their columns and rows."""
    batch = learner.batch_of(map_leaves(tf.constant, rollout), tf.constant(progress))
    outputs = {"log_prob": LogProb(batch.actions), "entropy": Entropy()}
    outputs |= {"value": "value"} if learner.policy.has_value else {}
    now = gradients.linearize(learner.policy, batch.observations, output=outputs).outputs
    credit = learner.agent.credit(batch, rlgrad.Outputs(**now))
    keep = np.asarray(rollout.mask).reshape(-1) > 0
    column = np.tile(np.arange(rollout.mask.shape[1]), rollout.mask.shape[0])[keep]

    def of(output, c):
        g = gradients.per_sample_gradient(learner.policy, batch.observations, output=output)
        flat = gradients.flatten(g, batch_axes=1).numpy().astype(np.float64)[keep]
        steps = flat * np.broadcast_to(np.asarray(c, np.float64), len(keep))[keep, None]
        if not learner.whole_episodes:
            return steps, steps
        return np.stack([steps[column == i].sum(0) for i in range(rollout.mask.shape[1])]), steps

    log_prob = LogProb(batch.actions)
    found = {
        "policy": of(log_prob, credit["log_prob"])[0],
        "steps": of(log_prob, credit["log_prob"])[1],
        "agent": of(log_prob, batch.advantages)[0],
        "returns": of(log_prob, batch.returns)[0],
        "score": of(log_prob, 1.0)[0],
    }
    if "value" in credit:
        found["value"] = of("value", credit["value"])[0]
    return found


def trace(g):
    return float(np.trace(np.cov(g.T)))


def test_signal_and_noise_are_those_of_the_gradients_written_out(measured):
    learner, rollout, found, g = measured
    mask = np.asarray(rollout.mask)
    assert found.timesteps == 7
    assert found.unit == ("episode" if learner.whole_episodes else "step")
    assert found.count == len(g["policy"]) == (mask.shape[1] if learner.whole_episodes else mask.sum())
    assert (found.value is None) == ("value" not in g)
    for name, head in (("policy", found.policy), ("value", found.value)):
        if head is None:
            continue
        noise, squared = trace(g[name]), float((g[name].mean(0) ** 2).sum())
        assert head.noise == pytest.approx(noise, rel=1e-4)
        signal = squared - noise / found.count
        assert head.signal == pytest.approx(signal, rel=1e-4, abs=1e-5 * squared)
        assert head.snr == pytest.approx(found.count * signal / noise, rel=1e-3, abs=1e-4)
        assert np.hypot.reduce(list(head.norms.values())) == pytest.approx(np.sqrt(squared), rel=1e-4)


def test_cosines_and_shares_are_those_of_the_gradients_written_out(measured):
    learner, rollout, found, g = measured
    mean, mask = g["policy"].mean(0), np.asarray(rollout.mask) > 0
    cosines = g["policy"] @ mean / np.linalg.norm(g["policy"], axis=1) / np.linalg.norm(mean)
    np.testing.assert_allclose(found.cosines, cosines, atol=1e-4)
    inner = g["steps"] @ mean
    by_time = np.bincount(np.nonzero(mask)[0], weights=inner) / inner.sum()
    np.testing.assert_allclose(found.share_by_time, by_time, atol=1e-4)
    assert sum(found.share_by_episode) == pytest.approx(1.0)
    if learner.whole_episodes:
        np.testing.assert_allclose(found.share_by_episode, g["policy"] @ mean / inner.sum(), atol=1e-4)
    else:
        ends, left = rollout.terminations | rollout.truncations, np.cumsum(mask[::-1], axis=0)[::-1]
        # An episode that steps which count follow is not the last one of its slot.
        assert len(found.share_by_episode) == (ends[:-1] & (left[1:] > 0)).sum() + mask.shape[1]


def test_variances_are_those_of_the_gradients_written_out(measured):
    _, _, found, g = measured
    s, h, v = g["score"], g["returns"], found.variances
    assert v.none == pytest.approx(trace(h), rel=1e-4)
    assert v.agent == pytest.approx(trace(g["agent"]), rel=1e-4)
    assert v.baseline == pytest.approx((s * h).sum() / (s * s).sum(), rel=1e-4)
    assert v.optimal == pytest.approx(trace(h - v.baseline * s), rel=1e-3)
    by_weight = np.divide((s * h).sum(0), (s * s).sum(0), out=np.zeros(s.shape[1]), where=(s != 0).any(0))
    assert v.componentwise == pytest.approx(trace(h - by_weight * s), rel=1e-3)


def test_returns_that_differ_by_little_lose_no_digits():
    """100 ± 0.01: float32 sums of R² s² would leave nothing of the variance that a baseline leaves."""
    rng = np.random.default_rng(0)
    env = rlgrad.GymCollector("CartPole-v1", num_envs=8, num_steps=32)
    policy = rlgrad.make_policy(env.observation_space, env.action_space, value=False)
    env.close()
    x, actions = rng.normal(size=(256, 4)).astype(np.float32), rng.integers(2, size=256)
    returns = (100.0 + 0.01 * rng.normal(size=256)).astype(np.float32)
    ones = np.ones(256, np.float32)
    batch = rlgrad.Batch(x, actions, ones, ones, returns, returns, returns, ones, 0.0)
    measured = measuring.measure(policy, batch, {"log_prob": returns}, None)
    g = gradients.per_sample_gradient(policy, x, output=LogProb(actions))
    s = gradients.flatten(g, batch_axes=1).numpy().astype(np.float64)
    h = s * returns.astype(np.float64)[:, None]
    best = (s * h).sum() / (s * s).sum()
    found = measuring.variances(measured)
    assert found.baseline == pytest.approx(best, rel=1e-6)
    assert found.none == pytest.approx(trace(h), rel=1e-4)
    assert found.optimal == pytest.approx(trace(h - best * s), rel=1e-3)


def test_the_layers_are_those_that_the_columns_are_named_after(measured):
    learner, _, found, _ = measured
    assert list(found.policy.layers) == list(found.policy.norms) == learner.layers["log_prob"]
    if found.value is not None:
        assert list(found.value.layers) == list(found.value.norms) == learner.layers["value"]


def test_a_diagnosis_survives_its_file(measured, tmp_path):
    _, _, found, _ = measured
    found.write(tmp_path)
    assert diagnoses.read(tmp_path) == found


@mostly_slow(
    "agent", {"steps": Reinforce(num_envs=4, num_steps=32), "episodes": Reinforce(num_envs=2, baseline="none")}
)
def test_diagnosing_changes_no_weight(agent):
    options = QUICK | {"total_timesteps": 256}
    plain, diagnosed = (rlgrad.train(agent, "CartPole-v1", diagnose=on, **options) for on in (False, True))
    for a, b in zip(plain.policy.get_weights(), diagnosed.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not [name for name in plain.history if name.startswith("gradient/")]
    assert plain.diagnosis is None


def test_the_history_the_csv_and_tensorboard_hold_the_diagnostics():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = rlgrad.train("reinforce", "CartPole-v1", num_envs=4, num_steps=32, diagnose=True, **QUICK)
    layers = ("hidden_1", "hidden_2", "output")
    learned = tuple(f"train/{name}" for name in run.learner.metrics)
    by_layer = tuple(
        f"gradient/{head}{kind}/{layer}" for head in ("", "value_") for kind in ("snr", "norm") for layer in layers
    )
    expected = METRICS + learned + DIAGNOSTICS + by_layer
    csv = read_csv(run.path / "metrics.csv")
    assert tuple(csv) == tuple(run.history) == run.metrics == expected
    assert np.isfinite(csv["gradient/noise"]).sum() == 6
    np.testing.assert_allclose(csv["gradient/snr/hidden_2"], run.history["gradient/snr/hidden_2"], rtol=1e-6)
    assert run.history["gradient/snr"][-1] == run.diagnosis.policy.snr
    assert run.diagnosis.timesteps == 640
    events = EventAccumulator(str(run.path)).Reload()
    scalars = [e.tensor_proto.float_val[0] for e in events.Tensors("gradient/noise")]
    np.testing.assert_allclose(scalars, run.history["gradient/noise"], rtol=1e-6)


def test_only_logged_rows_are_diagnosed_however_many_updates_there_are(monkeypatch):
    calls = []
    original = rlgrad.Learner.diagnose
    monkeypatch.setattr(rlgrad.Learner, "diagnose", lambda *a: calls.append(a[-1]) or original(*a))
    run = rlgrad.train(
        "reinforce", "CartPole-v1", num_envs=4, num_steps=1, diagnose=True, **QUICK | {"total_timesteps": 2048}
    )
    assert run.updates == 512
    assert len(calls) == len(run.history["gradient/noise"]) == 256
    assert np.isfinite(run.history["gradient/noise"]).all()


@pytest.mark.slow
def test_a_resumed_run_goes_on_diagnosing_into_the_same_columns():
    run = rlgrad.train("reinforce", "CartPole-v1", num_envs=4, num_steps=32, diagnose=True, **QUICK)
    again = rlgrad.load(run.path, verbose=False).train(1536)
    csv = read_csv(run.path / "metrics.csv")
    assert tuple(csv) == again.metrics == run.metrics
    assert np.isfinite(csv["gradient/noise"]).sum() == 12
    assert diagnoses.read(run.path).timesteps == 1408


def test_a_diagnosis_that_does_not_fit_ends_diagnosing_and_not_training(monkeypatch, caplog):
    def too_large(*_):
        raise MemoryError("What 128 samples send through the layers would take 5 GB.")

    monkeypatch.setattr(rlgrad.Learner, "diagnose", too_large)
    run = rlgrad.train("reinforce", "CartPole-v1", num_envs=4, num_steps=32, diagnose=True, **QUICK)
    assert run.timesteps == 768
    assert [r.message for r in caplog.records if "5 GB" in r.message] == [
        "Training continues without diagnostics: What 128 samples send through the layers would take 5 GB."
    ]


def test_an_agent_that_trains_only_a_value_is_diagnosed_without_a_policy():
    class OnlyValue(rlgrad.Agent):
        num_envs: int = 2
        num_steps: int | None = 32

        def credit(self, batch, now):
            return {"value": batch.returns - now.value}

    run = rlgrad.train(OnlyValue(), "CartPole-v1", diagnose=True, **QUICK)
    assert run.diagnosis.policy is run.diagnosis.variances is None
    assert math.isfinite(run.diagnosis.value.noise)
    assert {r.name for r in inspection.rows(run.diagnosis)} >= {"value: noise scale", "SNR, value: output"}
