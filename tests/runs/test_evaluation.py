"""Fresh episodes at fixed weights: the same ones each time, and nothing of them is kept but what they came to."""

import tracemalloc

import gymnasium
import keras
import numpy as np
import pytest

import rlgrad
from rlgrad.core.faults import OutputFault
from rlgrad.runs.evaluation import evaluate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    quick = {"num_envs": 4, "evaluation_episodes": 0, "verbose": False, "vectorization_mode": "sync"}
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    return rlgrad.train("a2c", "CartPole-v1", total_timesteps=1024, run_dir=folder, **quick)


def test_large_observations_are_evaluated_in_as_many_slots_as_fit_into_memory_and_the_same_episodes(run, monkeypatch):
    monkeypatch.setattr(
        "rlgrad.runs.evaluation._MAX_BYTES", 2 * 4 * 4 + 1
    )  # two observations of CartPole, and not three
    evaluated = run.evaluate(episodes=5)
    streams = ("evaluation", "evaluation")
    options = {"streams": streams, "vectorization_mode": "sync"}
    with rlgrad.GymCollector("CartPole-v1", num_envs=2, episodes_per_env=3, **options) as collector:
        rollout = collector.collect(run.policy, greedy=True)
    np.testing.assert_array_equal(evaluated.returns, rollout.rewards.sum(axis=0)[:5])
    np.testing.assert_array_equal(evaluated.lengths, rollout.mask.sum(axis=0)[:5])
    monkeypatch.setattr("rlgrad.runs.evaluation._MAX_BYTES", 0)
    assert run.evaluate(episodes=1).episodes == 1


class LargePictures(gymnasium.Env):
    """A megabyte at each step; at step `broken` a number in it is not finite."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (512, 512))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, broken=-1):
        self._broken = broken

    def reset(self, *, seed=None, options=None):
        self._step = 0
        return np.zeros((512, 512), np.float32), {}

    def step(self, action):
        self._step += 1
        return np.full((512, 512), np.nan if self._step == self._broken else 0.5, np.float32), 1.0, False, False, {}


def pictures_policy():
    model = keras.Sequential([keras.Input((512, 512)), keras.layers.Reshape((-1,)), keras.layers.Dense(2)])
    space = LargePictures.observation_space, LargePictures.action_space
    return rlgrad.make_policy(*space, model=model, value=False, seed=0)


def test_evaluation_does_not_keep_what_it_sees():
    policy = pictures_policy()
    tracemalloc.start()
    evaluated = evaluate(policy, LargePictures, episodes=2, max_episode_steps=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert evaluated.returns.tolist() == [256.0, 256.0]
    assert evaluated.lengths.tolist() == [256, 256]
    assert peak < 100e6  # the observations of one episode alone are 256 MB


def test_an_observation_that_is_not_finite_ends_an_evaluation_and_names_slot_and_step():
    with pytest.raises(FloatingPointError, match="slot 0 gave a non-finite observation after step 2: "):
        evaluate(pictures_policy(), lambda: LargePictures(broken=3), episodes=1, max_episode_steps=64)


class Short(gymnasium.Env):
    """One step an episode in the first that is made, three in the second; `odd` is seen from its second step on."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length, odd):
        self._length, self._odd, self._steps = length, odd, 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._steps += 1
        seen = self._odd if self._steps > 1 else 0.0
        return np.full(2, seen, np.float32), 1.0, self._steps == self._length, False, {}


def test_what_a_slot_shows_after_its_episode_while_others_play_does_not_matter():
    made = iter([Short(1, np.nan), Short(3, 0.0), Short(1, 0.0)])  # the last one is looked at for a mask
    policy = rlgrad.make_policy(Short.observation_space, Short.action_space, value=False, seed=0)
    with rlgrad.GymCollector(lambda: next(made), num_envs=2, max_episode_steps=5) as collector:
        assert [episode.length for episode in collector.outcomes(policy)] == [1, 3]


class OutOfRange(gymnasium.Env):
    """A choice of three that is 7 after its second step, which ends the episode."""

    observation_space = gymnasium.spaces.Discrete(3)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self._steps = 0
        return 0, {}

    def step(self, action):
        self._steps += 1
        return 7 if self._steps == 2 else 1, 1.0, self._steps == 2, False, {}


def test_a_last_observation_that_is_no_choice_of_its_space_ends_an_evaluation_and_names_slot_and_step():
    policy = rlgrad.make_policy(OutOfRange.observation_space, OutOfRange.action_space, value=False, seed=0)
    with pytest.raises(OutputFault, match="after step 1"):
        evaluate(policy, OutOfRange, episodes=1, max_episode_steps=5)


def test_a_closed_collector_has_no_outcomes(run):
    collector = rlgrad.GymCollector("CartPole-v1", num_envs=1)
    collector.close()
    with pytest.raises(RuntimeError, match="closed"):
        collector.outcomes(run.policy)


def test_evaluations_of_the_same_weights_are_the_same(run):
    first, second = run.evaluate(episodes=6), run.evaluate(episodes=6)
    np.testing.assert_array_equal(first.returns, second.returns)
    assert first.episodes == 6
    assert first.mean_return == pytest.approx(first.returns.mean())
