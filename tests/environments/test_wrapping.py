"""Wrappers named in a config, and action masks wherever an environment gives them."""

import sys
from itertools import product

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.agents import PPO
from rlgrad.environments.wrapping import wrap_all, wrapper
from rlgrad.policies import make_policy
from rlgrad.rollouts import GymCollector


class Masked(gymnasium.Env):
    """Three steps; allowed is action `number of the step`, and after the last one none. Where the mask stands is a choice."""

    action_space = spaces.Discrete(4)

    def __init__(self, where="info", forbids_at=None):
        self.where, self.forbids_at = where, forbids_at
        number = spaces.Box(0.0, 3.0, (1,), np.float32)
        self.observation_space = number
        if where == "observation":
            self.observation_space = spaces.Dict(observation=number, action_mask=spaces.MultiBinary(4))

    def _give(self):
        mask = (np.arange(4) == self.time).astype(np.int8)
        if self.time in (self.forbids_at, 3):
            mask[:] = 0
        x = np.array([self.time], np.float32)
        if self.where == "observation":
            return {"observation": x, "action_mask": mask}, {}
        return x, {"action_mask": mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._give()

    def step(self, action):
        assert action == self.time, "a forbidden action"
        self.time += 1
        observation, info = self._give()
        return observation, 1.0, self.time == 3, False, info


def masked_collector(where, mode, **options):
    return GymCollector(lambda: Masked(where, **options), num_envs=2, num_steps=7, vectorization_mode=mode)


@mostly_slow(
    "mode, where",
    product(["sync", "async"], ["info", "observation"]),
    quick=[("sync", "info"), ("async", "observation")],
)
def test_a_mask_is_honoured_wherever_it_comes_from(where, mode):
    with masked_collector(where, mode) as collector:
        policy = make_policy(collector.observation_space, collector.action_space, seed=3)
        rollout = collector.collect(policy)
        np.testing.assert_array_equal(rollout.actions[:, 0], [0, 1, 2, 0, 1, 2, 0])
        np.testing.assert_allclose(rollout.log_probs, 0.0, atol=1e-6)  # one allowed action has probability 1
        np.testing.assert_array_equal(rollout.observations["action_mask"][:, 0].argmax(-1), [0, 1, 2, 0, 1, 2, 0])
        heads = policy(rollout.observations)
        np.testing.assert_allclose(policy.distribution.entropy(heads["policy"]), 0.0, atol=1e-6)


def test_the_masked_policy_acts_and_scores_alike_in_numpy_and_tensorflow():
    space = spaces.Dict(observation=spaces.Box(-1, 1, (3,)), action_mask=spaces.MultiBinary(4))
    policy = make_policy(space, spaces.Discrete(4))
    x = {"observation": np.ones((2, 3), np.float32), "action_mask": np.array([[1, 0, 1, 0], [0, 0, 0, 1]], np.int8)}
    np.testing.assert_allclose(policy.actor()(x), policy(x)["policy"], rtol=1e-5)
    score = rlgrad.gradients.gradient(policy, x, output=rlgrad.gradients.LogProb(np.array([2, 3])))
    forbidden = score["policy/output/bias"].numpy()[[1, 3]]
    np.testing.assert_array_equal(
        forbidden, 0.0
    )  # no gradient through what is not possible, nor through what is certain


def test_a_step_that_forbids_everything_names_the_slot():
    with masked_collector("info", "sync", forbids_at=1) as collector:
        policy = make_policy(collector.observation_space, collector.action_space)
        with pytest.raises(ValueError, match="slot 0 forbids every action before step 1"):
            collector.collect(policy)


def test_looking_for_a_mask_leaves_the_environments_that_are_played_alone():
    class Counted(Masked):
        closed = 0

        def close(self):
            self.closed += 1

    only = Counted("observation")
    made = [Counted("info"), Counted("info")]
    with GymCollector(lambda: only, num_envs=1, num_steps=2):
        assert only.closed == 0
    left = list(made)
    with GymCollector(lambda: left.pop(0), num_envs=1, num_steps=2) as collector:
        assert isinstance(collector.observation_space, spaces.Dict)
        assert [env.closed for env in made] == [0, 1]  # one is played, another was looked at

    class Unmasked(Masked):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0], {}

    alone = Unmasked("info")
    alone.close = lambda: pytest.fail("the one environment that there is was closed")
    made_of_one = GymCollector(lambda: alone, num_envs=1, num_steps=2)
    assert made_of_one.observation_space == alone.observation_space


def test_only_choices_can_be_masked():
    space = spaces.Dict(observation=spaces.Box(-1, 1, (3,)), action_mask=spaces.MultiBinary(2))
    with pytest.raises(ValueError, match="only Discrete and MultiDiscrete"):
        make_policy(space, spaces.Box(-1, 1, (2,)))
    with pytest.raises(ValueError, match=r"has shape \(2,\), and there are 3 actions"):
        make_policy(space, spaces.Discrete(3))


def test_training_and_evaluation_meet_the_same_mask(tmp_path):
    agent = PPO(num_envs=2, num_steps=8, update=rlgrad.Ascent(num_epochs=2))
    run = rlgrad.train(
        agent,
        Masked,
        total_timesteps=32,
        max_episode_steps=5,
        run_dir=tmp_path / "run",
        evaluation_episodes=3,
        verbose=False,
    )
    assert run.evaluate(3).mean_return == run.evaluate(3, greedy=False).mean_return == 3.0


def test_wrappers_are_applied_in_order_and_with_their_options():
    env = wrap_all(["TimeAwareObservation", "FrameStackObservation(stack_size=3)"])(gymnasium.make("CartPole-v1"))
    assert env.observation_space.shape == (3, 5)


def test_a_wrapper_of_ones_own_is_found_by_its_module():
    env = wrapper("gymnasium.wrappers:ClipReward(min_reward=-1.0, max_reward=0.5)")(gymnasium.make("CartPole-v1"))
    env.reset(seed=0)
    assert env.step(0)[1] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FrameStackObservations", "Did you mean 'FrameStackObservation'"),
        ("FrameStackObservation(3)", "keyword arguments"),
        ("FrameStackObservation(stack_size=open('x'))", "keyword arguments"),
        ("FrameStackObservation(size=3)", "cannot wrap"),
        ("FrameStackObservation(stack_size=0)", "cannot wrap .* stack_size"),
        ("no_such_module:Wrapper", "the module 'no_such_module', which cannot be imported"),
    ],
)
def test_a_wrapper_that_is_misspelt_is_refused_with_what_was_meant(text, message):
    with pytest.raises(ValueError, match=message):
        wrap_all([text])(gymnasium.make("CartPole-v1"))


def test_a_wrapper_whose_package_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"AtariPreprocessing' needs a package .* run `pip install"):
        wrap_all(["AtariPreprocessing"])(gymnasium.make("CartPole-v1"))


def test_wrappers_are_written_into_the_config_and_used_when_the_run_is_loaded(tmp_path):
    options = {"num_envs": 2, "num_steps": 8, "evaluation_episodes": 2, "verbose": False}
    run = rlgrad.train(
        "a2c", "CartPole-v1", total_timesteps=16, wrappers=["TimeAwareObservation"], run_dir=tmp_path / "run", **options
    )
    assert run.policy.observation_spec.shape[1:] == (5,)
    again = rlgrad.load(tmp_path / "run", verbose=False)
    assert again.config.wrappers == ("TimeAwareObservation",)
    assert again.collector.observation_space.shape == (5,)
