"""What critics say of each step beside what the steps of fresh episodes return."""

import math

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

import rlgrad
from rlgrad.agents import DQN, PPO, SAC
from rlgrad.cli.commands import inspect
from rlgrad.replay import Replay
from rlgrad.runs.q_bias import QBias, bias_rows, episode_returns

SMALL = Replay(capacity=64, batch_size=8, warmup=8)
QUICK = {"hidden_sizes": (4,), "evaluation_episodes": 0, "verbose": False, "vectorization_mode": "sync"}


class Counting(gymnasium.Env):
    """Pays 1 at each step, and ends by itself after 4, or is cut after 3."""

    observation_space = gymnasium.spaces.Box(0, 9, (1,))

    def __init__(self, cut=False, box=False):
        self.cut = cut
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,)) if box else gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.float32([self.t]), 1.0, not self.cut and self.t == 4, self.cut and self.t == 3, {}


def test_returns_are_discounted_and_cut_episodes_go_on_with_what_is_said():
    rewards = np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0], [9.0, 0.0]])
    mask = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    terminations = np.array([[0, 0], [0, 0], [0, 0], [1, 0]], bool)
    q = np.full((4, 2), 7.0)
    bonus = np.array([[100.0, 100.0], [10.0, 10.0], [0.0, 0.0], [0.0, 0.0]])
    returns, counts = episode_returns(rewards, q, bonus, terminations, mask, 0.5)
    np.testing.assert_allclose(returns[:, 0], [1 + 0.5 * (10 + 2 + 0.5 * 8.5), 2 + 0.5 * 8.5, 4 + 0.5 * 9, 9])
    np.testing.assert_allclose(returns[:3, 1], [1 + 0.5 * (10 + 5.5), 2 + 0.5 * 7, 7])
    assert counts.T.tolist() == [[True] * 4, [True, True, False, False]]


@pytest.mark.parametrize(
    ("said", "returned", "says"),
    [
        (3.0, 2.0, "50 % of the mean return: the critics say too much"),
        (-3.0, -2.0, "50 % of the mean return: the critics say too little"),
        (1.5, 2.0, "25 % of the mean return: the critics say too little"),
        (2.0, 0.0, "The return is 0: the critics say too much"),
    ],
)
def test_a_bias_is_told_with_its_direction_and_its_share_of_the_return(said, returned, says):
    rows = bias_rows(QBias(said, returned, said - returned, 0.5, episodes=2, steps=9))
    assert [row.name for row in rows] == ["q: said", "q: returned", "q: bias"]
    assert rows[0].meaning == "Mean over 9 steps of 2 episodes played now."
    assert rows[2].meaning == f"{says}. Its deviation is 0.5."


def run_of(agent, tmp_path, **env):
    return rlgrad.train(agent, lambda: Counting(**env), total_timesteps=24, run_dir=tmp_path / "run", **QUICK)


def test_a_network_that_says_the_same_everywhere_is_compared_with_the_true_returns(tmp_path):
    run = run_of(DQN(replay=SMALL, gamma=0.5), tmp_path)
    for variable in run.policy.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    run.policy.trainable_variables[-1].assign(np.full(2, 3.0, np.float32))  # the bias of the last layer
    found = run.q_bias(2)
    returns = np.array([1.875, 1.75, 1.5, 1.0])
    assert (found.episodes, found.steps) == (2, 8)
    assert found.said == pytest.approx(3.0)
    assert found.returned == pytest.approx(returns.mean())
    assert found.bias == pytest.approx(3.0 - returns.mean())
    assert found.spread == pytest.approx((3.0 - returns).std())
    assert found.relative == pytest.approx((3.0 - returns.mean()) / returns.mean())
    run.close()


def test_entropy_counts_as_reward_where_a_temperature_is_learned(tmp_path):
    agent = SAC(replay=SMALL, gamma=0.5, num_steps=1)
    run = run_of(agent, tmp_path, box=True)
    run.policy.scalars["log_alpha"].assign(-math.inf)
    without = run.q_bias(1, seed=3)
    assert without.returned == pytest.approx(np.mean([1.875, 1.75, 1.5, 1.0]))
    run.policy.scalars["log_alpha"].assign(0.0)
    with_entropy = run.q_bias(1, seed=3)
    assert with_entropy.said == without.said
    assert with_entropy.returned != pytest.approx(without.returned, abs=1e-3)
    run.close()


def test_episodes_that_a_limit_cuts_compare_all_steps_but_the_last(tmp_path):
    run = run_of(DQN(replay=SMALL, gamma=0.5), tmp_path, cut=True)
    for variable in run.policy.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    found = run.q_bias(1)
    assert found.steps == 2
    assert found.returned == pytest.approx(np.mean([1.5, 1.0]))
    run.close()


def test_agents_without_q_are_refused(tmp_path):
    agent = PPO(num_envs=1, num_steps=8, update=rlgrad.Ascent())
    run = run_of(agent, tmp_path)
    with pytest.raises(NotImplementedError, match="PPO credits no q"):
        run.q_bias(1)
    run.close()


def test_inspect_tells_it_of_a_run_with_a_replay(tmp_path):
    rlgrad.train(DQN(replay=SMALL), "CartPole-v1", total_timesteps=32, run_dir=tmp_path / "run", **QUICK)
    result = inspect.run([str(tmp_path / "run"), "--episodes", "2"])
    text = "\n".join(map(str, result.parts)) if hasattr(result, "parts") else repr(result)
    assert "q: bias" in text
    rows = bias_rows(QBias(said=3.0, returned=2.0, bias=1.0, spread=0.5, episodes=2, steps=9))
    assert [row.value for row in rows] == ["3", "2", "1"]
    assert rows[-1].meaning == "50 % of the mean return: the critics say too much. Its deviation is 0.5."
