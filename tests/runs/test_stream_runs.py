"""Runs of streaming agents: resumed to the bit, compiled, masked, in environments that reset late, exported."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.killing import left
from helpers.photographs import Photograph
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.agents import StreamAC, StreamQ, StreamSARSA
from rlgrad.replay import Exploration, Linear
from rlgrad.updates import Traces

QUICK = {
    "hidden_sizes": (4,),
    "layer_norm": True,
    "fixed_layer_norm": True,
    "sparsity": 0.5,
    "activation": "leaky_relu(0.01)",
    "evaluation_episodes": 0,
    "verbose": False,
    "vectorization_mode": "sync",
}
HALF = Exploration(random=Linear(start=1.0, end=0.2, over=0.5))
AGENTS = {
    "sarsa": StreamSARSA(exploration=HALF),
    "q": StreamQ(exploration=HALF, update=Traces(step="adaptive_obgd")),
    "ac": StreamAC(num_envs=2),
}


@mostly_slow("agent", AGENTS)
def test_a_run_that_is_resumed_from_its_middle_ends_as_if_it_had_gone_on(agent, tmp_path):
    """Traces, statistics and what was decided are in the checkpoint, in the middle of an episode: all agree to the bit."""
    photograph = Photograph(tmp_path / "middle", 100)
    settings = QUICK | {"total_timesteps": 400, "seed": 1}
    whole = rlgrad.train(agent, "CartPole-v1", run_dir=tmp_path / "whole", callbacks=photograph, **settings)
    run = rlgrad.load(tmp_path / "middle", verbose=False)
    assert 0 < run.timesteps < 400
    assert any(slot.numpy().any() for slot in run.learner.state.slots), "an episode was running, with a trace"
    run.train()
    for mine, theirs in zip(left(tmp_path / "middle"), left(whole.path), strict=True):
        assert mine == theirs


@mostly_slow("agent", AGENTS)
def test_a_stream_in_a_compiled_environment_is_one_program_and_learns_the_same_numbers_as_two(agent, tmp_path):
    """Fused, or a call to play and a call to learn: the same seeds give the same run to rounding."""
    env, steps = "rlgrad/CartPole-v1", 60
    run = rlgrad.train(
        agent, env, total_timesteps=steps * agent.num_envs, seed=2, run_dir=tmp_path / "run",
        **QUICK | {"vectorization_mode": "compiled"},
    )  # fmt: skip
    assert run.timesteps == steps * agent.num_envs
    collector = rlgrad.CompiledCollector(run.collector.functional, num_envs=agent.num_envs, num_steps=1, seed=2)
    values = agent.action_values if not isinstance(agent, StreamAC) else None
    options = {
        name: QUICK[name] for name in ("hidden_sizes", "layer_norm", "fixed_layer_norm", "sparsity", "activation")
    }
    policy = rlgrad.make_policy(
        collector.observation_space, collector.action_space, action_values=values, normalize_observations=True,
        value=values is None, seed=2, **options,
    )  # fmt: skip
    learner = rlgrad.Learner(agent, policy, num_envs=agent.num_envs)
    shuffles = rlgrad.random.Seeds(rlgrad.random.stream(2, "shuffle"))
    for update in range(steps):
        taken = update * agent.num_envs
        progress = taken / (steps * agent.num_envs)
        learner.stream.count_first(collector.slots(policy).observations)
        learner.learn(collector.collect(learner.acting(progress, taken)), progress, shuffles(update, 1)[0])
    for mine, theirs in zip(policy.variables, run.policy.variables, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-4)


def test_the_first_observation_of_each_episode_counts_before_it_is_acted_on(tmp_path):
    """One count for each step's successor and one for each episode's beginning, the one that begins last included."""
    run = rlgrad.train(StreamAC(), "CartPole-v1", total_timesteps=120, run_dir=tmp_path / "run", **QUICK)
    (normalizer,) = run.policy.preparation.normalizers
    begun = run.collector.state()["episodes"][0]
    assert float(normalizer.count.numpy()) == 120 + begun
    assert begun > 3


class Masked(gymnasium.Env):
    """Of four actions two are allowed, other ones at each step; an action that is not ends the world."""

    observation_space = spaces.Dict(observation=spaces.Box(-1, 1, (2,)), action_mask=spaces.MultiBinary(4))
    action_space = spaces.Discrete(4, start=3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._seen(), {}

    def step(self, action):
        assert self.mask[action - 3], "a forbidden action"
        self.count += 1
        return self._seen(), 1.0, self.count == 5, False, {}

    def _seen(self):
        self.mask = self.np_random.permutation(np.array([1, 1, 0, 0], np.int8))
        return {"observation": np.full(2, self.count / 5, np.float32), "action_mask": self.mask}


@mostly_slow("agent", AGENTS)
def test_masks_bind_the_actions_that_are_decided_ahead_too(agent, tmp_path):
    run = rlgrad.train(agent, Masked, total_timesteps=60, run_dir=tmp_path / "run", **QUICK)
    assert np.isfinite(run.history["train/td_error"]).all()


@mostly_slow("agent", AGENTS)
def test_a_stream_rests_where_a_step_only_resets(agent, tmp_path):
    """CartPole's own vector class resets in the step after an end, which counts for nothing and decides nothing."""
    run = rlgrad.train(
        agent, "CartPole-v1", total_timesteps=120, run_dir=tmp_path / "run", num_envs=2,
        **QUICK | {"vectorization_mode": "vector_entry_point"},
    )  # fmt: skip
    (normalizer,) = run.policy.preparation.normalizers
    episodes = run.history["train/episodes"][-1]
    first_ones = float(normalizer.count.numpy()) - run.timesteps
    assert episodes <= first_ones <= episodes + 2, (
        "each step's successor was counted once, and each episode's first observation"
    )


def test_continuous_actions_are_learned_from(tmp_path):
    run = rlgrad.train(StreamAC(), "Pendulum-v1", total_timesteps=30, run_dir=tmp_path / "run", **QUICK)
    assert run.history["train/bound_active"][-1] == 1.0
    assert run.policy.act(np.zeros(3, np.float32)).shape == (1,)


def test_sarsa_needs_choices():
    with pytest.raises(ValueError, match="not Discrete"):
        rlgrad.train(StreamSARSA(), "Pendulum-v1", total_timesteps=30, **QUICK)


def test_an_agent_that_decides_continuous_actions_ahead_is_refused():
    class Ahead(rlgrad.StreamAgent):
        decides_ahead = True

        def credit(self, batch, now):
            return {"log_prob": 1.0, "value": 1.0}

    policy = rlgrad.make_policy(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (1,)), hidden_sizes=(4,))
    with pytest.raises(ValueError, match="decides its actions ahead, and they are not Discrete"):
        rlgrad.Learner(Ahead(), policy, num_envs=1)


def test_an_exported_policy_needs_neither_sparse_weights_nor_rlgrad(tmp_path):
    run = rlgrad.train(StreamQ(), "CartPole-v1", total_timesteps=20, run_dir=tmp_path / "run", **QUICK)
    rlgrad.export(run.policy, tmp_path / "policy.keras")
    assert b"rlgrad" not in (tmp_path / "policy.keras").read_bytes()
    model = tf.keras.models.load_model(tmp_path / "policy.keras")
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    says = model(x)
    actions = says["action"] if isinstance(says, dict) else says
    np.testing.assert_array_equal(np.asarray(actions).ravel(), run.policy.act(x, greedy=True))
