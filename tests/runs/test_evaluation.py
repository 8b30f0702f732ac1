"""Fresh episodes at fixed weights: the same ones each time, and nothing of them is kept but what they came to."""

import json
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


def test_the_interval_is_of_the_mean_and_missing_for_one_episode(run):
    evaluated = run.evaluate(episodes=6)
    low, high = evaluated.interval
    assert low < evaluated.mean_return < high
    assert (low + high) / 2 == pytest.approx(evaluated.mean_return)
    assert run.evaluate(episodes=1).summary()["interval"] is None


def test_a_seed_chooses_the_episodes_and_the_run_s_own_is_the_default(run):
    own, same, other = (run.evaluate(4, seed=seed).returns.tolist() for seed in (None, 0, 1))
    assert own == same
    assert own != other


def test_another_checkpoint_is_played_and_the_run_stays_at_its_own(run):
    before = run.policy.get_weights()
    steps = sorted(int(path.stem) for path in (run.path / "checkpoints").glob("0*.npz"))
    with run.weights_at(steps[0]) as timesteps:
        assert timesteps == steps[0] < run.timesteps
        assert any((a != b).any() for a, b in zip(before, run.policy.get_weights(), strict=True))
        first = run.evaluate(4).returns.tolist()
    np.testing.assert_equal(run.policy.get_weights(), before)
    assert run.write_evaluation(4, checkpoint=steps[0])["greedy"]["returns"] == first
    best = run.write_evaluation(2, checkpoint="best")
    assert (best["checkpoint"], best["timesteps"] in range(run.timesteps + 1)) == ("best", True)
    assert not (run.path / "evaluation.json").exists()  # it is about the last weights
    for missing in (7, "worst", -1):
        with pytest.raises(ValueError, match=rf"no checkpoint {missing!r} in .* There are: last, best, {steps[-1]}"):
            run.write_evaluation(2, checkpoint=missing)


def test_the_file_has_each_episode_in_few_lines_and_not_those_of_another_environment(run):
    other = run.write_evaluation(3, env_kwargs={"sutton_barto_reward": True})
    assert other["greedy"]["mean_return"] <= 0.0
    assert other["env_kwargs"] == {"sutton_barto_reward": True}
    assert other["solved"] is None
    file = run.path / "evaluation.json"
    assert not file.exists()
    content = run.write_evaluation(30, seed=100)
    assert json.loads(file.read_text()) == content
    assert content["seed"] == 100
    greedy = content["greedy"]
    assert (len(greedy["returns"]), greedy["returns"]) == (30, [float(length) for length in greedy["lengths"]])
    assert len(file.read_text().splitlines()) < 30
    file.unlink()


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


class Own(gymnasium.Env):
    """Ends its own episodes after `length` steps; no specification says so."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    length = 12

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._steps += 1
        return np.zeros(1, np.float32), 1.0, self._steps == self.length, False, {}


class Endless(Own):
    length = -1


QUICK = {"num_envs": 2, "num_steps": 20, "verbose": False, "hidden_sizes": (4,), "logs": ("csv",)}


@pytest.fixture
def impatient(monkeypatch):
    """Episodes without a limit are given up after 30 steps."""
    for module in ("lengths", "player"):
        monkeypatch.setattr(f"rlgrad.rollouts.{module}.MOST_STEPS", 30)


@pytest.mark.parametrize("limit", [None, 1000])
def test_an_environment_without_a_limit_is_evaluated_during_and_after_training(limit, tmp_path):
    options = {**QUICK, "evaluation_interval": 100, "evaluation_episodes": 3, "max_episode_steps": limit}
    run = rlgrad.train("a2c", Own, total_timesteps=400, run_dir=tmp_path / "run", **options)
    lengths = np.array(run.history["eval/length_greedy"])
    assert lengths[~np.isnan(lengths)].tolist() == [12.0] * 4
    assert run.is_evaluated
    assert run.evaluate(5).lengths.tolist() == [12] * 5
    assert run.evaluate(5, max_episode_steps=4).lengths.tolist() == [4] * 5
    results = run.write_evaluation(2, max_episode_steps=4)
    assert (results["greedy"]["mean_return"], results["max_episode_steps"]) == (4.0, 4)


def test_a_return_to_stop_at_is_reached_without_a_limit(tmp_path):
    options = {**QUICK, "evaluation_interval": 40, "evaluation_episodes": 0}
    run = rlgrad.train("a2c", Own, total_timesteps=4000, stop_at_return=12.0, run_dir=tmp_path / "run", **options)
    assert run.ended
    assert run.timesteps < 200


def test_whole_episodes_without_a_limit_train(tmp_path):
    options = {**QUICK, "num_steps": None, "evaluation_episodes": 2}
    run = rlgrad.train("reinforce", Own, total_timesteps=240, run_dir=tmp_path / "run", **options)
    assert (run.timesteps, run.updates, run.episodes) == (240, 10, 20)


def test_an_evaluation_without_an_end_leaves_training_alone(impatient, tmp_path, caplog):
    class Counted(rlgrad.callbacks.Evaluate):
        tried = 0

        def on_update(self, run, metrics):
            before = self._next
            super().on_update(run, metrics)
            self.tried += self._next != before

    callback = Counted(interval=40, episodes=2)
    options = {**QUICK, "evaluation_episodes": 2, "callbacks": [callback]}
    run = rlgrad.train("a2c", Endless, total_timesteps=40 * 16, run_dir=tmp_path / "run", **options)
    assert run.finished
    assert np.isnan(run.history["eval/return_greedy"]).all()
    assert callback.tried == 4  # after 1, 1 + 2, 1 + 2 + 4, … intervals, and no further one
    warnings = [record.getMessage() for record in caplog.records if "2 of 2 episodes" in record.getMessage()]
    assert ["without an evaluation" in text for text in warnings] == [True, False]  # the other one is of the end
    with pytest.raises(ValueError, match=r"30 steps.*--max-episode-steps"):
        run.evaluate(2)
    assert run.evaluate(2, max_episode_steps=9).lengths.tolist() == [9, 9]
    again = rlgrad.callbacks.Evaluate(interval=40)
    again.restore(callback.state())
    assert again.state() == callback.state()
