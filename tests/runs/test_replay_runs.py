"""Runs of agents that learn action values: resumed to the bit, evaluated, copied, exported, in every kind of environment."""

import copy
import dataclasses

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.killing import left
from helpers.killing_replays import KINDS, kill_once_logged, train
from helpers.photographs import Photograph
from helpers.scripted import TreeEnv
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.agents import C51, DQN, PQN, QRDQN
from rlgrad.policies.actions import ActionValues
from rlgrad.replay import Exploration, Linear, Replay, Target
from rlgrad.updates import Ascent

SMALL = Replay(capacity=200, batch_size=8, warmup=20, updates_per_step=0.25)
SETTINGS = {"num_envs": 2, "num_steps": 5, "replay": SMALL, "target": Target(rate=1.0, every=5)}
QUICK = {"hidden_sizes": (4,), "evaluation_episodes": 0, "verbose": False, "vectorization_mode": "sync"}


def resumed(folder):
    run = rlgrad.load(folder, verbose=False)
    assert 0 < run.timesteps < 1600
    return run.train()


@mostly_slow("kind", KINDS, quick=["prioritized", "normalized"])
def test_a_run_that_is_resumed_from_its_middle_ends_as_if_it_had_gone_on(kind, tmp_path):
    """Its replay, priorities, target weights and counters are in the checkpoint: rows and checkpoints agree to the bit."""
    whole = train(kind, tmp_path / "whole", [Photograph(tmp_path / "middle", 25)])
    resumed(tmp_path / "middle")
    for mine, theirs in zip(left(tmp_path / "middle"), left(whole.path), strict=True):
        assert mine == theirs


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(kind, tmp_path):
    assert kill_once_logged(20, kind, tmp_path / "run")
    resumed(tmp_path / "run")
    whole = train(kind, tmp_path / "whole")
    for mine, theirs in zip(left(tmp_path / "run"), left(whole.path), strict=True):
        assert mine == theirs


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    ends = [
        rlgrad.train(
            DQN(**SETTINGS), "CartPole-v1", total_timesteps=60, seed=seed, run_dir=tmp_path / f"{i}", **QUICK
        ).policy.get_weights()
        for i, seed in enumerate((1, 1, 2))
    ]
    for a, b in zip(ends[0], ends[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert max(np.abs(a - b).max() for a, b in zip(ends[0], ends[2], strict=True)) > 1e-3


class Reward(gymnasium.Env):
    """One step an episode; of the actions 2, 3 and 4 it rewards 3 where the observation is above 0, and 2 where it is below."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(3, start=2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.x, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return self.x, float(action == (3 if self.x[0] > 0 else 2)), True, False, {}


LEARNERS = {
    "dqn": DQN(**SETTINGS, update=Ascent(learning_rate=0.02)),
    "prioritized": DQN(
        **SETTINGS | {"replay": Replay(capacity=200, batch_size=8, warmup=20, updates_per_step=0.25, prioritized=True)},
        dueling=True,
        update=Ascent(learning_rate=0.02),
    ),
    "quantiles": QRDQN(**SETTINGS, quantiles=4, update=Ascent(learning_rate=0.02)),
    "atoms": C51(**SETTINGS, atoms=5, support=(0.0, 1.0), update=Ascent(learning_rate=0.05)),
    "rollouts": PQN(num_envs=2, num_steps=10, update=Ascent(learning_rate=0.02, num_minibatches=2)),
}


@mostly_slow("agent", LEARNERS, quick=["dqn"])
def test_the_best_of_actions_counted_from_2_is_found_and_evaluated_without_random_ones(agent, tmp_path):
    """By chance a third of the reward. Half of the actions of training are random, so there is less than in evaluations."""
    agent = dataclasses.replace(agent, exploration=Exploration(random=0.5))
    run = rlgrad.train(
        agent, Reward, total_timesteps=2500, seed=3, run_dir=tmp_path / "run", **QUICK | {"hidden_sizes": (16,)}
    )
    assert run.evaluate(episodes=100).mean_return > 0.9
    assert run.evaluate(episodes=100, greedy=False).mean_return > 0.9  # its samples are its best actions
    assert np.mean(run.history["train/return"][-10:]) < 0.85
    actions = run.policy.act(np.linspace(-1, 1, 9, dtype=np.float32)[:, None])
    assert set(actions) == {2, 3}
    again = run.policy.act(np.linspace(-1, 1, 9, dtype=np.float32)[:, None], greedy=True)
    np.testing.assert_array_equal(actions, again)


class Picture(gymnasium.Env):
    """A bright column that the action moves; ends after six steps."""

    observation_space, action_space = spaces.Box(0, 255, (12, 12, 1), np.uint8), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.count = int(self.np_random.integers(12)), 0
        return self._seen(), {}

    def step(self, action):
        self.at, self.count = (self.at + 2 * int(action) - 1) % 12, self.count + 1
        return self._seen(), float(self.at > 5), False, self.count == 6, {}

    def _seen(self):
        picture = np.zeros((12, 12, 1), np.uint8)
        picture[:, self.at] = 200
        return picture


class Masked(gymnasium.Env):
    """Of four actions two are allowed, other ones at each step; an action that is not ends the world."""

    observation_space = spaces.Dict(observation=spaces.Box(-1, 1, (2,)), action_mask=spaces.MultiBinary(4))
    action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._seen(), {}

    def step(self, action):
        assert self.mask[action], "a forbidden action"
        self.count += 1
        return self._seen(), 1.0, self.count == 5, False, {}

    def _seen(self):
        self.mask = self.np_random.permutation(np.array([1, 1, 0, 0], np.int8))
        return {"observation": np.full(2, self.count / 5, np.float32), "action_mask": self.mask}


@pytest.mark.parametrize("env", [TreeEnv, Picture, Masked])
@mostly_slow("kind", {"dqn": {}, "dueling": {"dueling": True}}, quick=["dueling"])
def test_trees_pictures_and_masks_are_learned_from(env, kind, tmp_path):
    agent = DQN(**SETTINGS, **kind, exploration=Exploration(random=0.5))
    run = rlgrad.train(agent, env, total_timesteps=60, run_dir=tmp_path / "run", **QUICK)
    ring = run.learner.rehearsal.ring
    assert int(ring.steps) == 60
    dtypes = [v.dtype for v in ring.variables]
    assert (tf.uint8 in dtypes) if env is not Masked else (tf.int8 in dtypes)
    assert int(run.learner.rehearsal.variables[0]) == 10  # a quarter of the steps after the 20 of the warm-up
    assert np.isfinite(run.history["train/q_mean"][-1])
    run.evaluate(episodes=2)


def test_steps_of_a_vectorized_class_that_belong_to_no_episode_are_not_remembered(tmp_path):
    run = rlgrad.train(
        DQN(**SETTINGS), "CartPole-v1", total_timesteps=400, run_dir=tmp_path / "run",
        **QUICK | {"vectorization_mode": "vector_entry_point"},
    )  # fmt: skip
    assert int(run.learner.rehearsal.ring.steps) == run.timesteps
    drawn = run.learner.rehearsal.ring.draw(tf.constant([1, 2]), 300)
    there = np.abs(drawn.next_observations.numpy() - drawn.observations.numpy())
    assert (
        there[:, 2].max() < 0.12
    )  # the pole moves by less in a step, and from where an episode ends to a beginning by more


@pytest.mark.parametrize("env", ["CartPole-v1", "rlgrad/CartPole-v1"])
def test_random_actions_are_as_many_as_the_schedule_says_also_in_a_program(env, tmp_path):
    """All in the warm-up, then a share that falls from 0.9 to 0.1: the replay holds the probability of each action."""
    agent = DQN(
        num_envs=4,
        num_steps=25,
        replay=Replay(capacity=2000, batch_size=4, warmup=400, updates_per_step=0.01),
        exploration=Exploration(random=Linear(start=0.9, end=0.1, over=0.75)),
    )
    mode = "compiled" if env.startswith("rlgrad") else "sync"
    run = rlgrad.train(
        agent, env, total_timesteps=1600, seed=2, run_dir=tmp_path / "run", **QUICK | {"vectorization_mode": mode}
    )
    probabilities = np.exp(run.learner.rehearsal.ring.draw(tf.constant([1, 2]), 40_000).log_probs.numpy())
    near = lambda x: np.abs(probabilities - x) < 1e-5
    assert near(0.5).mean() == pytest.approx(400 / 1600, abs=0.01)
    shares = [agent.exploration.random.at(100 * rollout / 1600) for rollout in range(4, 16)]
    found = near(0.5)
    for share in sorted(set(shares)):
        best, other = near(1 - share / 2), near(share / 2)  # of two actions, each of which a random one may be
        assert (best | other).mean() == pytest.approx(100 * shares.count(share) / 1600, abs=0.01)
        steps = 100 * shares.count(share)
        assert abs(other.sum() / (best | other).sum() - share / 2) < 5 * np.sqrt(0.25 / steps)
        found |= best | other
    assert found.all()


def test_a_memory_is_trained_and_resumed(tmp_path):
    agent = PQN(num_envs=2, num_steps=8, update=Ascent(num_epochs=2, num_minibatches=2))
    options = {"memory": "gru", "memory_size": 3, "total_timesteps": 160}
    run = rlgrad.train(agent, "CartPole-v1", run_dir=tmp_path / "run", **QUICK, **options)
    assert np.isfinite(run.history["train/q_mean"]).all()
    again = rlgrad.load(tmp_path / "run", verbose=False)
    for mine, theirs in zip(again.policy.variables, run.policy.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert run.evaluate(episodes=2).mean_return == again.evaluate(episodes=2).mean_return


VECTOR = spaces.Box(-np.inf, np.inf, (3,))
MASKED = spaces.Dict(observation=VECTOR, action_mask=spaces.MultiBinary(4))
EXPORTED = {
    "values": (VECTOR, ActionValues()),
    "dueling": (VECTOR, ActionValues(dueling=True)),
    "quantiles": (VECTOR, ActionValues(5)),
    "atoms": (VECTOR, ActionValues(6, (-2.0, 3.0), dueling=True)),
    "masked values": (MASKED, ActionValues()),
    "masked atoms": (MASKED, ActionValues(6, (-2.0, 3.0))),
}


def policy_of(name):
    space, says = EXPORTED[name]
    policy = rlgrad.make_policy(
        space, spaces.Discrete(4, start=-1), action_values=says, hidden_sizes=(8,), normalize_observations=True, seed=1
    )
    rng = np.random.default_rng(0)
    for variable in policy.network.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return policy


def observations(name, count=300):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    if "masked" not in name:
        return x
    mask = (rng.random((count, 4)) < 0.4).astype(np.int8)
    mask[np.arange(count), rng.integers(4, size=count)] = 1
    return {"observation": x, "action_mask": mask}


@mostly_slow("name", [name for name in EXPORTED if "masked" not in name], quick=["dueling"])
@pytest.mark.parametrize("file", ["policy.keras", "policy.tflite"])
def test_an_exported_policy_takes_its_actions(name, file, tmp_path):
    assert_exported(name, tmp_path / file)


def test_an_exported_policy_of_masked_values_takes_allowed_actions(tmp_path):
    assert_exported("masked values", tmp_path / "policy.keras")


def test_an_exported_policy_of_masked_atoms_takes_allowed_actions(tmp_path):
    assert_exported("masked atoms", tmp_path / "policy.keras")


def assert_exported(name, path):
    from rlgrad.exporting.standalone import model_inputs

    policy, x = policy_of(name), observations(name)
    policy.normalize(policy.inputs(_as_rollout(x)), tf.ones(300))
    if path.suffix == ".tflite":
        pytest.importorskip("ai_edge_litert")
    rlgrad.export(policy, path)
    inputs = model_inputs(policy, x)
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        said = Interpreter(str(path)).get_signature_runner("serving_default")(**inputs)
    else:
        said = keras.saving.load_model(path, safe_mode=True)(inputs)
    actions = np.asarray(said["action"])
    np.testing.assert_array_equal(actions, policy.act(x, greedy=True))
    assert len(np.unique(actions)) > 1
    if "masked" in name:
        assert x["action_mask"][np.arange(300), actions + 1].all()


def _as_rollout(x):
    filled = dict.fromkeys(rlgrad.Rollout._fields)
    return rlgrad.Rollout(**filled | {"observations": tf.nest.map_structure(lambda y: tf.constant(y[None]), x)})


@pytest.mark.parametrize("name", ["dueling", "atoms"])
def test_a_copy_acts_alike_and_stays_as_it_was(name):
    policy, x = policy_of(name), observations(name)
    copied, before = copy.deepcopy(policy), policy.act(x)
    np.testing.assert_array_equal(copied.act(x), before)
    for variable in policy.network.trainable_variables:
        variable.assign(-variable)
    assert (policy.act(x) != before).any()
    np.testing.assert_array_equal(copied.act(x), before)
    assert copied.distribution == policy.distribution
