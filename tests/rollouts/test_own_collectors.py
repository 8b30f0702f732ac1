"""A collector of a user's own trains, is saved, resumed, evaluated and tuned like ours, and no file of ours names it."""

import sys

import numpy as np
import pytest
import yaml
from gymnasium import spaces
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.cli import main
from rlgrad.config import Config, from_mapping
from rlgrad.rollouts import Collector, Episode, Rollout
from rlgrad.rollouts.base import require_collector
from rlgrad.tuning import tune

QUICK = {"num_envs": 4, "num_steps": 8, "hidden_sizes": (8,), "seed": 3, "verbose": False, "evaluation_episodes": 8}
TOTAL = 320
MODULE = '''
import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlgrad.rollouts import Collector, Episode, Rollout

MADE = []


class Walks(Collector):
    """Walks on the integers, which end at 3 steps from the start; right pays 1. One number is kept in a TensorFlow variable."""

    reward_threshold = 2.5
    vectorization_mode = "walks"

    def __init__(self, env, *, num_envs, num_steps=None, episodes_per_env=None, seed=0, env_kwargs=None, **options):
        MADE.append({"env": env, "num_envs": num_envs, "seed": seed, **options})
        self.length = (env_kwargs or {}).get("length", 3)
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.num_envs = num_envs
        self.shape = (num_steps or self.length, num_envs * (episodes_per_env or 1))
        self._whole = num_steps is None
        self._generator = np.random.default_rng(seed)
        self._count = tf.Variable(0, dtype=tf.int64)
        self._steps = np.zeros(self.shape[1], np.int64)
        self._at = np.zeros((self.shape[1], 1), np.float32)
        self._returns = np.zeros(self.shape[1])
        self._finished = []

    def collect(self, policy, greedy=False, *, actor=None):
        act, distribution = actor or policy.actor(), policy.distribution
        if self._whole:
            self._steps[:], self._at[:], self._returns[:] = 0, 0, 0
        rows, columns = self.shape
        seen, final = np.zeros((2, rows, columns, 1), np.float32)
        actions, log_probs = np.zeros(self.shape, np.int64), np.zeros(self.shape, np.float32)
        rewards, ends = np.zeros(self.shape, np.float32), np.zeros(self.shape, bool)
        for t in range(rows):
            seen[t] = self._at + 0.1 * (int(self._count.numpy()) % 2)
            parameters = act(seen[t])
            picked = distribution.mode(parameters) if greedy else distribution.sample(parameters, self._generator)
            actions[t], log_probs[t] = picked
            rewards[t] = actions[t]
            self._at += 2 * actions[t][:, None] - 1
            self._returns += rewards[t]
            self._steps += 1
            final[t], ends[t] = self._at, self._steps == self.length
            over = np.flatnonzero(ends[t])
            self._finished += [Episode(float(self._returns[i]), self.length, True) for i in over]
            self._at[over], self._returns[over], self._steps[over] = 0, 0, 0
        self._count.assign_add(1)
        mask = np.ones(self.shape, np.float32)
        return Rollout(seen, actions, rewards, ends, np.zeros_like(ends), final, log_probs, mask)

    def drain_episodes(self):
        finished, self._finished = self._finished, []
        return finished

    def state(self):
        running = {"at": self._at.copy(), "returns": self._returns.copy(), "steps": self._steps.copy()}
        return {"generator": self._generator.bit_generator.state, "running": running}

    def restore(self, state):
        self._generator.bit_generator.state = state["generator"]
        self._at, self._returns, self._steps = (np.array(state["running"][k]) for k in ("at", "returns", "steps"))

    def variables(self, policy):
        return [self._count]
'''


