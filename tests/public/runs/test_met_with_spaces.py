"""What others met with in spaces: where actions are counted from, bounds, masks, the order of keys, kinds of numbers."""

import numpy as np
import pytest
from gymnasium import spaces
from helpers.counting import QUICK, Count

import rlgrad
from rlgrad.core.faults import EnvironmentFault


class Legal(Count):
    """Two of its four actions are legal at a time; it raises for others."""

    action_space = spaces.Discrete(4)

    def mask(self):
        return np.array([1, 1, 0, 0] if self.count % 2 else [0, 0, 1, 1], np.int8)

    def reset(self, **options):
        observation, _ = super().reset(**options)
        return observation, {"action_mask": self.mask()}

    def step(self, action):
        assert self.mask()[action], f"action {action} is not legal"
        *rest, _ = super().step(action)
        return *rest, {"action_mask": self.mask()}


def test_actions_begin_where_the_space_begins():
    """`start` of a Discrete space that has no effect: https://github.com/DLR-RM/stable-baselines3/issues/2052"""
    env = Count(ends=9)
    env.action_space = spaces.Discrete(3, start=-1)
    run = rlgrad.train("a2c", env, total_timesteps=100, **QUICK | {"num_envs": 1})
    assert set(map(int, env.taken)) == {-1, 0, 1}
    assert run.policy.act(np.zeros(1, np.float32)) in env.action_space


def test_actions_out_of_bounds_are_clipped_for_the_environment_and_kept_for_the_gradient():
    """Clipped actions in the environment, others in the buffer: https://github.com/DLR-RM/stable-baselines3/issues/1431"""
    env = Count(ends=9)
    env.action_space = spaces.Box(-0.1, 0.1, (1,), np.float32)
    collector = rlgrad.GymCollector(env, num_steps=50, seed=0)
    rollout = collector.collect(rlgrad.make_policy(collector.observation_space, collector.action_space, seed=0))
    assert np.abs(rollout.actions).max() > 0.5
    np.testing.assert_allclose(np.ravel(env.taken), np.clip(np.ravel(rollout.actions), -0.1, 0.1), rtol=1e-6)


def test_actions_may_be_squashed_into_bounds_that_are_not_symmetric():
    """Actions that ignore low and high: https://github.com/ray-project/ray/issues/2965"""
    env = Count(ends=9)
    env.action_space = spaces.Box(-2.0, 0.0, (1,), np.float32)
    rlgrad.train("a2c", env, total_timesteps=100, squash_actions=True, **QUICK | {"num_envs": 1})
    taken = np.ravel(env.taken)
    assert taken.min() > -2.0
    assert taken.max() < 0.0
    assert taken.std() > 0.1


def test_masked_actions_are_never_taken_in_training():
    """A few invalid actions in 350,000 steps: https://github.com/Stable-Baselines-Team/stable-baselines3-contrib/issues/200"""
    run = rlgrad.train("ppo", lambda: Legal(ends=7), total_timesteps=192, **QUICK | {"num_steps": 32})
    assert run.timesteps == 192  # the environment would have raised


def test_masked_actions_are_never_taken_once_trained():
    """Prediction without the mask: https://github.com/Stable-Baselines-Team/stable-baselines3-contrib/issues/212"""
    run = rlgrad.train("a2c", lambda: Legal(ends=7), total_timesteps=20, **QUICK)
    assert run.evaluate(episodes=5, greedy=False).lengths.tolist() == 5 * [7]
    masked = {"observation": np.zeros(1, np.float32), "action_mask": np.array([0, 1, 0, 0], np.int8)}
    assert {int(run.policy.act(masked)) for _ in range(20)} == {1}
    with pytest.raises(ValueError, match="action_mask"):
        run.policy.act(np.zeros(1, np.float32))


def test_the_order_of_an_observations_keys_does_not_matter():
    """Keys of a Dict space in another order: https://github.com/openai/gym/issues/3023"""
    parts = {"b": spaces.Box(-1, 1, (2,), np.float32), "a": spaces.Box(-1, 1, (1,), np.float32)}
    policy = rlgrad.make_policy(spaces.Dict(parts), spaces.Box(-1, 1, (2,)), seed=0)
    a, b = np.array([0.5], np.float32), np.array([-0.25, 0.75], np.float32)
    np.testing.assert_array_equal(policy.act({"a": a, "b": b}, greedy=True), policy.act({"b": b, "a": a}, greedy=True))
    assert not np.array_equal(policy.act({"a": a, "b": b}, greedy=True), policy.act({"a": -a, "b": b}, greedy=True))


def test_observations_in_float64_are_what_the_space_says():
    """A space of float32 with observations of float64: https://github.com/openai/gym/issues/2336"""

    class Double(Count):
        def observe(self):
            return np.array([self.count + 0.5], np.float64)

    collector = rlgrad.GymCollector(Double, num_envs=2, num_steps=5, seed=0)
    rollout = collector.collect(rlgrad.make_policy(collector.observation_space, collector.action_space, seed=0))
    assert rollout.observations.dtype == np.float32
    np.testing.assert_array_equal(rollout.observations[:, 0, 0], np.arange(5) + 0.5)


def test_an_observation_of_another_shape_is_blamed_on_the_environment():
    """14 numbers where the space says 6: https://github.com/hill-a/stable-baselines/issues/875"""

    class Wide(Count):
        def observe(self):
            return np.zeros(14, np.float32)

    with pytest.raises((ValueError, EnvironmentFault), match="14"):
        rlgrad.train("a2c", Wide, total_timesteps=40, **QUICK)


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_a_number_that_is_not_finite_is_told_with_its_step(what):
    """Rewards that turn NaN while training goes on: https://github.com/p-christ/Deep-Reinforcement-Learning-Algorithms-with-PyTorch/issues/8"""

    class Broken(Count):
        def observe(self):
            return np.array([np.nan if what == "observation" and self.count == 7 else self.count], np.float32)

    pay = (lambda count: np.nan if count == 7 else 1.0) if what == "reward" else 1.0
    with pytest.raises(FloatingPointError, match=f"(?s){what}.*step 6|step 6.*{what}|{what}.*6"):
        rlgrad.train("a2c", lambda: Broken(ends=9, pay=pay), total_timesteps=100, **QUICK)
