"""A run from its first step to its folder, and what it refuses."""

import gc
import json
import subprocess
import sys
from collections import Counter

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import yaml
from helpers.pictures import drawn
from helpers.quick import QUICK
from helpers.slow import mostly_slow

import rlgrad
from rlgrad import gradients
from rlgrad.agents import Reinforce
from rlgrad.metrics import METRICS

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with drawn():
        return rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path_factory.mktemp("runs") / "a", **QUICK)


def test_a_run_leaves_everything_it_promises(run):
    names = {p.name.split(".")[0] + p.suffix for p in run.path.iterdir()}
    assert {"config.yaml", "run.json", "metrics.csv", "checkpoints", "learning_curve.png", "evaluation.json"} <= names
    assert list(run.path.glob("events.out.tfevents.*"))
    assert list((run.path / "checkpoints").glob("*.npz"))
    assert (run.path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((run.path / "evaluation.json").read_text())
    kept = {"mean_return", "std_return", "episodes", "interval", "returns", "lengths"}
    assert set(results["greedy"]) == set(results["sampled"]) == kept
    assert results["reward_threshold"] == 475.0
    assert results["solved"] is (results["greedy"]["mean_return"] >= 475)


def test_the_config_says_what_was_resolved(run):
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["agent"]["name"] == "reinforce"
    assert (config["agent"]["num_envs"], config["agent"]["num_steps"]) == (4, 32)
    assert config["resolved"]["vectorization_mode"] == "sync"
    assert config["resolved"]["actor"] == "numpy"


def test_the_history_the_csv_and_tensorboard_hold_the_same_metrics(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from rlgrad.metrics import read_csv

    csv = read_csv(run.path / "metrics.csv")
    learned = tuple(f"train/{name}" for name in run.learner.metrics)
    assert "train/gradient_norm" in learned
    assert tuple(csv) == tuple(run.history) == METRICS + learned
    np.testing.assert_allclose(csv["train/entropy"], run.history["train/entropy"], rtol=1e-6)
    assert run.history["time/timesteps"][-1] == 1024
    events = EventAccumulator(str(run.path)).Reload()
    scalars = {e.step: e.tensor_proto.float_val[0] for e in events.Tensors("train/entropy")}
    np.testing.assert_allclose(list(scalars.values()), run.history["train/entropy"], rtol=1e-6)


def test_a_run_is_never_written_over(run):
    with pytest.raises(FileExistsError, match="never writes over another"):
        rlgrad.train("reinforce", "CartPole-v1", run_dir=run.path, **QUICK)


def test_the_default_folder_is_a_new_one_under_runs():
    first, second = (
        rlgrad.train("reinforce", "CartPole-v1", **QUICK | {"evaluation_episodes": 0, "total_timesteps": 128})
        for _ in range(2)
    )
    assert first.path.parent.name == second.path.parent.name == "runs"
    assert first.path != second.path


def test_the_same_seed_gives_the_same_weights_to_the_bit(run, tmp_path):
    again = rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path / "b", **QUICK)
    other = rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path / "c", seed=1, **QUICK)
    first, same, others = (
        np.concatenate([w.ravel() for w in each.policy.get_weights()]) for each in (run, again, other)
    )
    np.testing.assert_array_equal(first, same, err_msg="weights of two runs of one seed")
    assert np.abs(first - others).max() > 1e-3, "the largest difference to the weights of another seed"


@pytest.mark.slow
@pytest.mark.xla
def test_convolutions_are_trained_without_xla_on_a_cpu_and_to_the_bit_as_well(run):
    class Picture(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (10, 10, 4), np.uint8)
        action_space = gymnasium.spaces.Discrete(3)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self._observation(), {}

        def step(self, action):
            return self._observation(), float(action), False, False, {}

        def _observation(self):
            return self.np_random.integers(0, 256, (10, 10, 4), np.uint8)

    quick = QUICK | {"total_timesteps": 256, "evaluation_episodes": 0}
    first, second = (rlgrad.train("a2c", Picture, run_dir=name, **quick) for name in "ab")
    for one, other in zip(first.policy.variables, second.policy.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert first.learner.xla is bool(tf.config.list_physical_devices("GPU"))
    assert (run.policy.acts_in, first.policy.acts_in) == ("numpy", "xla" if first.learner.xla else "graph")


def test_sync_and_async_give_the_same_weights_to_the_bit(run, tmp_path):
    again = rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path / "b", **QUICK | {"vectorization_mode": "async"})
    again.close()
    for a, b in zip(run.policy.get_weights(), again.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"weights of shape {a.shape}, sync and async")


def test_a_loaded_run_acts_as_before_and_goes_on(tmp_path):
    original = rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path / "a", **QUICK)
    loaded = rlgrad.load(tmp_path / "a", verbose=False)
    observations = np.random.default_rng(0).normal(size=(20, 4))
    np.testing.assert_array_equal(
        original.policy.act(observations, greedy=True), loaded.policy.act(observations, greedy=True)
    )
    assert loaded.timesteps == 1024
    original.train(2048)
    loaded.train(2048)
    assert loaded.timesteps == 2048
    assert loaded.updates == original.updates == 16
    assert loaded.learner.state.optimizer.iterations.numpy() == 16
    # The one that was loaded took back what the other had written meanwhile, and knows what was written before.
    assert len((tmp_path / "a" / "metrics.csv").read_text().splitlines()) == 1 + 8 + 8
    assert loaded.history["time/timesteps"] == original.history["time/timesteps"]