class Bandits:
    """A collector that inherits from nothing: 1 for the action that is the sign of what is seen."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)
    reward_threshold = None
    vectorization_mode = "none"
    fusible = None

    def __init__(self, env, *, num_envs, num_steps, episodes_per_env, seed, **options):
        self.num_envs = num_envs
        self.shape = (num_steps or 1, num_envs * (episodes_per_env or 1))
        self.max_rollout_steps = self.shape[0] * self.shape[1]
        self.generator = np.random.default_rng(seed)
        self.finished, self.closed = [], 0

    def collect(self, policy, greedy=False, *, actor=None):
        seen = self.generator.normal(size=(*self.shape, 1)).astype(np.float32)
        act = actor or policy.actor()
        pick = policy.distribution.mode if greedy else lambda p: policy.distribution.sample(p, self.generator)
        actions, log_probs = (np.stack(x) for x in zip(*(pick(act(row)) for row in seen), strict=True))
        rewards = (actions == (seen[..., 0] > 0)).astype(np.float32)
        ends = np.ones(self.shape, bool)
        self.finished += [Episode(float(x), 1, True) for x in rewards.ravel()]
        return Rollout(seen, actions, rewards, ends, ~ends, seen, log_probs, ends.astype(np.float32))

    def outcomes(self, policy, greedy=False):
        self.collect(policy, greedy)
        return self.drain_episodes()

    def drain_episodes(self):
        finished, self.finished = self.finished, []
        return finished

    def begin_anew(self):
        pass

    def state(self):
        return {"generator": self.generator.bit_generator.state}

    def restore(self, state):
        self.generator.bit_generator.state = state["generator"]

    def variables(self, policy):
        return []

    def close(self):
        self.closed += 1


def weights(run):
    return [v.numpy() for v in run.policy.variables]


def assert_equal_weights(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A distribution outside of the tree, which brings a collector under a name of its own."""
    home = tmp_path / "site"
    metadata = home / "strolling-1.0.dist-info"
    metadata.mkdir(parents=True)
    (home / "strolling.py").write_text(MODULE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: strolling\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[rlgrad.collectors]\nwalks = strolling:Walks\n")
    monkeypatch.syspath_prepend(str(home))
    yield home
    sys.modules.pop("strolling", None)


def test_a_collector_of_another_package_trains_by_its_name_and_resumes_to_the_same_weights(package, tmp_path):
    whole = rlgrad.train(
        "a2c", "integers", collector="walks", total_timesteps=TOTAL, run_dir=tmp_path / "whole", **QUICK
    )
    half = rlgrad.train("a2c", "integers", collector="walks", total_timesteps=160, run_dir=tmp_path / "half", **QUICK)
    assert any((a != b).any() for a, b in zip(weights(whole), weights(half), strict=True))
    resumed = rlgrad.load(tmp_path / "half", verbose=False).train(TOTAL)
    assert_equal_weights(whole, resumed)
    assert resumed.history["train/return"][-1] == whole.history["train/return"][-1]
    assert resumed.episodes == whole.episodes > 0
    content = yaml.safe_load((whole.path / "config.yaml").read_text())
    assert content["collector"] == "walks"
    assert (content["resolved"]["vectorization_mode"], content["resolved"]["actor"]) == ("walks", "numpy")


def test_it_is_constructed_with_the_options_of_a_run_and_again_with_those_of_an_evaluation(package, tmp_path):
    options = {"max_episode_steps": 7, "wrappers": ("w",), "vectorization_mode": "async", "step_timeout": 2.0}
    run = rlgrad.train(
        "a2c", "integers", collector="walks", total_timesteps=32, run_dir=tmp_path / "run", **options, **QUICK
    )
    from strolling import MADE

    training, greedy, _ = MADE
    assert training == {"env": "integers", "num_envs": 4, "seed": 3, **options}
    assert (greedy["env"], greedy["num_envs"], greedy["max_episode_steps"]) == ("integers", 8, 7)
    assert greedy["seed"] not in (training["seed"], 0)
    evaluation = run.evaluate(6)
    assert evaluation.lengths.tolist() == [3] * 6
    np.testing.assert_array_equal(evaluation.returns, run.evaluate(6).returns)
    assert (run.path / "evaluation.json").is_file()


@mostly_slow("kind", ["class", "module", "file"], quick=["file"])
def test_a_class_is_kept_by_its_place(package, tmp_path, monkeypatch, kind):
    import strolling

    monkeypatch.chdir(package)
    collector = {"class": strolling.Walks, "module": "strolling:Walks", "file": "strolling.py:Walks"}[kind]
    whole = rlgrad.train(
        "a2c", "integers", collector=collector, total_timesteps=TOTAL, run_dir=tmp_path / "whole", **QUICK
    )
    rlgrad.train("a2c", "integers", collector=collector, total_timesteps=160, run_dir=tmp_path / "half", **QUICK)
    monkeypatch.chdir(tmp_path)
    assert_equal_weights(whole, rlgrad.load(tmp_path / "half", verbose=False).train(TOTAL))
    place = f"{package / 'strolling.py'}:Walks"
    kept = yaml.safe_load((whole.path / "config.yaml").read_text())["collector"]
    assert kept == {"class": "walks", "module": "strolling:Walks", "file": place}[kind]


def test_a_class_that_inherits_from_nothing_trains_and_resumes(tmp_path):
    options = {**QUICK, "num_envs": 16}
    whole = rlgrad.train(
        "a2c", "bandits", collector=Bandits, total_timesteps=12_800, run_dir=tmp_path / "whole", **options
    )
    assert whole.evaluate(100).mean_return > 0.9
    half = rlgrad.train(
        "a2c", "bandits", collector=Bandits, total_timesteps=6_400, run_dir=tmp_path / "half", **options
    )
    half.close()
    assert half.collector.closed == 1
    assert_equal_weights(whole, rlgrad.load(half.path, collector=Bandits, verbose=False).train(12_800))


@pytest.mark.slow
def test_it_is_tuned(package, tmp_path):
    config = Config(
        agent=rlgrad.agents.A2C(num_envs=4, num_steps=8),
        env="integers",
        collector="walks",
        total_timesteps=64,
        hidden_sizes=(4,),
        evaluation_episodes=0,
        logs=("csv",),
    )
    study = tune(config, tmp_path / "study", trials=2, pruner="none")
    best = yaml.safe_load(study.config.read_text())
    assert from_mapping(best).collector == "walks"
    assert study.best.value <= 3


@pytest.mark.slow
def test_the_command_line_takes_it_and_repeats_it(package, tmp_path, capsys):
    arguments = ["--collector", "walks", "--total-timesteps", "64", "--evaluation-episodes", "2"]
    assert main(["train", "a2c", "integers", *arguments, "--run-dir", str(tmp_path / "a")]) == 0
    assert main(["train", "--from", str(tmp_path / "a"), "--run-dir", str(tmp_path / "b")]) == 0
    capsys.readouterr()
    one, other = (rlgrad.load(tmp_path / name, verbose=False) for name in "ab")
    assert_equal_weights(one, other)


def test_a_run_folder_does_not_execute_a_collector_of_its_own(package, tmp_path):
    rlgrad.train("a2c", "integers", collector="walks", total_timesteps=32, run_dir=tmp_path / "run", **QUICK)
    file = tmp_path / "run" / "config.yaml"
    (tmp_path / "run" / "evil.py").write_text("raise SystemExit('executed')")
    text = file.read_text()
    for place in (f"{tmp_path / 'run' / 'evil.py'}:Walks", "evil.py:Walks"):
        file.write_text(text.replace("collector: walks", f"collector: {place}"))
        with pytest.raises(ValueError, match=r"evil\.py"):
            rlgrad.load(tmp_path / "run", verbose=False)


def test_what_is_missing_or_unknown_is_said(tmp_path):
    class Half:
        observation_space, action_space, num_envs = Bandits.observation_space, Bandits.action_space, 4

    with pytest.raises(
        TypeError, match=r"Half has no shape.*collect.*inherit defaults from rlgrad\.rollouts\.Collector"
    ):
        require_collector(Half())

    class Nothing(Collector):
        def collect(self, policy, greedy=False, *, actor=None):
            raise NotImplementedError

    with pytest.raises(TypeError, match="Nothing has no observation_space, action_space, num_envs, shape: add them"):
        require_collector(Nothing())
    for collector, message in (("nonsense", "no collector 'nonsense'"), (3, "collector is auto, the name")):
        with pytest.raises(ValueError, match=message):
            rlgrad.train("a2c", "x", collector=collector, total_timesteps=32, run_dir=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_an_evaluation_of_rollouts_that_are_not_whole_episodes_is_refused():
    class Steps(Collector):
        observation_space, action_space, num_envs, shape = Bandits.observation_space, Bandits.action_space, 2, (3, 2)

        def collect(self, policy, greedy=False, *, actor=None):
            zeros, one = np.zeros(self.shape, np.float32), np.ones(self.shape, bool)
            ends = one if policy == "several" else ~one
            return Rollout(zeros, zeros, zeros, ends, ~one, zeros, zeros, one.astype(np.float32))

    for policy in ("several", "none"):
        with pytest.raises(ValueError, match="one whole episode for each slot, and Steps gave others"):
            Steps().outcomes(policy)
