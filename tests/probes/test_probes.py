"""Every batch agent on every probe."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from helpers.probes import Constant, Cut, Delayed, Endless, Forbidden, Identity, Recall

import rlgrad
from rlgrad.agents import A2C, NPG, PPO, TRPO, Reinforce
from rlgrad.updates import Ascent, NaturalGradient, PerHead, TrustRegion

VALUE = Ascent(learning_rate=3e-3, num_epochs=4, num_minibatches=2)
FAST = Ascent(learning_rate=3e-3)
AGENTS = {
    "reinforce": Reinforce(num_steps=32, standardize_advantages=True, update=PerHead(policy=FAST, value=VALUE)),
    "a2c": A2C(num_steps=32, standardize_advantages=True, update=PerHead(policy=FAST, value=VALUE)),
    "ppo": PPO(num_steps=32, update=Ascent(learning_rate=1e-3, num_epochs=4, num_minibatches=4)),
    "npg": NPG(num_steps=32, update=PerHead(policy=NaturalGradient(target_kl=0.02, damping=0.1), value=VALUE)),
    "trpo": TRPO(num_steps=32, update=PerHead(policy=TrustRegion(target_kl=0.05, damping=0.01), value=VALUE)),
}
SPACES = {
    "discrete": spaces.Discrete(4, start=3),
    "multi_discrete": spaces.MultiDiscrete([3, 4], start=[1, 0]),
    "multi_discrete_2d": spaces.MultiDiscrete([[2, 3], [3, 2]]),
    "multi_binary": spaces.MultiBinary(3),
    "box": spaces.Box(-1.0, 1.0, (2,)),
    "integers": spaces.Box(-3, 3, (2,), np.int32),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,)),
    "tuple": spaces.Tuple((spaces.Discrete(3), spaces.Box(-1.0, 1.0, (1,)))),
    "dict": spaces.Dict(a=spaces.MultiBinary(2), b=spaces.Tuple((spaces.Discrete(2), spaces.Box(-1.0, 1.0, ())))),
}
every_agent = pytest.mark.parametrize("agent", AGENTS.values(), ids=AGENTS)


def trained(agent, make, steps, tmp_path, **options):
    return rlgrad.train(
        agent, make, total_timesteps=steps, run_dir=tmp_path / "run", evaluation_episodes=0, verbose=False, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("agent", AGENTS)
def test_the_action_is_what_the_observation_asks_for(agent, space, tmp_path):
    run = trained(
        AGENTS[agent], lambda: Identity(SPACES[space]), 24_000, tmp_path, max_episode_steps=1, initial_log_std=-0.5
    )
    assert run.evaluate(20).mean_return > 0.93, run.evaluate(20).mean_return


@pytest.mark.slow
@every_agent
def test_what_pays_is_done(agent, tmp_path):
    assert trained(agent, Constant, 8_000, tmp_path, num_envs=1, max_episode_steps=1).evaluate(5).mean_return == 1.0


@pytest.mark.slow
@every_agent
def test_a_reward_counts_for_what_led_to_it(agent, tmp_path):
    assert trained(agent, Delayed, 16_000, tmp_path, num_envs=1, max_episode_steps=3).evaluate(5).mean_return == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in AGENTS if name != "reinforce"])
def test_a_time_limit_is_not_the_end_of_the_task(name, tmp_path):
    import dataclasses

    agent = dataclasses.replace(AGENTS[name], gamma=0.9, gae_lambda=0.9)
    run = trained(agent, lambda: gymnasium.wrappers.TimeLimit(Endless(), 5), 24_000, tmp_path)
    value = float(run.policy.value(np.zeros((1, 1), np.float32))[0])
    assert 9.0 < value < 11.0, value  # 1 / (1 − 0.9); without the bootstrap it would be below 5


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["gru", "lstm"])
@pytest.mark.parametrize("name", AGENTS)
def test_what_was_seen_first_is_remembered(name, memory, tmp_path):
    # A natural gradient of full steps goes too far once the policy is nearly sure: nothing checks its steps.
    careful = NaturalGradient(target_kl=0.02, target_kl_schedule="linear")
    agent = NPG(num_steps=32, update=PerHead(policy=careful, value=VALUE)) if name == "npg" else AGENTS[name]
    run = trained(agent, Recall, 96_000, tmp_path, max_episode_steps=4, memory=memory, memory_size=16)
    assert run.evaluate(40).mean_return == 1.0, run.evaluate(40).mean_return


@pytest.mark.slow
def test_without_memory_what_was_seen_first_is_guessed(tmp_path):
    assert trained(AGENTS["ppo"], Recall, 24_000, tmp_path, max_episode_steps=4).evaluate(100).mean_return < 0.7


@pytest.mark.slow
@every_agent
def test_what_is_forbidden_is_not_done_and_not_learned(agent, tmp_path):
    run = trained(agent, Forbidden, 16_000, tmp_path, num_envs=1, max_episode_steps=1)
    assert run.evaluate(20).mean_return > 0.85, run.evaluate(20).mean_return


@pytest.mark.slow
@every_agent
def test_a_cut_is_the_end_of_an_episode_and_not_of_the_task(agent, tmp_path):
    run = trained(agent, Cut, 24_000, tmp_path, num_envs=1, max_episode_steps=3)
    assert run.evaluate(5).mean_return == 2.0, run.evaluate(5).mean_return
