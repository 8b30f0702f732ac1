"""A worker is light: it imports neither TensorFlow nor Keras, and acts without them. No test here needs Ray."""

import json
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from numpy.testing import assert_array_equal

import rlgrad
from rlgrad import distributions

PROGRAM = """
import json, sys, time
begun = time.process_time()
from rlgrad.distributed.worker import Order, Work, Worker
from rlgrad.rollouts.blocks import Block
imported = time.process_time() - begun
import pickle
with open(sys.argv[1], "rb") as file:
    policy = pickle.load(file)
work = Work("CartPole-v1", None, (), {"num_steps": 20, "seed": 1, "vectorization_mode": "sync"}, Block(2, 2, 8))
worker = Worker(pickle.dumps(work))
worker.ready()
played = worker.play(Order(policy, None, False), None)
memory = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
heavy = [name for name in ("tensorflow", "keras", "matplotlib", "ray", "tyro") if name in sys.modules]
print(json.dumps({
    "heavy": heavy, "seconds": imported, "actions": played.rollout.actions.tolist(),
    "megabytes": memory / 1024,
}))
"""


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    import pickle

    space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    policy = rlgrad.make_policy(space, spaces.Discrete(2), hidden_sizes=(64, 64))
    file = tmp_path_factory.mktemp("policy") / "policy.pickle"
    file.write_bytes(pickle.dumps(policy.in_numpy()))
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file)], capture_output=True, text=True, check=True, timeout=120
    )
    return policy, json.loads(answer.stdout)


def test_a_worker_imports_no_tensorflow(light):
    assert light[1]["heavy"] == []


def test_a_worker_takes_little_memory_and_time(light):
    assert light[1]["megabytes"] < 120
    assert light[1]["seconds"] < 2


def test_a_worker_plays_what_the_same_slots_play_here(light):
    policy, found = light
    collector = rlgrad.GymCollector("CartPole-v1", num_envs=8, num_steps=20, seed=1, vectorization_mode="sync")
    assert_array_equal(collector.collect(policy).actions[:, 2:4], found["actions"])


def test_what_walks_over_all_that_a_model_reaches_does_not_walk_into_tensorflow():
    assert isinstance(distributions.categorical.tf, ModuleType)
    assert distributions.categorical.tf.Tensor is tf.Tensor


def test_every_distribution_acts_in_a_process_without_tensorflow():
    program = """
import sys
import numpy as np
from rlgrad import distributions as d
rng = np.random.default_rng(0)
logits = rng.normal(size=(3, 4)).astype(np.float32)
mean = {"mean": logits, "log_std": np.zeros((1, 4), np.float32)}
part = d.Part(("a",), d.Categorical(4), (4,), (), np.int64)
noisy = d.StateDependentNoise(-np.ones(4, np.float32), np.ones(4, np.float32), hold=2)
both = d.Joint((part, d.Part(("b",), d.DiagonalGaussian(-1.0, 1.0), (4,), (4,), np.float32)), (((), dict),))
cases = [
    (d.Categorical(4), logits), (d.Bernoulli(), logits), (d.MultiCategorical((1, 3)), logits), (d.Greedy(4), logits),
    (d.DiagonalGaussian(-1.0, 1.0), mean), (d.DiagonalGaussian(-1.0, 1.0, squash=True), mean),
    (d.Deterministic(-1.0, 1.0, deviation=0.1), logits), (d.Exploring(d.Greedy(4), 0.5), logits),
    (d.Decided(d.Greedy(4), np.array([0, -1, 2])), logits),
    (noisy, noisy.assemble(np.concatenate([logits, logits], 1), np.zeros((1, 4, 4), np.float32))),
    (both, {"heads": np.concatenate([logits, logits], 1), "log_std": np.zeros((3, 4), np.float32)}),
]
for distribution, parameters in cases:
    actions = distribution.pick(parameters, distribution.noise(parameters, rng, 2)[1])
    assert np.isfinite(distribution.numpy_log_prob(parameters, actions)).all(), distribution
    distribution.mode(parameters), distribution.to_environment(actions)
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
print(sorted({type(distribution).__name__ for distribution, _ in cases}))
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    known = set(distributions.__all__) - {"Distribution", "Part"}
    assert known == set(eval(answer.stdout))


def test_without_ray_a_run_with_workers_is_refused_before_its_folder_is_made(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'rlgrad\[ray\]'"):
        rlgrad.train("ppo", "CartPole-v1", total_timesteps=1_000, workers=2, run_dir=tmp_path / "run", verbose=False)
    assert not (tmp_path / "run").exists()