def test_training_runs_through_the_public_primitive(tmp_path, monkeypatch):
    """Every gradient with its sign turned: the first step of plain ascent is the same one backwards."""
    original = gradients.Linearization.gradient
    turned = lambda self, credit=None: {k: -g for k, g in original(self, credit).items()}
    agent, ends = Reinforce(update=rlgrad.Ascent(optimizer="sgd", learning_rate=0.1)), []
    for name in ("as it is", "turned"):
        with monkeypatch.context() as patch:
            if name == "turned":
                patch.setattr(gradients.Linearization, "gradient", turned)
            options = QUICK | {"total_timesteps": 128, "evaluation_episodes": 0}  # one update
            run = rlgrad.train(agent, "CartPole-v1", run_dir=tmp_path / name, **options)
        ends.append(np.concatenate([w.ravel() for w in run.policy.get_weights()]))
    env = gymnasium.make("CartPole-v1")
    start = rlgrad.make_policy(env.observation_space, env.action_space, seed=0)
    middle = np.concatenate([w.ravel() for w in start.get_weights()])
    assert np.abs(ends[0] - middle).max() > 1e-3, "the step"
    np.testing.assert_allclose(ends[0] - middle, middle - ends[1], atol=1e-6, err_msg="the step and the one turned")


class StopAfter(rlgrad.Callback):
    """A callback of a user's."""

    def __init__(self, updates):
        self.updates, self.seen = updates, []

    def on_update(self, run, metrics):
        self.seen.append(metrics["time/updates"])
        run.stop = run.updates >= self.updates


def test_a_callback_can_stop_a_run(tmp_path):
    stop = StopAfter(3)
    run = rlgrad.train("reinforce", "CartPole-v1", callbacks=[stop], **QUICK)
    assert run.updates == 3
    assert stop.seen == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent": "reinforc"}, "Did you mean 'reinforce'"),
        ({"env": "CartPol-v1"}, "CartPole-v1"),
        ({"total_timesteps": 100}, "leaves no room for a rollout of 128 steps"),
        ({"total_timesteps": 0}, "total_timesteps is at least 1"),
        ({"seed": -1}, "integer ≥ 0"),
        ({"num_envs": 0}, "num_envs is at least 1"),
        ({"agent": Reinforce(baseline="none")}, "needs whole episodes"),
        ({"hidden_sizes": (0,)}, "hidden_sizes"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_training(options, message):
    settings = {"agent": "reinforce", "env": "CartPole-v1"} | QUICK | options
    with pytest.raises(ValueError, match=message):
        rlgrad.train(settings.pop("agent"), settings.pop("env"), **settings)


# Steps, settings, what the compiled program is called, and how many MiB memory may grow once a fifth is done.
LONG = {
    "a thousand updates": (
        64_000,
        "env='CartPole-v1', num_envs=4, num_steps=16, vectorization_mode='sync'",
        "learn",
        10,
    ),
    "ten million compiled steps": (10_000_000, "env='rlgrad/CartPole-v1', num_envs=64, num_steps=64", "program", 30),
}


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "settings", "program", "growth"), LONG.values(), ids=LONG)
def test_a_run_makes_one_trace_and_one_compilation_and_leaves_memory_flat(tmp_path, steps, settings, program, growth):
    code = f"""
import psutil, rlgrad
class Memory(rlgrad.Callback):
    sizes = []
    def on_update(self, run, metrics):
        self.sizes.append(psutil.Process().memory_info().rss)
memory = Memory()
run = rlgrad.train("reinforce", {settings}, total_timesteps={steps}, callbacks=[memory],
                   run_dir={str(tmp_path / "run")!r}, evaluation_episodes=0, verbose=False)
assert run.timesteps > {steps} * 0.99 and run.learner.traces == 1, (run.timesteps, run.learner.traces)
print((memory.sizes[-1] - memory.sizes[len(memory.sizes) // 5]) / 2**20)
"""
    dump = tmp_path / "xla"
    environment = {"XLA_FLAGS": f"--xla_dump_to={dump} --xla_dump_hlo_as_text", "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert float(result.stdout.split()[-1]) < growth
    assert len([p for p in dump.glob("*.before_optimizations.txt") if program in p.name]) == 1


@mostly_slow(
    "settings",
    {
        "gymnasium": {"env": "CartPole-v1"},
        "compiled": {"env": "rlgrad/CartPole-v1"},
        "memory": {"env": "CartPole-v1", "memory": "gru"},
    },
)
def test_a_run_takes_with_it_whatever_was_traced_for_it(settings):
    def graphs():
        gc.collect()
        return Counter(thing.name for thing in gc.get_objects() if type(thing).__name__.endswith("FuncGraph"))

    options = {"total_timesteps": 256, "num_envs": 2, "num_steps": 16, "evaluation_episodes": 0, "verbose": False}
    rlgrad.train("a2c", **settings, **options)  # what is traced once for the whole process is
    before = graphs()
    rlgrad.train("a2c", **settings, **options)
    assert graphs() <= before
