"""REINFORCE's options, on literal rollouts."""

import numpy as np
import pytest

import rlgrad
from rlgrad.agents import Reinforce
from rlgrad.agents.reinforce import leave_one_out
from rlgrad.updates import Ascent


def episodes():
    """Two episodes: rewards 1, 2 | 4."""
    rewards = np.array([[1.0, 4.0], [2.0, 0.0]], np.float32)
    ends = np.array([[0, 1], [1, 0]], bool)
    mask = np.array([[1.0, 1.0], [1.0, 0.0]], np.float32)
    none = np.zeros((2, 2), bool)
    return rlgrad.Rollout(mask, mask, rewards, ends, none, mask, mask, mask, None, None)


def test_reward_to_go_without_a_baseline():
    estimates = Reinforce(gamma=0.5, baseline="none").estimate(episodes())
    np.testing.assert_allclose(estimates.advantages[0], [2.0, 4.0])  # 1 + 0.5·2; 4
    np.testing.assert_allclose(estimates.advantages[1, 0], 2.0)


def test_leave_one_out_takes_off_the_mean_of_the_other_episodes_still_running():
    returns = np.array([[2.0, 4.0, 9.0], [1.0, 5.0, 0.0], [3.0, 0.0, 0.0]], np.float32)
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)
    # t=0: means of the two others. t=1: each other's. t=2: nobody else is left.
    np.testing.assert_allclose(leave_one_out(returns, mask)[0], [6.5, 5.5, 3.0])
    np.testing.assert_allclose(leave_one_out(returns, mask)[1, :2], [5.0, 1.0])
    np.testing.assert_allclose(leave_one_out(returns, mask)[2, 0], 0.0)


def test_the_power_of_gamma_is_an_option():
    estimates = Reinforce(gamma=0.5, baseline="none", discount_from_start=True).estimate(episodes())
    np.testing.assert_allclose(estimates.advantages[:, 0], [2.0, 1.0])


def test_the_value_baseline_takes_off_the_value():
    rollout = episodes()._replace(values=np.full((2, 2), 0.5, np.float32), next_values=np.zeros((2, 2), np.float32))
    np.testing.assert_allclose(Reinforce(gamma=0.5).estimate(rollout).advantages[0], [1.5, 3.5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gae_lambda": 0.9}, "Monte-Carlo"),
        ({"baseline": "none", "num_steps": 5}, "needs whole episodes"),
        ({"discount_from_start": True, "num_steps": 5}, "set num_steps to None"),
        ({"baseline": "leave_one_out", "num_envs": 1}, "at least 2"),
        ({"update": Ascent(num_epochs=2)}, "takes one step"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Reinforce(**options)


def test_every_variance_reduction_can_be_switched_off():
    options = {
        "baseline": "none",
        "standardize_advantages": False,
        "entropy_coefficient": 0.0,
        "discount_from_start": False,
    }
    agent = Reinforce(gamma=1.0, **options)
    batch = rlgrad.Batch(*[np.ones(3, np.float32)] * len(rlgrad.Batch._fields))
    credit = agent.credit(batch, None)
    assert list(credit) == ["log_prob"]
    np.testing.assert_array_equal(credit["log_prob"], batch.advantages)
